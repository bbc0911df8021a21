"""`ChannelReader`: the side of a reader: it takes frames, holds their slots, and waits for new ones.

How this works. `ring.take` decides which frame is next, and locks its slot. The lock is a `Hold`, which ends with the
frame. `ReadSource` is what the reader sees of the ring in one epoch. If the writer has replaced the slots, the reader
opens the new ones at its next read; frames of the old ones keep theirs.

The reader's own timeline tells the writer what it holds (`sharing.reader_page`), and wakes a writer that waits.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from extmem.channel import info, waiting
from extmem.channel.base import Channel
from extmem.channel.frame import Frame
from extmem.channel.holds import Hold, end_with
from extmem.channel.ring import first_cursor, take
from extmem.channel.slots import close_memory
from extmem.channel.source import ReadSource
from extmem.errors import FramesLostError, HandleStateError, NameNotFoundError, WriterGoneError
from extmem.owning import Lock, late_imports
from extmem.sharing import reader_page
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from extmem.api.device import Device, DeviceMemory
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage
    from extmem.channel.info import ChannelInfo
    from extmem.channel.slots import Slot

__all__ = ["ChannelReader", "Start"]

Start = Literal["newest", "next", "oldest"]
_HELD, _CURSOR, _LOST = reader_page.HELD, reader_page.CURSOR, reader_page.LOST
_WAITING = Words.WAITING


class ChannelReader(Channel):
    """The side of a reader: an iterator over frames. Made by `extmem.open_channel`.

    `for frame in channel` waits for frames. It ends when the writer has closed the channel, and nothing newer will
    come; it raises `WriterGoneError` if the writer was killed. `async for` does the same. Each turn of a loop, `read`
    and `poll` release the frame before, unless it was kept by `Frame.hold` or a `with` block.
    """

    def __init__(
        self,
        name: str,
        page: ControlPage,
        frames: Timeline,
        own: Timeline,
        place: int,
        source: ReadSource,
        *,
        every: bool,
        reliable: bool,
        start: Start,
        max_held: int,
        strict: bool,
        reconnect: bool,
        device: Device | None,
    ) -> None:
        """own: the reader's timeline, in this place. All that is passed is owned from now on."""
        super().__init__(name, page, frames)
        self._own = own
        with own.use() as record:
            self._own_page: Any = record.page
        self._state = self._own_page.contents.cast("Q")
        """The words of the reader's page."""
        self._place = place
        self._source = source
        self._every = every
        self._reliable = reliable
        self._start = start
        self._max_held = max_held
        self._strict = strict
        self._reconnect = reconnect
        self._device = device
        self._lock = Lock()
        self._current: Frame | None = None
        self._holds: dict[int, Hold] = {}
        """What it holds, by the index in its page."""
        self._free = list(reversed(range(reader_page.HELD_LIMIT)))
        self._lingering = 0
        self._started = False
        self._lost = 0
        self._awaited = 1
        mode = reader_page.Mode.EVERY * every | reader_page.Mode.RELIABLE * reliable
        self._cursor = first_cursor(start, self._page.value, page.numbers)
        reader_page.pack(self._own_page.contents, mode, self._cursor, max_held)
        page.locks.try_shared(page.place_range(place))

    # Reading.

    def poll(self) -> Frame | None:
        """Return the next frame; None if there is none now. Never waits.

        Errors: FramesLostError of a strict reader; HandleStateError if `max_held` frames are kept.
        """
        self._check()
        with self._lock:
            return self._take()

    def read(self, timeout: float | None = None) -> Frame:
        """Return the next frame, and wait for it. Ctrl-C, and `close` in another thread, end the wait.

        timeout: seconds; 0 to look once, None for no limit.
        Errors: as `poll`; WaitTimeoutError (a TimeoutError), which names the writer and the age of its last frame;
        WriterGoneError if the writer has ended and there is no newer frame, unless `reconnect` is true.
        """
        page = self._page
        deadline = None if timeout is None else waiting.deadline_after(timeout)
        while True:
            self._check()
            expected = page.sequence_number  # before the look: a frame that comes after it changes the number
            with self._lock:
                frame = self._take()
            if frame is not None:
                return frame
            if page.marked or self._control.words[Words.CLOSED]:
                gone = self._gone()
                if gone is not None:
                    return self._last_one(gone)
            if not page.sleep(expected, deadline):
                raise waiting.timeout_error(self, float(timeout or 0), self._awaited)
            if page.sequence_number == expected:
                self._look_for_writer()

    async def read_async(self, timeout: float | None = None) -> Frame:
        """`read` for coroutines: others run meanwhile. If it is cancelled, nothing of it remains."""
        with late_imports():
            from extmem.devices.host.sync_async import sleep_async

        page = self._page
        deadline = None if timeout is None else waiting.deadline_after(timeout)
        while True:
            self._check()
            expected = page.sequence_number
            with self._lock:
                frame = self._take()
            if frame is not None:
                return frame
            if page.marked or self._control.words[Words.CLOSED]:
                gone = self._gone()
                if gone is not None:
                    return self._last_one(gone)
            left = waiting.SLICE if deadline is None else min(waiting.SLICE, (deadline - time.monotonic_ns()) / 1e9)
            if left <= 0:
                raise waiting.timeout_error(self, float(timeout or 0), self._awaited)
            await sleep_async(page, expected, left)
            if page.sequence_number == expected:
                self._look_for_writer()

    def __iter__(self) -> Self:
        self._check()
        return self

    def __next__(self) -> Frame:
        try:
            return self.read()
        except WriterGoneError as error:
            if not error.closed:
                raise
        raise StopIteration

    def __aiter__(self) -> Self:
        self._check()
        return self

    async def __anext__(self) -> Frame:
        try:
            return await self.read_async()
        except WriterGoneError as error:
            if not error.closed:
                raise
        raise StopAsyncIteration

    # Facts.

    @property
    def lost(self) -> int:
        """How many frames this reader has not seen since its first one: the sum of `Frame.skipped`."""
        return self._lost

    @property
    def every(self) -> bool:
        """Whether it reads each frame in order; else the newest one."""
        return self._every

    @property
    def reliable(self) -> bool:
        """Whether the writer does not overwrite frames before it has read them."""
        return self._reliable

    @property
    def cursor(self) -> int:
        """The number of the last frame that it has read."""
        return self._cursor

    @property
    def held(self) -> int:
        """How many frames it holds now, the one of the loop included."""
        with self._lock:
            self._settle()
            return len(self._holds)

    @property
    def info(self) -> ChannelInfo:
        """See `Channel.info`."""
        self._check()
        return info.of(self._control, self._page, self._place)

    def options(self) -> dict[str, Any]:
        """Return the arguments of `open_channel` that it was opened with, as far as they can be pickled (for the
        library itself).
        """
        return {
            "every": self._every,
            "reliable": self._reliable,
            "start": self._start,
            "max_held": self._max_held,
            "strict": self._strict,
            "reconnect": self._reconnect,
        }

    def close(self) -> None:
        """Release the frames and the channel. Safe to call twice.

        Arrays that are alive keep their slots until they are gone. A wait in another thread ends by HandleStateError.
        """
        if self._closed:
            return
        self._closed = True
        self._page.nudge()
        with self._lock:
            current, self._current = self._current, None
            if current is not None:
                current.release()
            for hold in list(self._holds.values()):
                frame = hold.watch() if hold.watch is not None else None
                if frame is not None:
                    frame.release()
            self._control.locks.unlock(self._control.place_range(self._place))
            self._source.close()
            self._own.close()
            self._frames.close()
            self._control.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"frame {self._cursor} of {self._page.value} read"
        return f"<ChannelReader {self._name!r}: {'every' if self._every else 'newest'}, {state}>"

    # Parts of reading. The caller has the lock.

    def _take(self) -> Frame | None:
        current = self._current
        if current is not None:
            self._current = None
            if not current._kept:
                current.release()
        if self._holds:
            self._settle()
            if len(self._holds) >= self._max_held:
                self._refuse_more()
        source = self._source
        if source.taking >= 0:
            source.reconcile(self._holds)
        cursor = self._cursor
        while True:
            number, slot = take(source, cursor, self._every)
            if slot >= 0:
                return self._made(source, number, slot)
            if number != cursor:
                self._awaited = number
                return None
            moved = self._move()
            if moved is None:
                self._awaited = cursor + 1
                return None
            source = moved

    def _made(self, source: ReadSource, number: int, slot: int) -> Frame | None:
        """Return the frame in a slot that was locked."""
        control, state = self._control, self._state
        skipped = number - self._cursor - 1
        if skipped:
            if not self._started:
                skipped = 0
            else:
                self._lost += skipped
                state[_LOST] = self._lost
                if self._strict:
                    source.unlock(slot)
                    first, self._cursor = self._cursor + 1, number - 1
                    raise FramesLostError(
                        f"{skipped} frames of {self._name!r}, from {first} on, were overwritten before this reader read "
                        f"them: it is too slow for {control.words[Words.SLOTS]} slots. Read faster, give the channel "
                        "more slots, open it with reliable=True, or without strict=True to have them counted alone",
                        first=first,
                        count=skipped,
                    )
        self._started = True
        index = self._free.pop()
        there = cast("Slot", source.slots[slot])  # it was locked
        hold = Hold(control.locks, number, there, index)
        meta = control.meta(slot) if control.sizes[slot] else b""
        frame = Frame(self, there, hold, number, skipped, control.times[slot], meta)
        hold.end_with(frame)
        self._holds[index] = hold
        at = _HELD + 2 * index
        state[at + 1] = time.monotonic_ns()
        state[at] = number
        state[_CURSOR] = self._cursor = number
        source.taking = -1
        self._current = frame
        return frame

    def _settle(self) -> None:
        """Forget the holds that have ended with their frames."""
        for index, hold in list(self._holds.items()):
            if hold.ended:
                self._forget(index)

    def _forget(self, index: int) -> None:
        hold = self._holds.pop(index, None)
        if hold is not None:
            self._state[_HELD + 2 * index] = 0
            self._free.append(index)
            if hold.slot.epoch != self._source.epoch:
                hold.slot.close()

    def _refuse_more(self) -> None:
        numbers = sorted(hold.number for hold in self._holds.values())
        raise HandleStateError(
            f"this reader of {self._name!r} keeps {len(numbers)} frames ({', '.join(map(str, numbers[:8]))}), and "
            f"max_held is {self._max_held}; release one (frame.release(), the end of its with block), or open the "
            f"channel with max_held={self._max_held + 1}"
        )

    def _move(self) -> ReadSource | None:
        """Open the slots that have replaced those of this reader; None if their writer has ended meanwhile."""
        before = self._source
        try:
            self._source = source = ReadSource.opened(self._control, self._page, self._device)
        except NameNotFoundError:
            return None
        before.close(self._holds)
        return source

    # Releasing. Called by frames, in any thread.

    def release(self, hold: Hold, memory: DeviceMemory | None) -> None:
        """End the hold of a frame, or leave it to the arrays of the frame that are alive (for the library itself)."""
        if memory is not None:
            views = memory.live_views()
            close_memory(memory)
            if views:
                self._linger(hold, views)
                return
        self._end(hold)

    def _end(self, hold: Hold) -> None:
        hold.end()
        self._forget(hold.index)
        if not self._closed and self._control.words[_WAITING]:
            page = self._own_page
            page.raise_to(page.value + 1)

    def _linger(self, hold: Hold, views: list[Any]) -> None:
        """Keep the slot until the arrays of a frame that was released are gone."""
        self._lingering += 1
        if self._lingering > self._max_held:
            warnings.warn(
                f"{self._lingering} released frames of {self._name!r} have arrays that are alive, and keep their slots; "
                "delete the arrays (or copy what you need) before the next read, or open the channel with a greater "
                f"max_held than {self._max_held}",
                ResourceWarning,
                stacklevel=5,
            )
        hold.watch = None  # the frame does not end it any more
        self._holds.pop(hold.index, None)

        def over() -> None:
            self._lingering -= 1
            self._holds[hold.index] = hold
            self._end(hold)

        end_with(views, over)

    # The writer's end.

    def _gone(self) -> WriterGoneError | None:
        return None if self._reconnect else waiting.gone_error(self, self._awaited)

    def _last_one(self, gone: WriterGoneError) -> Frame:
        """Return the frame that the writer has published just before its end. Raise the error if there is none."""
        with self._lock:
            frame = self._take()
        if frame is None:
            raise gone
        return frame

    def _look_for_writer(self) -> None:
        """After a long silence: raise WriterGoneError if the writer has ended, and nobody could tell."""
        if not self._reconnect:
            with contextlib.suppress(OSError):
                waiting.check_writer(self, self._awaited)
