"""Buffers and images that several queue families use at once."""

from __future__ import annotations

from extmem.rules._conditions import is_zero
from extmem.rules._creation import BOTH, Create, Traits
from extmem.rules._engine import Demand, demand

__all__: list[str] = []

_WHERE = "{call.struct}.queue_family_indices"


def _too_few(call: Create) -> str:
    count = len(call.info.queue_family_indices)
    return "" if count > 1 else f"{count} {'element' if count == 1 else 'elements'}"


def _wrong_families(call: Create) -> str:
    given = [int(index) for index in call.info.queue_family_indices]
    count = call.device.queue_family_count if call.device is not None else None
    problems = []
    if len(set(given)) < len(given):
        problems.append(f"it is {given}, where a queue family is repeated")
    beyond = [index for index in dict.fromkeys(given) if count is not None and index >= count]
    if beyond:
        problems.append(f"it has {', '.join(map(str, beyond))}, and the device has {count} queue families")
    return "; ".join(problems)


demand(
    BOTH,
    Demand(
        ("VkBufferCreateInfo-sharingMode-00913", "VkImageCreateInfo-sharingMode-00941"),
        is_zero("info.queue_family_indices"),
        _WHERE,
        "it is empty, and sharing_mode is CONCURRENT",
        "List the queue families, or use EXCLUSIVE.",
        needs=Traits.CONCURRENT,
    ),
    Demand(
        ("VkBufferCreateInfo-sharingMode-00914", "VkImageCreateInfo-sharingMode-00942"),
        _too_few,
        _WHERE,
        "it has {found}, and sharing_mode is CONCURRENT",
        "List at least two queue families, or use SharingMode.EXCLUSIVE.",
        needs=Traits.CONCURRENT,
    ),
    Demand(
        ("VkBufferCreateInfo-sharingMode-01419", "VkImageCreateInfo-sharingMode-01420"),
        _wrong_families,
        _WHERE,
        "{found}",
        "List each of the device's queue families that use it, once.",
        needs=Traits.CONCURRENT,
    ),
)
