"""The batches of a submission as the driver gets them: without timelines of the host, and divided by host words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem.devices.sync import Batch
from extmem.devices.vulkan.memory import native_allocation
from extmem.devices.vulkan.semaphores import VulkanSemaphore
from extmem.devices.vulkan.submit_infos import operations_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.devices.sync import NativeSemaphore
    from extmem.devices.vulkan.memory import QueueOwner, VulkanAllocation

__all__ = ["divided", "has_word", "is_host", "of_driver", "set_owners"]


def is_host(semaphore: NativeSemaphore) -> bool:
    """Whether it is a timeline of the host."""
    return isinstance(semaphore, VulkanSemaphore) and semaphore.host is not None


def of_driver(batch: Batch) -> Batch:
    """Return the batch without the host timelines, which the driver does not know."""
    for one in operations_of(batch):
        if is_host(one.semaphore):
            break
    else:
        return batch
    return Batch(
        [wait for wait in batch.waits if not is_host(wait.semaphore)],
        batch.record,
        batch.command_buffers,
        [signal for signal in batch.signals if not is_host(signal.semaphore)],
        batch.owners,
        batch.chain,
    )


def divided(batches: Sequence[Batch], *, has_fence: bool) -> list[Sequence[Batch]]:
    """Return the batches in groups, each of which is one submission.

    A group ends with a signal of a semaphore that has a word, and begins with a wait for a timeline of the host.
    has_fence: whether a fence is submitted, also without batches.
    """
    if len(batches) == 1:
        return [batches]
    groups: list[list[Batch]] = [[]]
    for batch in batches:
        if groups[-1] and any(is_host(wait.semaphore) for wait in batch.waits):
            groups.append([])
        groups[-1].append(batch)
        if any(has_word(signal.semaphore) for signal in batch.signals):
            groups.append([])
    if not groups[-1] and (len(groups) > 1):
        groups.pop()
    return [group for group in groups if group] or ([[]] if has_fence else [])


def has_word(semaphore: NativeSemaphore) -> bool:
    """Whether the host waits for a page of it, which is raised at the end of what signals it."""
    return isinstance(semaphore, VulkanSemaphore) and (semaphore.host is not None or semaphore.word is not None)


def set_owners(batches: Sequence[Batch]) -> None:
    """Record the owners of memory after the batches, by barriers of their commands."""
    for batch in batches:
        for allocation, is_acquired in batch.owners:
            owner: QueueOwner = "held" if is_acquired else "external"
            native: VulkanAllocation = native_allocation(allocation)
            native.owner = owner
