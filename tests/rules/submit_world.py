"""Facts for the rules of submissions: a device, its semaphores and fences, and functions that make a call."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import BatchFacts, FenceFacts, SemaphoreFacts, SubmitFacts, SyncDeviceFacts, Violation
from tests.rules.world import GPU, link

LIMIT = 1 << 31
SYNC = SyncDeviceFacts(
    replace(GPU, synchronization2=True, queue_count=2), timeline_semaphore=True, max_timeline_difference=LIMIT
)
CLOSED = replace(SYNC, device=replace(SYNC.device, alive=False))
PAIR = replace(SYNC, device=replace(SYNC.device, device_group=(b"\x01" * 16, b"\x02" * 16)))
PLAIN = replace(SYNC, device=replace(SYNC.device, synchronization2=False))
QUEUE, OTHER_QUEUE = 1, 2
ELSEWHERE = 2
"""The `identity` of another device."""
SEMAPHORE = 0x5E
COMPUTE = vk.PipelineStageFlagBits.COMPUTE_SHADER


def binary(**facts: Any) -> SemaphoreFacts:
    """A binary semaphore of the device."""
    known: dict[str, Any] = {"name": "the semaphore 'done'", "identity": 21, "device_identity": GPU.identity}
    return SemaphoreFacts(False, **{**known, **facts})


def timeline(**facts: Any) -> SemaphoreFacts:
    """A timeline of the device, at 10."""
    known: dict[str, Any] = {
        "name": "the timeline 'frames'",
        "identity": 22,
        "device_identity": GPU.identity,
        "value": 10,
    }
    return SemaphoreFacts(True, **{**known, **facts})


def fence(**facts: Any) -> FenceFacts:
    """A fence of the device."""
    known: dict[str, Any] = {"name": "the fence 'frame'", "identity": 23, "device_identity": GPU.identity}
    return FenceFacts(**{**known, **facts})


def at(*values: int, signal: bool = False) -> vk.TimelineSemaphoreSubmitInfo:
    """The values of the timelines that a batch waits for, or signals."""
    return vk.TimelineSemaphoreSubmitInfo(**{f"{'signal' if signal else 'wait'}_semaphore_values": values})


def waits(
    *known: SemaphoreFacts | None, chain: tuple[Any, ...] = (), device: SyncDeviceFacts = SYNC, **fields: Any
) -> list[Violation]:
    """Submit a batch that waits for these semaphores."""
    given: dict[str, Any] = {
        "wait_semaphores": [SEMAPHORE] * len(known),
        "wait_dst_stage_mask": [COMPUTE] * len(known),
        "p_next": link(*chain),
    }
    info = vk.SubmitInfo(**{**given, **fields})
    return rules.check_queue_submit([info], None, SubmitFacts(device, QUEUE, (BatchFacts(waits=known),)))


def signals(
    *known: SemaphoreFacts | None, chain: tuple[Any, ...] = (), device: SyncDeviceFacts = SYNC, **fields: Any
) -> list[Violation]:
    """Submit a batch that signals these semaphores."""
    given: dict[str, Any] = {"signal_semaphores": [SEMAPHORE] * len(known), "p_next": link(*chain)}
    info = vk.SubmitInfo(**{**given, **fields})
    return rules.check_queue_submit([info], None, SubmitFacts(device, QUEUE, (BatchFacts(signals=known),)))


def semaphore(value: int = 0, **fields: Any) -> vk.SemaphoreSubmitInfo:
    """A semaphore of a batch of vkQueueSubmit2."""
    known: dict[str, Any] = {"semaphore": SEMAPHORE, "value": value}
    return vk.SemaphoreSubmitInfo(**{**known, **fields})


def waits2(known: SemaphoreFacts | None, value: int = 0, device: SyncDeviceFacts = SYNC, **fields: Any) -> Any:
    """Submit a batch by vkQueueSubmit2 that waits for this semaphore."""
    info = vk.SubmitInfo2(wait_semaphore_infos=[semaphore(value, **fields)])
    return rules.check_queue_submit2([info], None, SubmitFacts(device, QUEUE, (BatchFacts(waits=(known,)),)))


def signals2(known: SemaphoreFacts | None, value: int = 0, device: SyncDeviceFacts = SYNC, **fields: Any) -> Any:
    """Submit a batch by vkQueueSubmit2 that signals this semaphore."""
    info = vk.SubmitInfo2(signal_semaphore_infos=[semaphore(value, **fields)])
    return rules.check_queue_submit2([info], None, SubmitFacts(device, QUEUE, (BatchFacts(signals=(known,)),)))


def batch2(known: BatchFacts | None = None, chain: tuple[Any, ...] = (), **fields: Any) -> list[Violation]:
    """Submit one VkSubmitInfo2."""
    info = vk.SubmitInfo2(**fields, p_next=link(*chain))
    return rules.check_queue_submit2([info], None, SubmitFacts(SYNC, QUEUE, (known or BatchFacts(),)))


def submit(*given: Any, known: FenceFacts | None = None, device: SyncDeviceFacts = SYNC) -> list[Violation]:
    """Submit by vkQueueSubmit, with a fence if there are facts of one."""
    return rules.check_queue_submit(given, 0xFE if known else None, SubmitFacts(device, QUEUE, fence=known))


def submit2(*given: Any, known: FenceFacts | None = None, device: SyncDeviceFacts = SYNC) -> list[Violation]:
    """Submit by vkQueueSubmit2, with a fence if there are facts of one."""
    return rules.check_queue_submit2(given, 0xFE if known else None, SubmitFacts(device, QUEUE, fence=known))
