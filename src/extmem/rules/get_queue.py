"""vkGetDeviceQueue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extmem.rules._engine import Finding, Suite, rule
from extmem.rules.violation import Violation

__all__ = ["check_get_device_queue"]


@dataclass(slots=True)
class GetQueue:
    """One call. queue_counts: VkQueueFamilyProperties::queueCount of each family of the physical device."""

    family: int
    index: int
    queue_counts: Sequence[int]


GET_QUEUE: Suite[GetQueue] = Suite("vkGetDeviceQueue")


@rule("vkGetDeviceQueue-queueFamilyIndex-00384", on=GET_QUEUE)
def family_exists(call: GetQueue) -> Finding | None:
    """The physical device has the queue family."""
    if 0 <= call.family < len(call.queue_counts):
        return None
    return (
        "vkGetDeviceQueue.queueFamilyIndex",
        f"it is {call.family}, and the physical device has {len(call.queue_counts)} queue families",
        "Pass the family that the VkDevice was created with.",
    )


@rule("vkGetDeviceQueue-queueIndex-00385", on=GET_QUEUE)
def queue_exists(call: GetQueue) -> Finding | None:
    """The index is less than the physical device's number of queues of the family."""
    count = call.queue_counts[call.family] if 0 <= call.family < len(call.queue_counts) else None
    if count is None or 0 <= call.index < count:
        return None
    return (
        "vkGetDeviceQueue.queueIndex",
        f"it is {call.index}, and queue family {call.family} has {count} queues",
        "Pass an index below the queueCount that the VkDevice was created with for this family.",
    )


def check_get_device_queue(family: int, index: int, queue_counts: Sequence[int]) -> list[Violation]:
    """Return the broken rules that depend on the physical device only.

    Vulkan has no query for the queues that a VkDevice was created with.
    """
    return GET_QUEUE.run(GetQueue(family, index, queue_counts), 0)
