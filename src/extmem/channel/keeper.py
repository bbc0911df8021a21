"""`FrameKeeper`: the part of a reader that keeps and releases frames, and leaves slots to arrays that are alive."""

from __future__ import annotations

import contextlib
import warnings
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from weakref import ref

from extmem.channel.base import Channel
from extmem.channel.holds import Holds, end_with
from extmem.channel.slots import close_memory
from extmem.errors import HandleStateError
from extmem.sharing import reader_page
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from extmem.api.device import DeviceMemory
    from extmem.channel.frame import Frame
    from extmem.channel.gpu_order import EpochOrder
    from extmem.channel.gpu_reading import ReaderOrder
    from extmem.channel.slots import Slot
    from extmem.channel.source import ReadSource

__all__ = ["FrameKeeper"]

_HELD, _WAITING = reader_page.HELD, Words.WAITING


class FrameKeeper(Channel):
    """See the module. `ChannelReader` sets the attributes."""

    _args: dict[int, tuple[Any, ...]]
    """How each frame that is held is released, by its number (`Holds.args`)."""
    _current: Frame | None
    """The frame that it gave last."""
    _free: list[int]
    """The places of kept frames in the reader's page. Place 0 is that of the frame that it gave last."""
    _gpu: ReaderOrder | None
    """What lanes of a GPU still read; None for slots of the host."""
    _held: dict[int, Slot]
    """The slots of frames that are kept, by their numbers."""
    _holds: Holds
    _kept: dict[int, tuple[ref[Frame], int]]
    """The frames that are kept beyond the next read, and their places in the reader's page."""
    _lingering: int
    """How many frames were released, and have arrays that are alive."""
    _max_held: int
    _orders: list[EpochOrder]
    """Those of earlier epochs, of which frames are held."""
    _own_page: Any
    """The page of the reader's timeline."""
    _source: ReadSource
    _state: memoryview
    """The words of that page."""

    def _settle(self) -> None:
        """Release the frames that were kept, and lost without a release."""
        if self._kept:
            for number, (kept, _) in list(self._kept.items()):
                if kept() is None:
                    self._end(number)

    def _refuse_more(self) -> None:
        numbers = sorted(self._kept)
        raise HandleStateError(
            f"this reader of {self._name!r} keeps {len(numbers)} frames ({', '.join(map(str, numbers[:8]))}), and "
            f"max_held is {self._max_held}; release one (frame.release(), the end of its with block), or open the "
            f"channel with max_held={self._max_held + 1}"
        )

    # Releasing. Called by frames, in any thread.

    def keep(self, frame: Frame) -> None:
        """Note that a frame is kept beyond the next read (for the library itself)."""
        number, state = frame.number, self._state
        if number in self._kept:
            return
        self._held[number] = frame.ring_slot
        index = self._free.pop()
        self._kept[number] = (ref(frame), index)
        at = _HELD + 2 * index
        state[at + 1] = monotonic_ns()
        state[at] = number
        if state[_HELD] == number:
            state[_HELD] = 0
        if self._current is frame:
            self._current = None

    def release(self, number: int, memory: DeviceMemory | None) -> None:
        """Release a frame, or leave it to its arrays that are alive (for the library itself)."""
        if memory is not None:
            views = memory.live_views()
            if views:
                self._linger(number, memory, views)
                return
            close_memory(memory)
        self._end(number)

    def _end(self, number: int) -> None:
        gpu = self._gpu
        if gpu is not None and number in gpu.used:
            self._leave_to_lanes(gpu, number)
            return
        self._holds.release(number)
        state = self._state
        if state[_HELD] == number:
            state[_HELD] = 0
        if self._held:
            self._forget(number)
        self._tell_writer()

    def _tell_writer(self) -> None:
        """Wake the writer if it waits for slots."""
        if self._control.words[_WAITING] and not self._closed:
            page = self._own_page
            page.raise_to(page.value + 1)

    # What a GPU still reads.

    @property
    def gpu(self) -> ReaderOrder:
        """What lanes of a GPU still read (for the library itself)."""
        if self._gpu is None:
            raise HandleStateError(f"the slots of {self._name!r} are memory of the host; use its frames as arrays")
        return self._gpu

    def _leave_to_lanes(self, gpu: ReaderOrder, number: int) -> None:
        """Leave a frame that was released to the lanes that still read it."""
        used, state = gpu.used.get(number), self._state
        if used is None:
            return
        if gpu.closed:  # the last array of a frame has ended after the reader
            for lane in used.lanes:
                lane.finish()
            gpu.used.pop(number, None)
            self._end(number)
            return
        self._held[number] = used.slot
        _, place = self._kept.pop(number, (None, 0))
        if not place:
            with contextlib.suppress(IndexError):  # more than the page has room for are not listed
                place = self._free.pop()
                state[_HELD + 2 * place + 1] = monotonic_ns()
                state[_HELD + 2 * place] = number
        if state[_HELD] == number:
            state[_HELD] = 0
        gpu.leave_to(used, number, place)

    def _leave_order(self, order: EpochOrder | None) -> None:
        """Close what ordered the frames of earlier epochs, once none of them is held. order: of the last one."""
        if order is not None and order not in self._orders:
            self._orders.append(order)
        for one in list(self._orders):
            if self._closed or not any(slot.order is one for slot in list(self._held.values())):
                self._orders.remove(one)
                one.close()

    def end_pending(self, number: int, place: int) -> None:
        """Release a frame that no lane reads any more (for the library itself)."""
        if place:
            self._state[_HELD + 2 * place] = 0
            self._free.append(place)
        self._holds.release(number)
        slot = self._held.pop(number, None)
        if slot is not None and slot.epoch != self._source.epoch:
            slot.close()
        self._tell_writer()

    def keep_stuck(self) -> Any:
        """Return what keeps the slots locked until the process ends (for the library itself)."""
        return self._control.locks.hold

    def _forget(self, number: int) -> None:
        """Forget a frame that was kept."""
        _, index = self._kept.pop(number, (None, 0))
        if index:
            self._state[_HELD + 2 * index] = 0
            self._free.append(index)
        slot = self._held.pop(number, None)
        if slot is not None and slot.epoch != self._source.epoch:
            slot.close()

    def _linger(self, number: int, memory: DeviceMemory, views: list[Any]) -> None:
        """Keep the slot until the arrays of a frame that was released are gone."""
        self._lingering += 1
        if self._lingering > self._max_held:
            warnings.warn(
                f"{self._lingering} released frames of {self._name!r} have arrays that are alive, and keep their "
                "slots; delete the arrays (or copy what you need) before the next read, or open the channel with a "
                f"greater max_held than {self._max_held}",
                ResourceWarning,
                stacklevel=5,
            )
        locks = self._control.locks
        keep = [locks.hold]  # the description stays open, also when the channel is closed
        arguments = self._args.pop(number, None)

        def over() -> None:
            self._lingering -= 1
            if arguments is not None:
                self._args[number] = arguments
            self._end(number)
            keep.clear()
            if self._closed:
                locks.owner.try_to_end()

        end_with(views, over)
        del views
        close_memory(memory)
