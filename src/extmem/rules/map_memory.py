"""vkMapMemory2 and vkUnmapMemory2 of memory that was imported from a host pointer."""

from __future__ import annotations

from enum import IntFlag

from extmem import vk
from extmem.rules._engine import Condition, Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import HOST_TYPES, types_text
from extmem.rules.facts import MemoryFacts
from extmem.rules.violation import Violation

__all__ = ["check_map_memory", "check_unmap_memory"]

MAP: Suite[tuple[int, MemoryFacts]] = Suite("vkMapMemory2")
UNMAP: Suite[tuple[int, MemoryFacts]] = Suite("vkUnmapMemory2")


def _of_host_memory(flag: IntFlag) -> Condition:
    """Make the condition that the flag is given, and the memory was imported from a host pointer: its type."""
    bit = int(flag)

    def broken(call: tuple[int, MemoryFacts]) -> str:
        flags, memory = call
        handle_type = int(memory.import_handle_type)
        return types_text(handle_type) if flags & bit and handle_type & HOST_TYPES else ""

    return broken


demand(
    MAP,
    Demand(
        "VkMemoryMapInfo-flags-09575",
        _of_host_memory(vk.MemoryMapFlagBits.PLACED_EXT),
        "MemoryMapInfo.flags",
        "PLACED would map memory imported as {found} at a chosen address",
        "Map it without PLACED; it is mapped at its host address.",
    ),
)
demand(
    UNMAP,
    Demand(
        "VkMemoryUnmapInfo-flags-09580",
        _of_host_memory(vk.MemoryUnmapFlagBits.RESERVE_EXT),
        "MemoryUnmapInfo.flags",
        "RESERVE would keep the range of memory imported as {found}",
        "Unmap it without RESERVE.",
    ),
)


def check_map_memory(info: vk.MemoryMapInfo, memory: MemoryFacts) -> list[Violation]:
    """Return all rules on imported host memory that this mapping would break."""
    return (
        wrong_struct(info, vk.MemoryMapInfo, "vkMapMemory2.info")
        or malformed([("MemoryMapInfo", info)])
        or MAP.run((int(info.flags), memory), 0)
    )


def check_unmap_memory(info: vk.MemoryUnmapInfo, memory: MemoryFacts) -> list[Violation]:
    """Return all rules on imported host memory that this unmapping would break."""
    return (
        wrong_struct(info, vk.MemoryUnmapInfo, "vkUnmapMemory2.info")
        or malformed([("MemoryUnmapInfo", info)])
        or UNMAP.run((int(info.flags), memory), 0)
    )
