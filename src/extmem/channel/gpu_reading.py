"""`ReaderOrder`: what lanes of a reader still read of frames that the program has released.

How this works. At the end of `frame.on(lane)` the lane signals a timeline of its own, and the frame is released for the
program. Its slot stays locked until the timeline says that the lane is done: `pending` has the value for each number.
The reader looks at it in each call (`settle`), and a reader that sleeps wakes when a lane is done (`pages`). An array
that was given out with a stream (`frame.torch(stream=…)`) does the same at the release of its frame.

The entry of `pending` is made before the signal. If an exception ends the call in between, the next signal of the same
lane, which has a greater value, ends the hold.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from extmem.channel.gpu_lanes import (
    Lane,
    Lanes,
    Mark,
    cuda_device_of,
    current_stream,
    method_for,
    prepare_for_streams,
    use_of,
)
from extmem.devices.host.sync_system import sleep_on_pages
from extmem.errors import GpuFrameLostError, WaitTimeoutError
from extmem.owning import late_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.channel.gpu_order import EpochOrder
    from extmem.channel.slots import Slot

__all__ = ["Pending", "ReaderOrder", "Used"]

_CLOSE_S: Final = 5.0
"""Seconds for which `close` waits for the GPU."""
_MARKED_NS: Final = 1_000_000_000
"""The longest wait of `before_end`."""
_stuck: list[Any] = []
"""What a GPU that does not finish still uses: it is kept until the process ends."""


class _Reader(Protocol):
    """What it needs of its reader."""

    @property
    def name(self) -> str: ...

    @property
    def frames_page(self) -> Any: ...

    def end_pending(self, number: int, place: int) -> None: ...

    def keep_stuck(self) -> Any: ...


class Pending(NamedTuple):
    """A frame that the program has released, and that a lane still reads."""

    marks: list[Mark]
    """Where the lanes are done with it."""
    order: EpochOrder
    slot: Slot
    place: int
    """Where the reader's page lists it; 0 for nowhere."""
    told: list[bool]
    """Not empty once the program was told that the frame is lost."""

    @property
    def done(self) -> bool:
        """Whether all lanes are done with it."""
        for mark in self.marks:
            if not mark.done:
                return False
        return True


class Used(NamedTuple):
    """A frame that the program has, and of which lanes have got arrays."""

    slot: Slot
    lanes: list[Lane]


