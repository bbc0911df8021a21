"""Ranges of mapped memory, for vkFlushMappedMemoryRanges and vkInvalidateMappedMemoryRanges: checked, then named."""

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

__all__ = ["checked"]

_WHOLE = int(vk.WHOLE_SIZE)


def checked(
    device: DeviceState, ranges: Sequence[vk.MappedMemoryRange], command: str, uses: Uses
) -> list[tuple[Allocation, int, int]]:
    """Allocation, offset and size in bytes of each range; VK_WHOLE_SIZE reaches to the end. All are checked first.

    uses: holds the memory until the command is done.
    Errors: TypeError for what is not a range of memory; HandleStateError for memory of another device, or that is not
    mapped; ValueError where a range reaches outside its memory.
    """
    found = []
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
        asked = arguments.whole_number(area.size, f"{where}: size")
        size = record.size - offset if asked == _WHOLE else asked
        if offset < 0 or size < 1 or offset + size > record.size:
            raise ValueError(
                f"{where}: {asked} bytes from offset {offset} are no part of the memory's {record.size} bytes "
                "(VUID-VkMappedMemoryRange-size-00685, -00686); nothing was done"
            )
        found.append((record.allocation, offset, size))
    return found
