"""`FrameKeeper`: the part of a reader that keeps and releases frames, and leaves slots to arrays that are alive.

How this works. Each frame has an iterator whose only step releases the lock of its slot. Whoever advances it takes the
step and makes the call in one call of C code, so no thread releases a lock twice, which another frame may have by then,
and no signal handler runs between the two. Meanwhile the description to which the lock belongs is kept open.
"""

from __future__ import annotations

import warnings
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
    from extmem.channel.slots import Slot
    from extmem.channel.source import ReadSource

__all__ = ["FrameKeeper"]

_HELD, _WAITING = reader_page.HELD, Words.WAITING


class FrameKeeper(Channel):
    """See the module. `ChannelReader` sets the attributes."""

    _current: Frame | None
    """The frame that it gave last, unless `Frame.hold` keeps it."""
    _free: list[int]
    """The places of kept frames in the reader's page. Place 0 is that of the frame that it gave last."""
    _held: dict[int, Slot]
    """The slots of frames that are kept, by their numbers."""
    _kept: dict[int, tuple[ref[Frame], Iterator[Any]]]
    """The frames that are kept beyond the next read, and what releases their locks."""
    _places: dict[int, int]
    """The places of frames in the reader's page, by their numbers."""
    _lingering: dict[int, list[Any]]
    """For each frame that was released and has arrays that are alive: what is kept for them, empty when they are gone.
    """
    _max_held: int
    _own_page: Any
    """The page of the reader's timeline."""
    _source: ReadSource
    _state: memoryview
    """The words of that page."""
    _words: memoryview
    """The words of the control page."""

    def _settle(self) -> None:
        """Release the frames that were kept, and lost without a release; forget those whose arrays are gone."""
        for number, (kept, unlock) in list(self._kept.items()):
            if kept() is None:
                self._end(number, unlock)
        for number, keep in list(self._lingering.items()):
            if not keep:
                del self._lingering[number]
                self._end(number, iter(()))

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
        number = frame.number
        if number in self._kept:
            return
        self._held[number] = frame.ring_slot
        self._kept[number] = (ref(frame), frame._unlock)
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
        memory = frame._memory
        if memory is not None or frame._exporters:
            views = [one for one in frame._exporters or () if one() is not None]
            if memory is not None:
                views += memory.live_views()
                close_memory(memory)
            if views:
                self._linger(frame, views)
                return
        self._end(frame.number, frame._unlock)

    def _end(self, number: int, unlock: Iterator[Any]) -> None:
        keep = self._control.locks.hold
        if keep is not None:  # else the description is closed, and its locks have ended
            next(unlock, None)
        del keep
        if self._state[_HELD] == number:
            self._state[_HELD] = 0
        if self._places:
            self._forget(number)
        if self._words[_WAITING]:
            self._wake_writer()

    def _wake_writer(self) -> None:
        """Wake the writer, which waits for a slot."""
        page = self._own_page
        if not self._closed:
            page.raise_to(page.value + 1)

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

    def _linger(self, frame: Frame, views: list[ref[Any]]) -> None:
        """Keep the slot until the arrays of a frame that was released are gone."""
        number, locks = frame.number, self._control.locks
        self._give_place(number)
        self._kept.pop(number, None)
        keep = self._lingering[number] = [locks.hold]  # the description stays open, also when the channel is closed
        end_with(views, frame._unlock, keep, locks.end_if_closed)
        lingering = sum(1 for one in self._lingering.values() if one)
        if lingering > self._max_held:
            warnings.warn(
                f"{lingering} released frames of {self._name!r} have arrays that are alive, and keep their "
                "slots; delete the arrays (or copy what you need) before the next read, or open the channel with a "
                f"greater max_held than {self._max_held}",
                ResourceWarning,
                stacklevel=5,
            )
