"""`WriterOrder`: the order of the frames of a writer whose slots are memory of a GPU.

How this works. The timeline `written` has the value n once frame n is complete, and each frame before it. It is
signaled when a frame is published, by the lane that got the work for it: after all that work, and without a wait of the
host. So a frame is published when it is submitted. If the frame before was written on another lane and is not complete,
the lane waits for it first. If the host alone has written a frame, the host signals, or the lane of the frame before
does.

Commands of the program signal the value with their own submission if no other frame is being written: it is known then
which number the frame will have.

The value is signaled before the number is published. If an exception ends the publication in between, the number is
used for another frame, which is waited for on the host before it is published.

`alive` is a timeline that nobody signals. The object manager marks it when this process ends: readers sleep on it to
learn that, without a wake for each frame.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from extmem.channel import names
from extmem.channel.gpu_frames import WritableGpuFrame
from extmem.channel.gpu_lanes import (
    GpuTimeline,
    Lane,
    Lanes,
    cuda_device_of,
    current_stream,
    method_for,
    prepare_for_streams,
    use_of,
)
from extmem.core import shared_devices
from extmem.errors import WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from extmem.api.device import Device, DeviceMemory
    from extmem.api.timeline import Timeline
    from extmem.channel.gpu_lanes import SlotUse
    from extmem.channel.slots import Slot

__all__ = ["WriterOrder"]

_CLOSE_S: Final = 5.0
"""Seconds for which `close` waits for the GPU."""


class WriterOrder:
    """See the module. Used in one thread at a time, but for `enter` and `leave`, which concern one frame."""

    __slots__ = ("_alive", "_is_alone", "_last", "_name", "_security", "_tried", "_where", "lanes", "written")

    def __init__(
        self, name: str, identity: bytes, epoch: int, device: Device, count: int, security: str | None
    ) -> None:
        """name: of the channel. device: of the slots. count: the number of the last frame. Errors: NameTakenError."""
        self._name = name
        self._is_alone: Callable[[], bool] = bool  # until the writer is there
        self._where = (identity, epoch)
        self._security = security
        self.lanes = Lanes()
        self._last: Lane | None = None
        """The lane that has signaled the last value; None for the host."""
        self._tried = count
        """The last number that was, perhaps, signaled."""
        host: Any = shared_devices.device_for(None)
        self._alive: Timeline = host.timeline(name=names.alive(identity, epoch), security=security)
        try:
            with self._alive.use() as record:
                record.page.announce_signal()
            self.written = GpuTimeline(device.timeline(count, name=names.written(identity, epoch), security=security))
        except BaseException:
            self._alive.close()
            raise
        self.written.page.announce_signal()

    @property
    def device_name(self) -> str:
        """The GPU that the slots are on."""
        name: str = self.written.record.device.name
        return name

    def used_by(self, is_alone: Callable[[], bool]) -> type[WritableGpuFrame]:
        """Set the writer, and return the class of its frames.

        is_alone: whether just one frame is being written, so that it is the next that is published.
        """
        self._is_alone = is_alone
        return WritableGpuFrame

    def following(self, device: Device, count: int) -> WriterOrder:
        """Return the order of the next epoch; this one is finished, and stays as it is. Errors: as the constructor."""
        identity, epoch = self._where
        made = WriterOrder(self._name, identity, epoch + 1, device, count, self._security)
        made.used_by(self._is_alone)
        return made

    @property
    def by_host(self) -> bool:
        """Whether the host orders the frames, since the driver exports no timelines."""
        record = self.written.record
        return record.page is not None and record.device.kind == "vulkan"

    def enter(self, slot: Slot, work: object) -> tuple[Lane, Any]:
        """Begin to write a frame on a lane. Return the lane, and the array or buffer. Errors: as `Lanes.of`."""
        use = slot.gpu or use_of(slot)
        lane = self.lanes.of(work, slot.memory, self._name)
        if use.lanes:
            self._settle(use)
        if use.last is not lane.base and use.number > self.written.page.value:
            lane.wait(self.written, use.number)  # the last frame in this slot is still being written
        use.lanes.append(lane)
        return lane, lane.enter(use, method_for(work))

    def leave(self, slot: Slot, lane: Lane, *, failed: bool) -> None:
        """End to write a frame on a lane. failed: whether an exception ended the block: its work is waited for."""
        use = use_of(slot)
        lane.leave(use)
        if failed:
            lane.finish()
            return
        if slot.index < 0:  # a frame that is dropped
            slot.gpu = None  # with the arrays over that memory
            return
        lane.signal_later(lambda: self._signal_early(use, lane.base))

    def _signal_early(self, use: SlotUse, lane: Lane) -> tuple[object, int] | None:
        """Return what the submission of a frame signals, if no other frame can be published before it."""
        number = self._tried + 1
        if self._is_alone() and (self._last is lane or self.written.page.value >= number - 1):
            self._tried, use.early = number, number
            self._last = lane
            return self.written.timeline, number
        return None

    def join(self, slot: Slot, method: str, stream: object) -> None:
        """Order a stream of a framework, whose array of the slot was given out: what it gets is part of the frame.

        stream: None for the current one of the framework.
        """
        if cuda_device_of(slot.memory) is None:
            self.before_host(slot)
            return
        work = current_stream(method, slot.memory, sys.modules.__getitem__) if stream is None else stream
        lane = self.lanes.of(work, slot.memory, self._name)
        if slot.index < 0:
            return
        use = use_of(slot)
        if lane in use.lanes:
            return
        if use.number > self.written.page.value and use.last is not lane.base:
            lane.wait(self.written, use.number)
        use.lanes.append(lane)
        prepare_for_streams(slot.memory)

    def before_host(self, slot: Slot) -> None:
        """Wait until the host can use the memory of a slot that it is about to write."""
        use = slot.gpu
        if use is None:
            return  # no lane has had it
        for lane in use.lanes:
            lane.check_given(self._name)
        self._settle(use)
        if use.number > self.written.page.value:
            self.written.timeline.wait(use.number)

    def publish(self, slot: Slot, number: int) -> None:
        """Let `written` reach a number when the frame in the slot is complete. The caller excludes other threads.

        Errors: HandleStateError for commands that are not submitted; DriverError. Nothing is published then.
        """
        use, written = slot.gpu or use_of(slot), self.written
        lane = None
        for lane in use.lanes:
            lane.check_given(self._name)
        if len(use.lanes) > 1:
            for other in use.lanes[:-1]:
                other.finish()
        if lane is None:
            prepare_for_streams(slot.memory)
        again, self._tried = number <= self._tried, number
        complete = written.page.value >= number - 1
        early, use.early = use.early, 0
        if early == number:
            pass  # the submission of the frame signals it
        elif again:
            self._publish_again(lane, number)
        elif lane is None and (complete or self._last is None):
            written.timeline.signal(number)
            self._last = None
        else:
            signaler = self._last if lane is None else lane.base
            if signaler is not None:
                if signaler is not self._last and not complete:
                    signaler.wait(written, number - 1)
                signaler.signal(written, number)
                self._last = signaler
        use.lanes.clear()
        use.last, use.number = None if lane is None else lane.base, number

    def _publish_again(self, lane: Lane | None, number: int) -> None:
        """Publish a number that an earlier attempt has perhaps signaled."""
        if lane is not None:
            lane.finish()
        if self._last is not None:
            self._last.finish()
        if self.written.timeline.value < number:
            self.written.timeline.signal(number)
        self._last = None

    @staticmethod
    def _settle(use: SlotUse) -> None:
        """Wait for the work of a frame that was given up, or lost, in this slot."""
        while use.lanes:
            use.lanes[-1].finish()
            use.lanes.pop()

    def finish(self, slots: list[Slot], scratch: DeviceMemory | None) -> None:
        """Wait, for some seconds at most, until the GPU is done with the slots, which are going to be closed.

        scratch: the memory of frames that were dropped. The lanes keep it as long as they need.
        """
        if scratch is not None:
            for lane in self.lanes.all():
                lane.keep(scratch)
        for slot in slots:
            if slot.gpu is not None:
                self._settle(slot.gpu)
        with contextlib.suppress(WaitTimeoutError):
            self.written.timeline.wait(self._tried, _CLOSE_S)
            return
        warnings.warn(
            f"the GPU has not finished the frames of {self._name!r} up to {self._tried} within {_CLOSE_S:g} s "
            f"({self.written.page.value} are complete); readers are told that the others are lost",
            ResourceWarning,
            stacklevel=4,
        )
        for slot in slots:
            if slot.gpu is not None and slot.gpu.last is not None:
                slot.gpu.last.keep(slot.memory)

    def close(self) -> None:
        """End it; `finish` comes first. Safe to call twice."""
        self.lanes.close()
        self.written.close()
        self._alive.close()
