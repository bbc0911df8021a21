"""C memory for the structs of `extmem.vk`, and structs from C memory.

`to_c(struct)` builds the struct and everything it points to: the pNext chain, sequences, names, security attributes.
Only the result keeps this memory alive: keep it until the call that uses the pointer has returned. `from_c(cls,
memory)` copies a struct and its chain from C memory; the result shares nothing with that memory.

Handles (VkDeviceMemory, VkBuffer, HANDLE, file descriptors …) may be ints, or objects that represent one: the attribute
`raw` of an object is used if it has one; any other object is converted with `int()`, so a closed handle raises its own
error here. None is the null handle, and null handles are read as None.

This module needs cffi. Therefore only modules that call C functions import it.
"""

from __future__ import annotations

from extmem.vk._from_c import from_c
from extmem.vk._generated._abi import ffi
from extmem.vk._to_c import CStruct, to_c

__all__ = ["CStruct", "ffi", "from_c", "to_c"]
