"""The check of the ranges of vkFlushMappedMemoryRanges and vkInvalidateMappedMemoryRanges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extmem import vk
from extmem.core import arguments
from extmem.core.memory_object import MemoryObject
from extmem.errors import HandleStateError
from extmem.owning import Uses
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.devices.backend import Allocation

__all__ = ["check_ranges"]

_WHOLE = int(vk.WHOLE_SIZE)


def check_ranges(
    device: DeviceState, ranges: Sequence[vk.MappedMemoryRange], command: str, uses: Uses
) -> list[tuple[Allocation, int, int]]:
    """Return allocation, offset and size (bytes) of each range. VK_WHOLE_SIZE extends to the end of the memory.

    uses: holds the memory until the command has completed.
    Errors: TypeError for what is not a range of memory; HandleStateError for memory of another device, or that is not
    mapped; ValueError for a range that extends outside its memory.
    """
    checked = []
    for index, given in enumerate(ranges):
        area = copy_struct(given)
        where = f"{command}: range {index}"
        if not isinstance(area, vk.MappedMemoryRange):
            raise TypeError(f"{where} is {area!r}; pass a vk.MappedMemoryRange")
        memory = area.memory
        if not isinstance(memory, MemoryObject):
            raise TypeError(f"{where}: its memory is {memory!r}; pass a DeviceMemory of this device")
        record = uses.add(memory.record)
        record.check_process()
        if record.device is not device:
            raise arguments.of_another_device(memory, record.device)
        if not record.allocation.mapped:
            raise HandleStateError(f"{where}: {memory!r} is not mapped (VUID-VkMappedMemoryRange-memory-00684); map it")
        offset = arguments.whole_number(area.offset, f"{where}: offset")
        requested = arguments.whole_number(area.size, f"{where}: size")
        size = record.size - offset if requested == _WHOLE else requested
        if offset < 0 or size < 1 or offset + size > record.size:
            raise ValueError(
                f"{where}: {requested} bytes from offset {offset} are not within the {record.size} bytes of the memory "
                "(VUID-VkMappedMemoryRange-size-00685, -00686), and no range was processed; pass a range within it"
            )
        checked.append((record.allocation, offset, size))
    return checked
