"""Semaphores, timelines and fences that a caller holds, and the operations on them, each of whose calls may fail."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem import vk
from extmem.api import Device
from extmem.api.fence import Fence
from extmem.api.semaphore import Semaphore
from extmem.api.timeline import Timeline
from tests import systems
from tests.sync_operations import FenceType, SemaphoreType, fence_info, semaphore_info

__all__ = ["OF_FDS", "OPERATIONS", "SyncWorld", "pickled"]

FDS = systems.HERE == "linux"
_ALL = vk.PipelineStageFlagBits.ALL_COMMANDS
_names = itertools.count()


class SyncWorld:
    """One object of each kind, with a handle of each type, all of which must survive every failure."""

    def __init__(self, device: Device, stack: contextlib.ExitStack) -> None:
        keep = stack.enter_context
        self.device = device
        self.name = f"faults of order {next(_names)}"
        self.timeline: Timeline = keep(device.timeline(3, name=self.name))
        self.semaphore: Semaphore = keep(device.create_semaphore(semaphore_info(device)))
        self.fence: Fence = keep(device.create_fence(fence_info(device)))
        self.handle: Any = keep(self.timeline.export_handle(SemaphoreType.OPAQUE_WIN32))
        if FDS:
            self.fd: Any = keep(self.timeline.export_handle(SemaphoreType.OPAQUE_FD))
            self.semaphore_fd: Any = keep(self.semaphore.export_handle(SemaphoreType.OPAQUE_FD))
            if self.fence.record.descriptor.handle_types:
                self.fence_fd: Any = keep(self.fence.export_handle(FenceType.OPAQUE_FD))
        self.sent()  # what is made at the first use

    def sent(self) -> None:
        """Use each of them once."""
        for one in (self.timeline, self.semaphore, self.fence):
            if one.record.descriptor.handle_types:
                pickle.loads(pickle.dumps(one)).close()
        self.check()

    def check(self) -> None:
        """Check that all of it is open and usable, and is what it was."""
        with extmem.open_timeline(self.name, device=self.device) as one:
            assert one.value == self.timeline.value >= 3
            with extmem.open_timeline(self.handle, device=self.device) as other:
                before = other.value
                other.signal(before + 1)
                one.wait(before + 1, timeout=10)
        if FDS:
            with self.fd.duplicate() as copy, extmem.open_timeline(copy, device=self.device) as third:
                assert third.value == self.timeline.value and copy.closed
            assert not self.semaphore_fd.closed
        assert self.fence.signaled


@contextlib.contextmanager
def _semaphores(device: Device, timeline: bool) -> Iterator[tuple[Any, Any]]:
    with device.create_semaphore(semaphore_info(device, timeline)) as source:
        with device.create_semaphore(semaphore_info(device, timeline)) as target:
            yield source, target


def _imported_fd(world: SyncWorld, device: Device) -> None:
    with world.fd.duplicate() as copy, device.create_semaphore(semaphore_info(device, True)) as target:
        try:
            device.import_semaphore_fd(
                vk.ImportSemaphoreFdInfoKHR(target, handle_type=SemaphoreType.OPAQUE_FD, fd=copy)
            )
        except BaseException:
            assert not copy.closed, "the fd is the caller's after an error"
            raise
        assert copy.closed


def _imported_temporarily(world: SyncWorld, device: Device) -> None:
    temporary = vk.SemaphoreImportFlagBits.TEMPORARY
    with world.semaphore_fd.duplicate() as copy, device.create_semaphore(semaphore_info(device)) as target:
        try:
            device.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(target, temporary, SemaphoreType.OPAQUE_FD, copy))
        except BaseException:
            assert not copy.closed, "the fd is the caller's after an error"
            raise


def _imported_fence(world: SyncWorld, device: Device) -> None:
    if not world.fence.record.descriptor.handle_types:
        return  # this driver shares no fences
    with world.fence_fd.duplicate() as copy, device.create_fence(fence_info(device, False)) as target:
        try:
            device.import_fence_fd(vk.ImportFenceFdInfoKHR(target, handle_type=FenceType.OPAQUE_FD, fd=copy))
        except BaseException:
            assert not copy.closed, "the fd is the caller's after an error"
            raise
        assert target.signaled


def _imported_handle(world: SyncWorld, device: Device) -> None:
    with device.create_semaphore(semaphore_info(device, True)) as target:
        device.import_semaphore_win32_handle(
            vk.ImportSemaphoreWin32HandleInfoKHR(target, handle_type=SemaphoreType.OPAQUE_WIN32, handle=world.handle)
        )
        assert target.value >= 3


def _exported(world: SyncWorld, device: Device) -> None:
    with device.create_semaphore(semaphore_info(device, True)) as made:
        made.export_handle(SemaphoreType.OPAQUE_WIN32).close()
        if FDS:
            made.export_handle(SemaphoreType.OPAQUE_FD).close()


def _opened(world: SyncWorld, device: Device, source: Any) -> None:
    with extmem.open_timeline(source, device=device) as timeline:
        assert timeline.value >= 3


def _opened_fd(world: SyncWorld, device: Device) -> None:
    with world.fd.duplicate() as copy:
        try:
            opened = extmem.open_timeline(copy, device=device)
        except BaseException:
            assert not copy.closed, "the fd is the caller's after an error"
            raise
        with opened:
            assert copy.closed and opened.value >= 3


def _signaled(device: Device) -> None:
    with device.timeline() as timeline:
        timeline.signal(2)
        timeline.wait(2)
        timeline.wait(1, timeout=0)
        assert timeline.value == 2 and extmem.wait_any([(timeline, 9), (timeline, 1)]) == 1
        extmem.wait_all([(timeline, 1), (timeline, 2)], timeout=1)


def _awaited(device: Device) -> None:
    async def wait(timeline: Timeline) -> None:
        waiting = asyncio.create_task(timeline.wait_async(2, timeout=30))
        try:
            await asyncio.sleep(0)
            timeline.signal(2)
            await waiting
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        cancelled = asyncio.create_task(timeline.wait_async(3))
        await asyncio.sleep(0)
        cancelled.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled

    with device.timeline() as timeline:
        asyncio.run(wait(timeline))


def _fenced(device: Device) -> None:
    with device.fence(signaled=True) as fence:
        fence.wait(1)
        fence.reset()
        assert not fence.signaled


def _submitted(device: Device) -> None:
    with device.timeline() as timeline, device.create_semaphore(vk.SemaphoreCreateInfo()) as binary:
        with device.fence() as fence:
            values = vk.TimelineSemaphoreSubmitInfo([0], [1, 0])
            waits = vk.TimelineSemaphoreSubmitInfo([1, 0], [2])
            first = vk.SubmitInfo([timeline], [_ALL], (), [timeline, binary], values)
            second = vk.SubmitInfo([timeline, binary], [_ALL, _ALL], (), [timeline], waits)
            device.queue_submit([first, second], fence)
            fence.wait(10)
            timeline.wait(2, timeout=10)


def _ordered(device: Device) -> None:
    with device.allocate(64) as memory, device.timeline() as timeline, device.fence() as fence:
        timeline.signal(1)
        with device.commands(wait=(timeline, 1), signal=(timeline, 2), fence=fence) as commands:
            buffer = memory.buffer()
            commands.acquire(buffer)
            commands.fill_buffer(buffer, 7)
            commands.release(buffer)
        timeline.wait(2, timeout=10)
        fence.wait(10)


def pickled(thing: Any) -> None:
    """Send a semaphore or fence to this process, and close both ends."""
    with thing:
        if not thing.record.descriptor.handle_types:
            return  # this driver does not share it
        data = pickle.dumps(thing)
        try:
            with pickle.loads(data) as arrived:  # raises the error for which it was not received
                assert arrived.name == thing.name
        except (extmem.ExtmemError, OSError):
            if not FDS:  # the sender itself keeps what was not claimed, because it can still be claimed
                with contextlib.suppress(extmem.InvalidHandleError):
                    pickle.loads(data).close()
            raise


OF_FDS = {"open an fd", "import a timeline's fd", "import an fd for a while", "import a fence's fd"}
"""Windows has no fds."""
OPERATIONS: dict[str, Callable[[SyncWorld, Device], object]] = {
    "create a timeline": lambda w, d: d.timeline(5).close(),
    "create a named timeline": lambda w, d: d.timeline(name=f"{w.name} other").close(),
    "create a semaphore": lambda w, d: d.create_semaphore(semaphore_info(d)).close(),
    "create a fence": lambda w, d: d.create_fence(fence_info(d)).close(),
    "signal and wait": lambda w, d: _signaled(d),
    "wait in a coroutine": lambda w, d: _awaited(d),
    "wait for a fence": lambda w, d: _fenced(d),
    "submit": lambda w, d: _submitted(d),
    "commands": lambda w, d: _ordered(d),
    "export": _exported,
    "open by name": lambda w, d: _opened(w, d, w.name),
    "open a handle": lambda w, d: _opened(w, d, w.handle),
    "open an fd": _opened_fd,
    "import a handle": _imported_handle,
    "import a timeline's fd": _imported_fd,
    "import an fd for a while": _imported_temporarily,
    "import a fence's fd": _imported_fence,
    "pickle a timeline": lambda w, d: pickled(d.timeline(1)),
    "pickle a semaphore": lambda w, d: pickled(d.create_semaphore(semaphore_info(d))),
    "pickle a fence": lambda w, d: pickled(d.create_fence(fence_info(d))),
}
