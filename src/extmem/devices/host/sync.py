"""Semaphores and fences of the host device, and submissions that wait for them and signal them: `SyncBackend`.

How this works. The host has no queue: a submission waits, then runs its commands, then signals, in the calling thread.
Waits are made by the kernel in slices, so a signal handler can end each of them. A batch that waits for what a later
batch of the same thread signals waits for ever: the rules refuse it, and Ctrl-C ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from extmem.devices.host import late, sync_system
from extmem.devices.host.sync_capabilities import fence_properties, semaphore_properties
from extmem.devices.sync import Batch, FenceSpec, NativeFence, NativeSemaphore, SemaphoreSpec
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.host.sync_system import HostBinarySemaphore, HostFence, HostTimeline

__all__ = [
    "create_fence",
    "create_semaphore",
    "examine",
    "fence_properties",
    "semaphore_properties",
    "submit",
    "wait_fences",
    "wait_semaphores",
]

examine = sync_system.examine


def create_semaphore(spec: SemaphoreSpec) -> HostTimeline | HostBinarySemaphore:
    """See `SyncBackend`."""
    if spec.timeline:
        return sync_system.HostTimeline.create(spec)
    return sync_system.HostBinarySemaphore.create(spec)


def create_fence(spec: FenceSpec) -> HostFence:
    """See `SyncBackend`."""
    return sync_system.HostFence.create(spec)


def wait_semaphores(waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool, timeout_ns: int) -> bool:
    """See `SyncBackend`. Errors: PeerGoneError for a value whose signaler has ended."""
    timelines = cast("Sequence[tuple[HostTimeline, int]]", waits)
    return sync_system.wait_timelines(timelines, any_of=any_of, deadline=sync_system.deadline_after(timeout_ns))


def wait_fences(fences: Sequence[NativeFence], *, any_of: bool, timeout_ns: int) -> bool:
    """See `SyncBackend`. Errors: PeerGoneError for a fence whose signaler has ended."""
    deadline = sync_system.deadline_after(timeout_ns)
    return sync_system.wait_fences(cast("Sequence[HostFence]", fences), any_of=any_of, deadline=deadline)


def submit(batches: Sequence[Batch], fence: NativeFence | None) -> None:
    """See `SyncBackend.submit_batches`. What can be refused before the first wait is refused there.

    Errors: AccessDeniedError for a signal without the right to it; PeerGoneError for a wait that nobody will satisfy;
    DriverError for the signal of a binary semaphore that is signaled.
    """
    last = cast("HostFence | None", fence)
    for batch in batches:
        if batch.command_buffers:
            raise UnsupportedError(
                f"vkQueueSubmit: {len(batch.command_buffers)} command buffers are given, and the host device has none; "
                "record the commands by device.commands()",
                requires_one_of=["a Vulkan device"],
            )
        for signal in batch.signals:
            cast("HostTimeline | HostBinarySemaphore", signal.semaphore).check_right()
    if last is not None:
        last.check_right()
    for batch in batches:
        _do(batch)
    if last is not None:
        last.submit_signal()


def _do(batch: Batch) -> None:
    timelines = [(wait.semaphore, wait.value) for wait in batch.waits if wait.semaphore.timeline]
    if timelines:
        wait_semaphores(timelines, any_of=False, timeout_ns=1 << 64)
    for wait in batch.waits:
        if not wait.semaphore.timeline:
            cast("HostBinarySemaphore", wait.semaphore).submit_wait()
    if batch.record is not None:
        batch.record(late.commands.HostRecorder())
    for signal in batch.signals:
        if signal.semaphore.timeline:
            signal.semaphore.signal(signal.value)
        else:
            cast("HostBinarySemaphore", signal.semaphore).submit_signal()
