"""vkMapMemory2 and vkUnmapMemory2 of memory that was imported from a host pointer."""

from __future__ import annotations

from extmem import vk
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import HOST_TYPES, types_text
from extmem.rules.facts import MemoryFacts
from extmem.rules.violation import Violation

__all__ = ["check_map_memory", "check_unmap_memory"]

_PLACED = int(vk.MemoryMapFlagBits.PLACED_EXT)
_RESERVE = int(vk.MemoryUnmapFlagBits.RESERVE_EXT)

MAP: Suite[tuple[int, MemoryFacts]] = Suite("vkMapMemory2")
UNMAP: Suite[tuple[int, MemoryFacts]] = Suite("vkUnmapMemory2")


@rule("VkMemoryMapInfo-flags-09575", on=MAP)
def host_memory_is_not_placed(call: tuple[int, MemoryFacts]) -> Finding | None:
    """Imported host memory is not mapped at a chosen address."""
    flags, memory = call
    if not flags & _PLACED or not int(memory.import_handle_type) & HOST_TYPES:
        return None
    return (
        "MemoryMapInfo.flags",
        f"PLACED would map memory imported as {types_text(int(memory.import_handle_type))} at a chosen address",
        "Map it without PLACED; it is mapped at its host address.",
    )


@rule("VkMemoryUnmapInfo-flags-09580", on=UNMAP)
def host_memory_is_not_reserved(call: tuple[int, MemoryFacts]) -> Finding | None:
    """The address range of imported host memory is not reserved when it is unmapped."""
    flags, memory = call
    if not flags & _RESERVE or not int(memory.import_handle_type) & HOST_TYPES:
        return None
    return (
        "MemoryUnmapInfo.flags",
        f"RESERVE would keep the range of memory imported as {types_text(int(memory.import_handle_type))}",
        "Unmap it without RESERVE.",
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
