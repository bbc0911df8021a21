"""Views: memoryviews of a payload, zero copy.

How this works. A view is over a ctypes array. The array refers to the record of the memory, and holds it: while the
array is alive, the mapping is not released. The memory object has weak references to its arrays. If another thread
closes the memory while the array is created, everything is released when the array is garbage-collected.

Bytes that a program writes to a payload may belong to that payload, through a view or by their address. `shares_bytes`
detects these: a device copies in pieces, so a piece that it writes must not change the source of a later piece.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import ref

from extmem.handles.process_id import current_process
from extmem.owning import LateModule, late_imports, unsettled

if TYPE_CHECKING:
    from extmem.core import placement
    from extmem.core.memory_record import MemoryRecord
else:
    placement = LateModule(globals(), "extmem.core.placement")

__all__ = ["payload_at", "shares_bytes", "view", "view_of_all"]

_LIVE: dict[int, ref[Any]] = {}
"""All arrays that have views, by their id."""


def view(record: MemoryRecord, arrays: list[ref[Any]]) -> memoryview:
    """Return the bytes of the payload, read-only if they may not be written. Errors: as `view_of_all`."""
    octets, descriptor = view_of_all(record, arrays), record.descriptor
    if descriptor.payload_size == record.size:
        return octets
    return octets[descriptor.payload_offset : descriptor.payload_offset + descriptor.payload_size]


def view_of_all(record: MemoryRecord, arrays: list[ref[Any]]) -> memoryview:
    """Return the bytes of the whole allocation, which bound resources refer to; read-only if they may not be written.

    arrays: the live array of this memory object, if there is one; a new one is added.
    Errors: HandleStateError; as `Allocation.map`.
    """
    array: Any = None
    for live in arrays:
        array = live()
        break
    if array is None:
        array = _mapped(record)
        arrays.append(ref(array, arrays.remove))
    octets = memoryview(array).cast("B")
    return octets if record.writable else octets.toreadonly()


def _mapped(record: MemoryRecord) -> Any:
    hold = record.hold()
    try:
        array = _array_type(record.size).from_address(record.allocation.map(record.writable).address)
        array.record, array.hold = record, hold
        key = id(array)
        _LIVE[key] = ref(array, lambda _: _LIVE.pop(key, None))
    finally:
        # The frame of an exception must not keep the hold. As at the end of a `Use`, no signal handler runs between the
        # end of the hold and the record's entry in `unsettled`.
        del hold
        if record.closing:
            unsettled[record] = 0
            record.try_to_end()
    return array


def shares_bytes(octets: memoryview, record: MemoryRecord) -> bool:
    """Return whether some of these bytes may belong to the payload of `record`, as far as this process can detect it.

    They may, in the mapping of the record, and in a view of any memory object that is known to have the same payload.
    """
    if not octets.nbytes or isinstance(octets.obj, bytes):
        return False
    ranges = [(ctypes.addressof(array), array.record.size) for array in _arrays_over(record)]
    if record.allocation.mapped:
        ranges.append((record.allocation.map(record.writable).address, record.size))
    if not ranges:
        return False
    if octets.readonly:
        return True  # ctypes does not return its address
    start = ctypes.addressof(ctypes.c_char.from_buffer(octets))
    return any(start < first + size and first < start + octets.nbytes for first, size in ranges)


def payload_at(address: int, size: int) -> tuple[MemoryRecord, memoryview, int] | None:
    """Return the memory that a view shows at an address: its record, a hold on it, and the offset in the payload.

    None if no view of this process shows all of these bytes. A forked child can read the views of its parent, but the
    fds of their memory are not its own: to the child they are ordinary memory.
    """
    for live in list(_LIVE.values()):
        array = live()
        if array is None:
            continue
        record: MemoryRecord = array.record
        if record.pid != current_process.pid:
            continue
        start = address - ctypes.addressof(array) - record.descriptor.payload_offset
        if 0 <= start and start + size <= record.descriptor.payload_size:
            return record, record.hold(), start
    return None


def _arrays_over(record: MemoryRecord) -> list[Any]:
    """Return the live arrays over memory that overlaps this payload."""
    arrays = [array for live in list(_LIVE.values()) if (array := live()) is not None]
    if not arrays:
        return []
    with late_imports():
        from extmem.rules.transfer_commands import overlap  # a part of the rules, which opening a device does not need

    place, size = placement.place_of(record, 0), record.size
    return [
        array
        for array in arrays
        if array.record is record or overlap(place, 0, placement.place_of(array.record, 0), 0, size, array.record.size)
    ]


@lru_cache(maxsize=256)
def _array_type(size: int) -> Any:
    """Return a ctypes array type. Creating one takes longer than mapping."""
    return type("View", (ctypes.c_ubyte * size,), {"__slots__": ("hold", "record")})