class ReaderOrder:
    """See the module. Used by the thread that has the reader's turn, or by calls of one frame."""

    __slots__ = ("_lost", "_reader", "closed", "lanes", "pending", "used")

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self.lanes = Lanes()
        self.pending: dict[int, Pending] = {}
        """By the numbers of the frames."""
        self.used: dict[int, Used] = {}
        """By the numbers of the frames."""
        self.closed = False
        """Whether it was closed."""
        self._lost: list[tuple[int, EpochOrder]] = []

    def enter(self, slot: Slot, number: int, work: object) -> tuple[Lane, Any]:
        """Let a lane wait for a frame. Return the lane, and the array or buffer.

        Errors: GpuFrameLostError; as `Lanes.of`.
        """
        use, order = use_of(slot), slot.order
        lane = self.lanes.of(work, slot.memory, self._reader.name)
        self._wait(lane, order, number)
        self.note(slot, number, lane)
        return lane, lane.enter(use, method_for(work))

    @staticmethod
    def _wait(lane: Lane, order: EpochOrder, number: int) -> None:
        if order.written is None:
            return
        order.note_wait(number)
        if lane.is_queue and order.by_host:
            order.wait(number)  # so that the end of the writer is this error, and not that of the submission
        lane.wait(order.written, number)

    def leave(self, slot: Slot, lane: Lane) -> None:
        """End the work of a lane on a frame."""
        lane.leave(use_of(slot))

    def use(self, slot: Slot, number: int, method: str, stream: object) -> None:
        """Let a stream wait for a frame whose array was made, and note that it reads the frame until the release.

        stream: None for the current one of the framework. Without streams, the host waits.
        """
        if cuda_device_of(slot.memory) is None:
            slot.order.wait(number)
            return
        work = current_stream(method, slot.memory, sys.modules.__getitem__) if stream is None else stream
        lane = self.lanes.of(work, slot.memory, self._reader.name)
        self._wait(lane, slot.order, number)
        prepare_for_streams(slot.memory)
        self.note(slot, number, lane)

    def note(self, slot: Slot, number: int, lane: Lane) -> None:
        """Note that a lane reads a frame: at its release, the frame is left to the lane."""
        lanes = self.used.setdefault(number, Used(slot, [])).lanes
        if lane not in lanes:
            lanes.append(lane)

    def leave_to(self, used: Used, number: int, place: int) -> None:
        """Leave a frame to the lanes that still read it."""
        lanes = used.lanes
        marks = [lane.mark() for lane in lanes]
        self.pending[number] = Pending(marks, used.slot.order, used.slot, place, [])
        del self.used[number]  # after that: a release that an exception ends is made again, or settled
        for index, lane in enumerate(lanes):
            lane.give(marks[index])

    def settle(self) -> None:
        """Release the slots of which all lanes are done. Errors: GpuFrameLostError for frames that were lost."""
        if self.pending:
            for number, one in list(self.pending.items()):
                if one.order.is_lost(number) and not one.told:
                    one.told.append(True)
                    self._lost.append((number, one.order))
                if one.done:
                    self._reader.end_pending(number, one.place)
                    self.pending.pop(number, None)
        if self._lost:
            lost, self._lost = self._lost, []
            numbers = sorted(number for number, _ in lost)
            raise lost[0][1].lost_error(numbers[0], numbers[-1] - numbers[0] + 1)

    def before_end(self) -> None:
        """Raise GpuFrameLostError if lanes read frames that are lost, before the end of the writer is told.

        It waits a moment for the object manager to say what was complete.
        """
        deadline = monotonic_ns() + _MARKED_NS
        for one in list(self.pending.values()):
            written = one.order.written
            while written is not None:
                expected = written.page.sequence_number
                if written.page.marked or not written.page.sleep(expected, deadline):
                    break
        self.settle()

    def pages(self) -> list[tuple[Any, int]]:
        """Return the pages to sleep on, with their sequences: a change tells that a lane is done with something."""
        found: dict[int, tuple[Any, int]] = {}
        for one in list(self.pending.values()):
            for mark in one.marks:
                released = mark.lane.released
                if released is not None:
                    page = released.page
                    found[id(page)] = (page, page.sequence_number)
        return list(found.values())

    def sleep(self, expected: int, deadline: int | None) -> bool:
        """Sleep until a frame comes, or lanes are done with one; not long. Return False after the deadline.

        expected: the sequence of the page that tells of frames. deadline: of `time.monotonic_ns`; None for none.
        """
        pages = [(self._reader.frames_page, expected), *self.pages()]
        return self._any_done or sleep_on_pages(pages, deadline)

    async def sleep_async(self, expected: int, seconds: float) -> None:
        """`sleep` for coroutines."""
        pages = [(self._reader.frames_page, expected), *self.pages()]
        if not self._any_done:
            await sleep_async_on(pages, seconds)

    @property
    def _any_done(self) -> bool:
        return any(one.done for one in list(self.pending.values()))

    def close(self) -> None:
        """Wait, for some seconds at most, until the lanes are done, and release the slots. Safe to call twice."""
        deadline = monotonic_ns() + int(_CLOSE_S * 1e9)
        with contextlib.suppress(WaitTimeoutError):
            for one in list(self.pending.values()):
                for mark in one.marks:
                    if mark.lane.released is not None and mark.value >= 0:
                        left = max(0.0, (deadline - monotonic_ns()) / 1e9)
                        mark.lane.released.timeline.wait(mark.value, left)
        with contextlib.suppress(GpuFrameLostError):  # nothing is read any more
            self.settle()
        self.closed = True
        if self.pending:
            self._keep_stuck()
            return
        self.lanes.close()

    def _keep_stuck(self) -> None:
        warnings.warn(
            f"the GPU still reads frames {sorted(self.pending)} of {self._reader.name!r}, {_CLOSE_S:g} s after the "
            "reader was closed; their slots stay held until this process ends",
            ResourceWarning,
            stacklevel=4,
        )
        for one in self.pending.values():
            for mark in one.marks:
                mark.lane.keep(one.slot.memory)
        _stuck.append((self, self._reader.keep_stuck()))
        self.pending.clear()


async def sleep_async_on(pages: Sequence[tuple[Any, int]], seconds: float) -> None:
    """Sleep in a coroutine until one of several pages changes. If it is cancelled, nothing of it remains."""
    with late_imports():
        import asyncio

        from extmem.devices.host.sync_async import sleep_async

    if len(pages) == 1:
        await sleep_async(*pages[0], seconds)
        return
    sleeps = [asyncio.ensure_future(sleep_async(page, expected, seconds)) for page, expected in pages]
    try:
        await asyncio.wait(sleeps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in sleeps:
            one.cancel()
        await asyncio.gather(*sleeps, return_exceptions=True)
