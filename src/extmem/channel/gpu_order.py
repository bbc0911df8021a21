"""`EpochOrder`: what a reader knows of the frames of a GPU in one epoch: which are complete, and which are lost.

How this works. The writer's GPU raises the timeline `written` (`gpu_writing`). The lanes of the reader wait for it, and
so does the host in `wait`. When the writer ends, the object manager marks the page of the timeline with the value that
was reached. What is above that value is lost: the work of a killed process ends at some point, or does not, and nobody
tells which.

A lane that waits for a frame that is lost would wait for ever. So a thread sleeps on the timeline `alive` from the
first such wait on. When that is marked, it raises `written` to the highest value that lanes of this reader wait for.
They go on, with bytes that are no frame; the reader is told at its next call.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from extmem.api.sync_functions import open_timeline
from extmem.channel import names
from extmem.channel.gpu_lanes import GpuTimeline
from extmem.errors import ExtmemError, GpuFrameLostError, NameNotFoundError, PeerGoneError
from extmem.handles import Access
from extmem.owning import join_thread

if TYPE_CHECKING:
    from extmem.api.device import Device
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage
    from extmem.core.device_state import DeviceState

__all__ = ["EpochOrder"]

_JOIN_S: Final = 1.0
_NEVER: Final = 1 << 64


class EpochOrder:
    """See the module. Ownership: it owns the timelines until `close`."""

    __slots__ = (
        "__weakref__",
        "_alive",
        "_awaited",
        "_closed",
        "_kind",
        "_name",
        "_pid",
        "_reached",
        "_thread",
        "_where",
        "device_name",
        "written",
    )

    def __init__(self, control: ControlPage, epoch: int, device: Device | None, opened_on: DeviceState) -> None:
        """device: that the reader opens the slots on. opened_on: the device that they are open on.

        Errors: as `open_timeline`.
        """
        self._name = control.name
        self._where = (control.identity, epoch)
        self._kind = opened_on.kind
        self.device_name = opened_on.name
        """The GPU that the slots are on."""
        self._awaited = 0
        """The highest value that lanes wait for."""
        self._reached = _NEVER
        """The value that was reached when the writer ended."""
        self._closed = False
        self._thread: threading.Thread | None = None
        self._alive: Timeline | None = None
        self._pid = 0
        self.written: GpuTimeline | None = None
        """None for slots that the host of the writer writes: they are complete when they are published."""
        with contextlib.suppress(NameNotFoundError):
            self._alive = open_timeline(names.alive(*self._where), access=Access.READ)
            try:
                opened = open_timeline(names.written(*self._where), device=device, access=Access.READ)
            except BaseException:
                self._alive.close()
                raise
            self.written = GpuTimeline(opened)

    @property
    def by_host(self) -> bool:
        """Whether the host orders the frames, since the queue cannot wait for `written`."""
        return self.written is not None and self.written.record.page is not None and self._kind == "vulkan"

    def check(self, number: int) -> None:
        """Raise GpuFrameLostError if a frame is lost."""
        if self.is_lost(number):
            raise self.lost_error(number, 1)

    def is_lost(self, number: int) -> bool:
        """Return whether a frame is lost: the writer ended before it was complete."""
        written = self.written
        if written is None or not (self._reached is not _NEVER or written.page.marked):
            return False
        if self._reached is _NEVER:
            facts = written.page.facts
            self._pid, self._reached = facts.pid, facts.reached
        return number > self._reached

    def lost_error(self, first: int, count: int) -> GpuFrameLostError:
        """Return the error to raise for frames that are lost."""
        which = f"frame {first}" if count == 1 else f"frames {first} to {first + count - 1}"
        return GpuFrameLostError(
            f"{which} of {self._name!r} will not be complete: the writer (process {self._pid}) ended, or its device "
            f"was lost, when its GPU had completed frame {self._reached}; what was computed from {which} is worthless. "
            "Start the writer again, and read the next frame",
            first=first,
            count=count,
        )

    def wait(self, number: int, timeout: float | None = None) -> None:
        """Wait on the host until a frame is complete. Errors: GpuFrameLostError; WaitTimeoutError."""
        written = self.written
        if written is None:
            return
        if written.page.value < number:
            try:
                written.timeline.wait(number, timeout)
            except PeerGoneError:
                self.check(number)
                raise
        self.check(number)

    def note_wait(self, number: int) -> None:
        """Note that a lane is going to wait for a frame. Errors: GpuFrameLostError."""
        if number > self._awaited:
            self._awaited = number  # first: who finds the writer gone after the check sees it
        if self._thread is None and self._alive is not None:
            self._watch()
        written = self.written
        if self._reached is not _NEVER or (written is not None and written.page.marked):
            self.check(number)

    def _watch(self) -> None:
        alive: Any = self._alive
        with alive.use() as record:
            page = record.page
        self._thread = thread = threading.Thread(
            target=_sleep_until_gone, args=(page, ref(self)), name="extmem-channel-writer", daemon=True
        )
        thread.start()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def repair(self) -> bool:
        """Let lanes go on that wait for frames that are lost. Return whether that was possible now."""
        written = self.written
        if self._closed or written is None:
            return True
        if not written.page.marked:
            return False  # the object manager marks it in a moment
        awaited = self._awaited
        if self.is_lost(awaited):
            with contextlib.suppress(ExtmemError):  # no right to signal, or somebody was faster
                with open_timeline(names.written(*self._where), access=Access.READ_WRITE) as timeline:
                    if timeline.value < awaited:
                        timeline.signal(awaited)
        return True

    def close(self) -> None:
        """Close the timelines. Safe to call twice."""
        self._closed = True
        alive, self._alive = self._alive, None
        thread, self._thread = self._thread, None
        if alive is not None:
            with alive.use() as record:
                record.page.nudge()
            if thread is not None and thread is not threading.current_thread():
                join_thread(thread, _JOIN_S)
            alive.close()
        if self.written is not None:
            self.written.close()


def _sleep_until_gone(page: Any, order: ref[EpochOrder]) -> None:
    """Sleep until the writer has ended, and repair the order then; or until the order is closed, or lost."""
    while True:
        expected = page.sequence_number
        found = order()
        if found is None or found.closed:
            return
        if page.marked:
            written = found.written
            if written is None or found.repair():
                return
            if page is not written.page:
                page = written.page  # the object manager marks it next
                continue
        del found
        page.sleep(expected)
