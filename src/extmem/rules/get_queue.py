"""vkGetDeviceQueue."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from extmem.rules._conditions import not_index
from extmem.rules._engine import Demand, Suite, demand
from extmem.rules.violation import Violation

__all__ = ["check_get_device_queue"]


class GetQueue(msgspec.Struct):
    """One call."""

    family: int
    index: int
    families: int
    """Number of queue families of the physical device."""
    queues: int | None
    """VkQueueFamilyProperties::queueCount of the family; None if the device lacks the family."""


GET_QUEUE: Suite[GetQueue] = Suite("vkGetDeviceQueue")
demand(
    GET_QUEUE,
    Demand(
        "vkGetDeviceQueue-queueFamilyIndex-00384",
        not_index("family", "families"),
        "vkGetDeviceQueue.queueFamilyIndex",
        "it is {call.family}, and the physical device has {call.families} queue families",
        "Pass the family that the VkDevice was created with.",
    ),
    Demand(
        "vkGetDeviceQueue-queueIndex-00385",
        not_index("index", "queues"),
        "vkGetDeviceQueue.queueIndex",
        "it is {call.index}, and queue family {call.family} has {call.queues} queues",
        "Pass an index below the queueCount that the VkDevice was created with for this family.",
    ),
)


def check_get_device_queue(family: int, index: int, queue_counts: Sequence[int]) -> list[Violation]:
    """Return the broken rules that depend on the physical device only.

    `queue_counts`: the number of queues of each queue family of the physical device. Vulkan has no query for the queues
    that a VkDevice was created with.
    """
    queues = queue_counts[family] if 0 <= family < len(queue_counts) else None
    return GET_QUEUE.run(GetQueue(family, index, len(queue_counts), queues), 0)
