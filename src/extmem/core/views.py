"""Views: memoryviews through which a program looks at a payload, zero copy.

How this works. A view is over a ctypes array, which holds the memory's record, not the other way round: while the
array lives, nothing that it looks at is given back. The memory knows its arrays by weak references. Where another
thread closes the memory while the array is made, everything is given back when the array is lost.

Bytes that a program writes to a payload may be of that payload, seen through a view or by their address. `shares_bytes`
finds these: a device copies in pieces, so what is written must not change what is still to be read.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import ref

from extmem import rules
from extmem.core.placement import place_of
from extmem.owning import unsettled

if TYPE_CHECKING:
    from extmem.core.memory_record import MemoryRecord

__all__ = ["shares_bytes", "view", "view_of_all"]

_LIVE: dict[int, ref[Any]] = {}
"""Every array that a view looks through, by its id."""


def view(record: MemoryRecord, arrays: list[ref[Any]]) -> memoryview:
    """The payload's bytes, read-only where they may not be written. Errors: as `view_of_all`."""
    octets, descriptor = view_of_all(record, arrays), record.descriptor
    if descriptor.payload_size == record.size:
        return octets
    return octets[descriptor.payload_offset : descriptor.payload_offset + descriptor.payload_size]


def view_of_all(record: MemoryRecord, arrays: list[ref[Any]]) -> memoryview:
    """The bytes of the whole allocation, as bound resources lie in it; read-only where they may not be written.

    arrays: what views of this memory look through, while there are any.
    Errors: HandleStateError; as `Allocation.map`.
    """
    array: Any = None
    for seen in arrays:
        array = seen()
        break
    if array is None:
        array = _mapped(record)
        arrays.append(ref(array, arrays.remove))
    octets = memoryview(array).cast("B")
    return octets if record.writable else octets.toreadonly()


def _mapped(record: MemoryRecord) -> Any:
    hold = record.hold()
    try:
        array = _bytes_of(record.size).from_address(record.allocation.map(record.writable).address)
        array.record, array.hold = record, hold
        key = id(array)
        _LIVE[key] = ref(array, lambda _: _LIVE.pop(key, None))
    finally:
        # The frame of an exception must not keep the hold. As at the end of a `Use`, no signal handler runs before it
        # is noted that the record is to be given back.
        del hold
        if record.closing:
            unsettled[record] = 0
            record.try_to_end()
    return array


def shares_bytes(octets: memoryview, record: MemoryRecord) -> bool:
    """Whether some of these bytes may lie in the payload of `record`, as far as this process sees it.

    Through its own mapping, or a view of any memory object that is known to have the same payload.
    """
    if not octets.nbytes or isinstance(octets.obj, bytes):
        return False
    ranges = [(ctypes.addressof(array), array.record.size) for array in _looked_through(record)]
    if record.allocation.mapped:
        ranges.append((record.allocation.map(record.writable).address, record.size))
    if not ranges:
        return False
    if octets.readonly:
        return True  # ctypes does not return its address
    start = ctypes.addressof(ctypes.c_char.from_buffer(octets))
    return any(start < first + size and first < start + octets.nbytes for first, size in ranges)


def _looked_through(record: MemoryRecord) -> list[Any]:
    """What live views of this payload look through."""
    arrays = [array for known in list(_LIVE.values()) if (array := known()) is not None]
    if not arrays:
        return []
    here = place_of(record, 0)
    return [a for a in arrays if a.record is record or _overlap(here, record.size, a.record)]


def _overlap(place: rules.Place, size: int, other: MemoryRecord) -> bool:
    from extmem.rules.transfer_commands import overlap  # of the rules, which opening a device does not need

    return overlap(place, 0, place_of(other, 0), 0, size, other.size)


@lru_cache(maxsize=256)
def _bytes_of(size: int) -> Any:
    """The ctypes array type. Making one takes longer than mapping."""
    return type("View", (ctypes.c_ubyte * size,), {"__slots__": ("hold", "record")})
