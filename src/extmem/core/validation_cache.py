"""Calls that broke no rule, remembered, so that their like need not be judged again.

How this works. A program makes the same few calls over and over: it allocates, exports and binds payloads of one kind.
What the rules say of such a call follows from some numbers alone, its key, and a device remembers the keys of calls
that broke none. Calls that break a rule are never remembered, and neither is a call whose verdict depends on anything
that changes, or that has more in it than the key can say: those have no key, and are judged each time.
"""

from __future__ import annotations

from typing import TypeAlias

from extmem import vk

__all__ = ["Key", "Verdicts", "buffer_types", "of_allocation", "of_buffer"]

Key: TypeAlias = tuple[object, ...]
_ROOM = 1_024


class Verdicts(set[Key | None]):
    """The keys of one device: a call whose key is in it broke no rule before. None never is."""

    def note(self, key: Key | None) -> None:
        """A call with this key has broken no rule."""
        if key is not None:
            if len(self) >= _ROOM:
                self.clear()
            self.add(key)


def of_allocation(info: vk.MemoryAllocateInfo) -> Key | None:
    """vkAllocateMemory that exports by handle types alone, and imports and dedicates nothing."""
    if info.__class__ is not vk.MemoryAllocateInfo:
        return None
    export, size, kind = info.p_next, info.allocation_size, info.memory_type_index
    if export.__class__ is not vk.ExportMemoryAllocateInfo:
        return None
    types = export.handle_types
    # 4096.0 is equal to 4096, and malformed. (Written out: this is asked at every call, and a loop takes its time.)
    if export.p_next is not None or not (isinstance(size, int) and isinstance(kind, int) and isinstance(types, int)):
        return None
    return "allocate", size, kind, types


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


def buffer_types(key: Key | None) -> int | None:
    """The handle types of a buffer with this key."""
    types = key[-1] if key is not None else None
    return int(types) if isinstance(types, int) else None
