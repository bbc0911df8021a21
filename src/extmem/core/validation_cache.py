"""Calls that broke no rule, remembered, so that their like need not be checked again.

How this works. A program makes the same few calls over and over: it allocates, exports and binds payloads of one kind.
What the rules say of such a call follows from some numbers alone, its key, and a device remembers the keys of calls
that broke none. Calls that break a rule are never remembered, and neither is a call whose verdict depends on anything
that changes, or that has more in it than the key can say: those have no key, and are checked each time.
"""

from __future__ import annotations

from typing import TypeAlias

from extmem import vk
from extmem.handles import FdHandle
from extmem.sharing.bounded import Bounded
from extmem.vk.handle_types import MemoryHandleType

__all__ = ["Key", "ValidationCache", "buffer_types", "of_allocation", "of_buffer", "of_import"]

Key: TypeAlias = tuple[object, ...]


class ValidationCache(Bounded[Key | None, None]):
    """The keys of one device: a call whose key is in it broke no rule before. None never is."""

    def note(self, key: Key | None) -> None:
        """A call with this key has broken no rule."""
        if key is not None:
            self.keep(key, None)


def of_allocation(info: vk.MemoryAllocateInfo) -> Key | None:
    """vkAllocateMemory that exports and does nothing else, or imports an `FdHandle` and does nothing else.

    The key of an import is incomplete: `of_import` adds the descriptor, once the fd was examined.
    """
    if info.__class__ is not vk.MemoryAllocateInfo:
        return None
    link, size, memory_type = info.p_next, info.allocation_size, info.memory_type_index
    # 4096.0 is equal to 4096, and malformed.
    if not (isinstance(size, int) and isinstance(memory_type, int)):
        return None
    if link.__class__ is vk.ExportMemoryAllocateInfo and isinstance(link.handle_types, int):
        key = "allocate", size, memory_type, link.handle_types
        return key if link.p_next is None else _of_sharing(key, link.p_next)
    if link.__class__ is vk.ImportMemoryFdInfoKHR and isinstance(link.handle_type, int) and link.p_next is None:
        return ("import", size, memory_type, link.handle_type) if isinstance(link.fd, FdHandle) else None
    return None


def _of_sharing(key: Key, link: vk.ChainStruct) -> Key | None:
    """The key of an export with VkExportMemoryWin32HandleInfoKHR. The object manager checks names and rights itself."""
    if link.__class__ is not vk.ExportMemoryWin32HandleInfoKHR or link.p_next is not None:
        return None
    name, attributes = link.name, link.attributes
    if not isinstance(link.access, int) or not (name is None or isinstance(name, str)):
        return None
    if attributes is not None:
        if attributes.__class__ is not vk.SecurityAttributes or not isinstance(attributes.inherit_handle, bool):
            return None
        if not (attributes.security_descriptor is None or isinstance(attributes.security_descriptor, str)):
            return None
    return *key, link.access, name is not None, attributes is not None


def of_import(key: Key | None, descriptor: bytes) -> Key | None:
    """The complete key of an import: what the rules compare of a payload is in its descriptor.

    Whether the fd can be imported is not in it: that is examined at each import.
    """
    return (*key, descriptor) if key is not None and descriptor else None


def of_buffer(info: vk.BufferCreateInfo) -> Key | None:
    """vkCreateBuffer with no more than external handle types chained."""
    external = info.p_next if info.__class__ is vk.BufferCreateInfo else None
    if external is None or external.__class__ is not vk.ExternalMemoryBufferCreateInfo:
        return None
    types = external.handle_types
    if external.p_next is not None or info.queue_family_indices:
        return None
    size, usage, flags, sharing = info.size, info.usage, info.flags, info.sharing_mode
    if not (isinstance(size, int) and isinstance(usage, int) and isinstance(flags, int)):
        return None
    if not (isinstance(sharing, int) and isinstance(types, int)):
        return None
    return "buffer", size, usage, flags, sharing, types


def buffer_types(key: Key | None) -> MemoryHandleType | None:
    """The handle types of a buffer with this key."""
    types = key[-1] if key is not None else None
    return MemoryHandleType(int(types)) if isinstance(types, int) else None
