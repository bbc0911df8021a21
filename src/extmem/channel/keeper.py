"""`FrameKeeper`: the part of a reader that keeps and releases frames, and leaves slots to arrays that are alive.

How this works. Each frame has an iterator whose only step releases the lock of its slot. Whoever advances it takes the
step and makes the call in one call of C code, so no thread releases a lock twice, which another frame may have by then,
and no signal handler runs between the two. Meanwhile the description to which the lock belongs is kept open.
"""

from __future__ import annotations

import warnings
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from weakref import ref

from extmem.channel.base import Channel
from extmem.channel.lingering import end_with
from extmem.channel.slots import close_memory
from extmem.errors import HandleStateError
from extmem.sharing import reader_page
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from extmem.channel.frame import Frame
    from extmem.channel.gpu_order import EpochOrder
    from extmem.channel.gpu_reading import ReaderOrder
    from extmem.channel.slots import Slot
    from extmem.channel.source import ReadSource
    from extmem.devices.host.range_lock_system import RangeLocks

__all__ = ["FrameKeeper"]

Views = list[ref[Any]]
"""References to what the views of a frame keep alive."""
_HELD, _WAITING = reader_page.HELD, Words.WAITING


class FrameKeeper(Channel):
    """See the module. `ChannelReader` sets the attributes."""

    _remedy = "open it again by extmem.open_channel"
    _current: Frame | None
    """The frame that it gave last, unless `Frame.hold` keeps it."""
    _free: list[int]
    """The places of kept frames in the reader's page. Place 0 is that of the frame that it gave last."""
    _gpu: ReaderOrder | None
    """What lanes of a GPU still read; None for slots of the host."""
    _held: dict[int, Slot]
    """The slots of frames that are kept, by their numbers."""
    _kept: dict[int, tuple[ref[Frame], Iterator[Any], Views]]
    """The frames that are kept beyond the next read, what releases their locks, and their views."""
    _places: dict[int, int]
    """The places of frames in the reader's page, by their numbers."""
    _lingering: dict[int, tuple[Iterator[Any], Views]]
    """The frames that were released, and have arrays that are alive."""
    _max_held: int
    _pending: dict[int, Iterator[Any]]
    """What releases the locks of frames that were released, and that lanes of a GPU still read."""
    _orders: list[EpochOrder]
    """Those of earlier epochs, of which frames are held."""
    _own_page: Any
    """The page of the reader's timeline."""
    _source: ReadSource
    _state: memoryview
    """The words of that page."""
    _words: memoryview
    """The words of the control page."""

    def _settle(self) -> None:
        """Release the frames that were kept, and lost without a release; forget those whose arrays are gone."""
        for number, (kept, unlock, views) in list(self._kept.items()):
            if kept() is None:
                self._end_or_linger(number, unlock, views)
        for number, (unlock, views) in list(self._lingering.items()):
            if not _alive(views):
                del self._lingering[number]
                self._end(number, unlock)
        if len(self._places) > len(self._kept) + len(self._lingering) + len(self._pending):
            for number in self._places.keys() - self._kept.keys() - self._lingering.keys() - self._pending.keys():
                self._forget(number)  # an exception has ended that before

    def _refuse_more(self) -> None:
        numbers = sorted(self._kept)
        more = f", or open the channel with max_held={self._max_held + 1}"
        raise HandleStateError(
            f"this reader of {self._name!r} keeps {len(numbers)} frames ({', '.join(map(str, numbers[:8]))}), and "
            f"max_held is {self._max_held}; release one (frame.release(), the end of its with block)"
            f"{more if self._max_held < reader_page.HELD_LIMIT else ', or copy it'}"
        )

    def _end_frames(self) -> None:
        """See `Channel`."""
        for frame in (self._current, *[kept() for kept, _, _ in list(self._kept.values())]):
            if frame is not None:
                frame._live = False
                frame._unlock = None
        self._current = None
        for frames in (self._held, self._kept, self._places, self._lingering, self._pending):
            frames.clear()

    # Releasing. Called by frames, in any thread.

    def keep(self, frame: Frame) -> None:
        """Note that a frame is kept beyond the next read (for the library itself)."""
        number = frame.number
        if number in self._kept:
            return
        self._held[number] = frame.ring_slot
        self._kept[number] = (ref(frame), frame._unlock or iter(()), frame._exporters)
        self._give_place(number)
        if self._current is frame:
            self._current = None
        if frame.released:  # by another thread, which may not have seen it here
            self._forget(number)

    def _give_place(self, number: int) -> None:
        """List a frame in the reader's page, beside the one that it gave last. If the list is full, it is not."""
        state = self._state
        if number not in self._places and self._free:
            self._places[number] = index = self._free.pop()
            state[_HELD + 2 * index + 1] = monotonic_ns()
            state[_HELD + 2 * index] = number
            if state[_HELD] == number:
                state[_HELD] = 0

    def release(self, frame: Frame) -> None:
        """Release a frame, or leave it to its arrays that are alive (for the library itself)."""
        unlock = frame._unlock
        if self._gpu is None and frame._memory is None and not (frame._exporters or self._kept or self._places):
            # The usual case of what follows.
            keep = self._control.locks.hold
            if keep is not None and unlock is not None:
                next(unlock, None)
            del keep
            frame._unlock = None
            if self._state[_HELD] == frame.number:
                self._state[_HELD] = 0
            if self._words[_WAITING]:
                self._wake_writer()
            return
        if frame._memory is not None:
            close_memory(frame._memory)
        if unlock is not None:
            self._end_or_linger(frame.number, unlock, frame._exporters)
            frame._unlock = None

    def _end_or_linger(self, number: int, unlock: Iterator[Any], views: Views) -> None:
        """Release the lock of a frame now, or with the last of its arrays."""
        if views and _alive(views):
            self._linger(number, unlock, views)
        else:
            self._end(number, unlock)

    def _end(self, number: int, unlock: Iterator[Any]) -> None:
        gpu = self._gpu
        if gpu is not None and (number in gpu.used or number in gpu.pending):
            self._leave_to_lanes(gpu, number, unlock)
            return
        keep = self._control.locks.hold
        if keep is not None:  # else the description is closed, and its locks have ended
            next(unlock, None)
        del keep
        if self._state[_HELD] == number:
            self._state[_HELD] = 0
        if self._kept or self._places:
            self._forget(number)
        if self._words[_WAITING]:
            self._wake_writer()

    def tell_release(self) -> None:
        """Wake the writer if it waits for a slot (for the library itself)."""
        if not self.inherited and self._words[_WAITING]:
            self._wake_writer()

    def _wake_writer(self) -> None:
        """Wake the writer, which waits for a slot."""
        page = self._own_page
        if not self._closed:
            page.raise_to(page.value + 1)

    # What a GPU still reads.

    @property
    def gpu(self) -> ReaderOrder:
        """What lanes of a GPU still read (for the library itself)."""
        if self._gpu is None:
            raise HandleStateError(f"the slots of {self._name!r} are memory of the host; use its frames as arrays")
        return self._gpu

    def _leave_to_lanes(self, gpu: ReaderOrder, number: int, unlock: Iterator[Any]) -> None:
        """Leave a frame that was released to the lanes that still read it."""
        used = gpu.used.get(number)
        if used is None:
            return
        if gpu.closed:  # the last array of a frame has ended after the reader
            for lane in used.lanes:
                lane.finish()
            gpu.used.pop(number, None)
            self._end(number, unlock)
            return
        self._held[number] = used.slot
        self._pending[number] = unlock
        self._give_place(number)
        self._kept.pop(number, None)
        if self._state[_HELD] == number:
            self._state[_HELD] = 0
        gpu.leave_to(used, number, self._places.get(number, 0))

    def _leave_order(self, order: EpochOrder | None) -> None:
        """Close what ordered the frames of earlier epochs, once none of them is held. order: of the last one."""
        if order is not None and order not in self._orders:
            self._orders.append(order)
        for one in list(self._orders):
            if self._closed or not any(slot.order is one for slot in list(self._held.values())):
                self._orders.remove(one)
                one.close()

    def end_pending(self, number: int, place: int) -> None:
        """Release a frame that no lane reads any more (for the library itself). place: that was given to `leave_to`."""
        keep, unlock = self._control.locks.hold, self._pending.get(number)
        if keep is not None and unlock is not None:
            next(unlock, None)
        del keep
        self._pending.pop(number, None)
        self._forget(number)
        if self._words[_WAITING]:
            self._wake_writer()

    def keep_stuck(self) -> Any:
        """Return what keeps the slots locked until the process ends (for the library itself)."""
        return self._control.locks.hold

    def _forget(self, number: int) -> None:
        """Forget a frame that was kept, or had arrays."""
        self._kept.pop(number, None)
        index = self._places.pop(number, 0)
        if index:
            self._state[_HELD + 2 * index] = 0
            self._free.append(index)
        slot = self._held.pop(number, None)
        if slot is not None and slot.epoch != self._source.epoch:
            slot.close()

    def _linger(self, number: int, unlock: Iterator[Any], views: Views) -> None:
        """Keep the slot until the arrays of a frame that was released are gone."""
        self._lingering[number] = (unlock, views)
        self._give_place(number)
        self._kept.pop(number, None)
        locks = self._control.locks
        keep = [locks.hold]  # the description stays open, also when the channel is closed
        if self._gpu is None:
            end_with(list(views), unlock, keep, partial(_after_arrays, ref(self), locks))
        else:
            end_with(list(views), iter(()), keep, partial(self._end_lingering, number, unlock))
        lingering = sum(1 for _, others in self._lingering.values() if _alive(others))
        if lingering > self._max_held:
            more = f", or open the channel with a greater max_held than {self._max_held}"
            warnings.warn(
                f"{lingering} released frames of {self._name!r} have arrays that are alive, and keep their "
                "slots; delete the arrays (or copy what you need) before the next read"
                f"{more if self._max_held < reader_page.HELD_LIMIT else ''}",
                ResourceWarning,
                stacklevel=6,
            )

    def _end_lingering(self, number: int, unlock: Iterator[Any]) -> None:
        """Release a frame whose arrays are gone, or leave it to the lanes that still read it."""
        if self._lingering.pop(number, None) is not None:
            self._end(number, unlock)
        self._control.locks.end_if_closed()


def _after_arrays(reader: ref[FrameKeeper], locks: RangeLocks) -> None:
    """Tell that the last array of a frame that was released is gone. The array does not keep the reader alive."""
    locks.end_if_closed()
    found = reader()
    if found is not None and not found.closed:
        found.tell_release()


def _alive(views: Views) -> bool:
    return any(one() is not None for one in list(views))
