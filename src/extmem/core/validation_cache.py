"""The cache of calls that passed validation, so that equal calls are not checked again.

How this works. A program makes the same few calls again and again: it allocates, exports and binds payloads of one
sort. The result of the rules for such a call depends on a few numbers, which form the key of the call. A device keeps
the keys of the calls that broke no rule. Calls that break a rule are never kept. Some calls have no key, and are
checked each time: those whose result depends on something that changes, and those with more fields than the key has.
"""

from __future__ import annotations

from typing import TypeAlias

from extmem import vk
from extmem.handles import FdHandle
from extmem.sharing.bounded import Bounded
from extmem.vk.handle_types import MemoryHandleType

__all__ = ["Key", "ValidationCache", "allocation_key", "buffer_key", "buffer_types", "import_key"]

Key: TypeAlias = tuple[object, ...]


class ValidationCache(Bounded[Key | None, None]):
    """The keys of the calls that passed validation on one device. The key None is never in it."""

    def note(self, key: Key | None) -> None:
        """Add the key of a call that broke no rule."""
        if key is not None:
            self.keep(key, None)


def allocation_key(info: vk.MemoryAllocateInfo) -> Key | None:
    """Return the key of a vkAllocateMemory that only exports, or only imports an `FdHandle`; None for any other.

    The key of an import is incomplete: `import_key` adds the descriptor, after the fd was examined.
    """
    if info.__class__ is not vk.MemoryAllocateInfo:
        return None
    link, size, memory_type = info.p_next, info.allocation_size, info.memory_type_index
    # 4096.0 is equal to 4096, but is not valid.
    if not (isinstance(size, int) and isinstance(memory_type, int)):
        return None
    if link.__class__ is vk.ExportMemoryAllocateInfo and isinstance(link.handle_types, int):
        key = "allocate", size, memory_type, link.handle_types
        return key if link.p_next is None else _win32_export_key(key, link.p_next)
    if link.__class__ is vk.ImportMemoryFdInfoKHR and isinstance(link.handle_type, int) and link.p_next is None:
        return ("import", size, memory_type, link.handle_type) if isinstance(link.fd, FdHandle) else None
    return None


def _win32_export_key(key: Key, link: vk.ChainStruct) -> Key | None:
    """Return the key of an export with VkExportMemoryWin32HandleInfoKHR. The object manager checks names and rights."""
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


def import_key(key: Key | None, descriptor: bytes) -> Key | None:
    """Return the complete key of an import: the rules compare only such facts of a payload as are in its descriptor.

    Whether the fd can be imported is not in it: each import examines the fd.
    """
    return (*key, descriptor) if key is not None and descriptor else None


def buffer_key(info: vk.BufferCreateInfo) -> Key | None:
    """Return the key of a vkCreateBuffer whose chain has external handle types only; None for any other."""
    external = info.p_next if info.__class__ is vk.BufferCreateInfo else None
    if external is None or external.__class__ is not vk.ExternalMemoryBufferCreateInfo:
        return None
    types = external.handle_types
    if external.p_next is not None or info.queue_family_indices:
        return None
    values = info.size, info.usage, info.flags, info.sharing_mode, types
    return ("buffer", *values) if all(isinstance(value, int) for value in values) else None


def buffer_types(key: Key | None) -> MemoryHandleType | None:
    """Return the handle types of a buffer with this key; None for no key."""
    types = key[-1] if key is not None else None
    return MemoryHandleType(int(types)) if isinstance(types, int) else None
