"""Semaphores and fences of the host device, and submissions that wait for them and signal them: `SyncBackend`.

How this works. The host has no queue: a submission waits, then runs its commands, then signals, in the calling thread.
Waits are made by the kernel in slices, so a signal handler can end each of them. A batch that waits for what a later
batch of the same thread signals waits for ever: the rules refuse it, and Ctrl-C ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from extmem.devices.host import event_fence, sync_system, timeline_semaphore
from extmem.devices.host.event_fence import HostFence
from extmem.devices.host.event_semaphore import HostBinarySemaphore
from extmem.devices.host.page_signals import deadline_after
from extmem.devices.host.sync_capabilities import fence_properties, semaphore_properties
from extmem.devices.host.sync_system import examine
from extmem.devices.host.timeline_semaphore import HostTimeline
from extmem.devices.sync import Batch, FenceSpec, NativeFence, NativeSemaphore, SemaphoreSpec
from extmem.errors import UnsupportedError
from extmem.owning import late_imports
from extmem.sharing.payload import Page, PayloadFd, Win32Payload

__all__ = [
    "create_fence",
    "create_semaphore",
    "create_word",
    "examine",
    "fence_properties",
    "is_timeline",
    "open_word",
    "semaphore_properties",
    "submit",
    "wait_fences",
    "wait_semaphores",
]


def create_semaphore(spec: SemaphoreSpec) -> HostTimeline | HostBinarySemaphore:
    """See `SyncBackend`."""
    if spec.timeline:
        return HostTimeline.create(spec)
    return HostBinarySemaphore.create(spec)


def create_word(spec: SemaphoreSpec) -> HostTimeline:
    """Create the companion page of a new timeline of a driver, with its initial value, as a timeline of the host."""
    return HostTimeline.of_page(sync_system.create_companion_page(spec.terms, spec.initial_value), writable=True)


def open_word(page: Page) -> HostTimeline | None:
    """Open a companion page of a driver's timeline as a timeline of the host; None for a page that is none."""
    examined = sync_system.examine_timeline(page.handle)
    if examined.problem:
        return None
    return HostTimeline.of_page(sync_system.copy_of_page(page.handle), writable=page.writable and examined.writable)


def is_timeline(payload: PayloadFd) -> bool:
    """Whether a payload of the object manager is a timeline of the host, and not a driver's."""
    return not isinstance(payload, Win32Payload) and not sync_system.examine_timeline(payload.fd).problem


def create_fence(spec: FenceSpec) -> HostFence:
    """See `SyncBackend`."""
    return HostFence.create(spec)


def wait_semaphores(waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool, timeout_ns: int) -> bool:
    """See `SyncBackend`. Errors: PeerGoneError for a value whose signaler has ended."""
    timelines = cast("Sequence[tuple[HostTimeline, int]]", waits)
    return timeline_semaphore.wait_timelines(timelines, any_of=any_of, deadline=deadline_after(timeout_ns))


def wait_fences(fences: Sequence[NativeFence], *, any_of: bool, timeout_ns: int) -> bool:
    """See `SyncBackend`. Errors: PeerGoneError for a fence whose signaler has ended."""
    deadline = deadline_after(timeout_ns)
    return event_fence.wait_fences(cast("Sequence[HostFence]", fences), any_of=any_of, deadline=deadline)


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
        with late_imports():
            from extmem.devices.host.commands import HostRecorder

        batch.record(HostRecorder())
    for signal in batch.signals:
        if signal.semaphore.timeline:
            signal.semaphore.signal(signal.value)
        else:
            cast("HostBinarySemaphore", signal.semaphore).submit_signal()
