"""Which class a memory object has: `DeviceMemory`, or `NamedArrays` if its payload holds named arrays.

`DeviceMemory` knows no other class of this layer, so that none imports itself through others; this module gives it the
functions that return them. They are imported at their first use, because most programs need only plain memory.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from extmem.api import device
from extmem.api.device import DeviceMemory
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.api.slices import MemorySlice
    from extmem.core.memory_record import MemoryRecord

__all__ = ["memory_of", "part_of"]


def memory_of(record: MemoryRecord, hold: memoryview) -> DeviceMemory:
    """Return the memory object of a record, and of a hold on it."""
    descriptor = record.descriptor
    if not descriptor.pages or descriptor.array is not None:
        return DeviceMemory(record, hold)
    named_arrays, describes_table = _named()
    return named_arrays(record, hold) if describes_table(descriptor) else DeviceMemory(record, hold)


@cache
def _named() -> tuple[Any, Any]:
    """Return the class of memory that holds named arrays, and the function that tells whether a payload does."""
    with late_imports():
        from extmem.api import arrays
        from extmem.core import tables

    return arrays.NamedArrays, tables.describes_table


def part_of(memory: DeviceMemory, index: Any) -> MemorySlice:
    """Return a part of memory: `memory[index]`."""
    with late_imports():
        from extmem.api import slices

    return slices.slice_of(memory, index)


device.memory_of, device.part_of = memory_of, part_of
