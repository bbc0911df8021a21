"""C memory for the structs of `extmem.vk`, and structs from C memory.

`to_c(struct)` builds the struct and all it points to: the pNext chain, sequences, names, security attributes. The
result keeps every byte alive, and so does nothing else: hold it until the call that got the pointer has returned.
`from_c(cls, memory)` copies a struct and its chain out of C memory; what it returns shares nothing with it.

Handles (VkDeviceMemory, VkBuffer, HANDLE, file descriptors …) may be given as ints, or as objects that stand for one:
an object with an attribute `raw` is asked for it; any other is turned into a number with `int()`, so a closed handle
raises its own error here. None is the null handle, and null handles are read back as None.

This module needs cffi, and is therefore imported by nobody who only wants the words.
"""

from __future__ import annotations

from extmem.vk._from_c import from_c
from extmem.vk._generated._abi import ffi
from extmem.vk._to_c import CStruct, to_c

__all__ = ["CStruct", "ffi", "from_c", "to_c"]
