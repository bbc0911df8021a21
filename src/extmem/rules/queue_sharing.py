"""Buffers and images that several queue families use at once."""

from __future__ import annotations

from extmem import vk
from extmem.rules._creation import BOTH, Create
from extmem.rules._engine import Finding, rule

__all__: list[str] = []

_CONCURRENT = int(vk.SharingMode.CONCURRENT)


def _where(call: Create) -> str:
    return f"{type(call.info).__name__}.queue_family_indices"


@rule("VkBufferCreateInfo-sharingMode-00913", "VkImageCreateInfo-sharingMode-00941", on=BOTH)
def families_are_given(call: Create) -> Finding | None:
    """The queue families of a concurrent resource are listed."""
    if int(call.info.sharing_mode) != _CONCURRENT or len(call.info.queue_family_indices):
        return None
    return _where(call), "it is empty, and sharing_mode is CONCURRENT", "List the queue families, or use EXCLUSIVE."


@rule("VkBufferCreateInfo-sharingMode-00914", "VkImageCreateInfo-sharingMode-00942", on=BOTH)
def families_are_several(call: Create) -> Finding | None:
    """A concurrent resource is used by at least two queue families."""
    count = len(call.info.queue_family_indices)
    if int(call.info.sharing_mode) != _CONCURRENT or count > 1:
        return None
    return (
        _where(call),
        f"it has {count} {'element' if count == 1 else 'elements'}, and sharing_mode is CONCURRENT",
        "List at least two queue families, or use SharingMode.EXCLUSIVE.",
    )


@rule("VkBufferCreateInfo-sharingMode-01419", "VkImageCreateInfo-sharingMode-01420", on=BOTH)
def families_exist(call: Create) -> Finding | None:
    """Each queue family exists on the device and is listed once."""
    if int(call.info.sharing_mode) != _CONCURRENT:
        return None
    given = [int(index) for index in call.info.queue_family_indices]
    count = call.device.queue_family_count if call.device is not None else None
    problems = []
    if len(set(given)) < len(given):
        problems.append(f"it is {given}, where a queue family is repeated")
    beyond = [index for index in dict.fromkeys(given) if count is not None and index >= count]
    if beyond:
        problems.append(f"it has {', '.join(map(str, beyond))}, and the device has {count} queue families")
    if not problems:
        return None
    return _where(call), "; ".join(problems), "List each of the device's queue families that use it, once."
