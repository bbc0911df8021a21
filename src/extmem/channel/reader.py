"""`ChannelReader`: the side of a reader: it takes frames, holds their slots, and waits for new ones.

How this works. `ring.take` decides which frame is next, and locks its slot. The frame releases the lock (`keeper`). The
reader refers to the frame that it gave last, so a frame can be lost without a release only after `Frame.hold`; a weak
reference tells of that. `ReadSource` is what the reader sees of the ring in one epoch. If the writer has replaced
the slots, the reader opens the new ones at its next read; frames of the old ones keep theirs.

The reader's own timeline tells the writer what it holds (`sharing.reader_page`), and wakes a writer that waits.
"""

from __future__ import annotations

from itertools import starmap
from threading import get_ident
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from extmem.channel import info, waiting
from extmem.channel.frame import Frame
from extmem.channel.keeper import FrameKeeper
from extmem.channel.ring import first_cursor, take
from extmem.channel.source import ReadSource, gpu_parts
from extmem.channel.turns import ENDED, NEXT, THREAD, await_turn, in_turn
from extmem.errors import FramesLostError, NameNotFoundError, WriterGoneError
from extmem.handles.process_id import current_process
from extmem.owning import late_imports
from extmem.sharing import reader_page, timeline_page
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from extmem.api.device import Device
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage
    from extmem.channel.gpu_order import EpochOrder
    from extmem.channel.gpu_reading import ReaderOrder
    from extmem.channel.info import ChannelInfo
    from extmem.channel.slots import Slot

__all__ = ["ChannelReader", "Start"]

Start = Literal["newest", "next", "oldest"]
_HELD, _CURSOR, _LOST = reader_page.HELD, reader_page.CURSOR, reader_page.LOST
_WAITING, _EPOCH, _CLOSED = Words.WAITING, Words.EPOCH, Words.CLOSED
_SEQUENCE = timeline_page.SEQUENCE // 4


class ChannelReader(FrameKeeper):
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
        self._values = self._page.contents.cast("Q")
        """The words of the timeline's page: the first one is the number of the last frame."""
        self._page_words = self._page.contents.cast("I")
        self._table, self._entries, self._times, self._sizes = page.table, page.layout.entries, page.times, page.sizes
        self._words, self._words64, self._call = page.words, page.words64, page.locks.call
        self._gpu: ReaderOrder | None = None
        self._orders: list[EpochOrder] = []
        self._frame_class: type[Frame] = Frame
        if source.order is not None:
            self._gpu, self._frame_class = gpu_parts(self, None)
        self._current: Frame | None = None
        self._held: dict[int, Slot] = {}
        self._kept = {}
        self._places: dict[int, int] = {}
        self._free = list(range(1, reader_page.HELD_LIMIT))
        self._lingering = {}
        self._pending = {}
        self._waits: waiting.Waits = {}
        self._lost = 0
        self._awaited = 1
        mode = reader_page.Mode(every | reliable << 1)
        # The page is complete before the place is taken, and the cursor is looked up again after that: a writer that
        # looked for readers before may have overwritten frames since, and overwrites no newer one without another look.
        reader_page.pack(self._own_page.contents, mode, first_cursor(start, self._page.value, page.numbers), max_held)
        page.locks.try_shared(page.place_range(place))
        self._state[_CURSOR] = self._cursor = first_cursor(start, self._page.value, page.numbers)

    # Reading.

    def poll(self) -> Frame | None:
        """Return the next frame; None if there is none now. Never waits.

        Errors: FramesLostError of a strict reader; HandleStateError if `max_held` frames are kept.
        """
        return self._take()

    def read(self, timeout: float | None = None) -> Frame:
        """Return the next frame, and wait for it. Ctrl-C, and `close` in another thread, end the wait.

        timeout: seconds; 0 to look once, None for no limit.
        Errors: as `poll`; WaitTimeoutError (a TimeoutError), which names the writer and the age of its last frame;
        WriterGoneError if the writer has ended and there is no newer frame, unless `reconnect` is true.
        """
        if self._closed:
            self._check()
        deadline = None if timeout is None else waiting.deadline_after(timeout)
        words, waits = self._page_words, self._waits
        while True:
            expected = words[_SEQUENCE]  # before the look: a frame that comes after it changes the number
            frame = self._take()
            if frame is not None:
                return frame
            if self._page.marked or self._words[_CLOSED]:
                gone = self._gone()
                if gone is not None:
                    return self._last_one(gone)
            mark = object()
            try:
                waits[mark] = get_ident()
                in_time = self._closed or (self._gpu or self._page).sleep(expected, deadline)
            finally:
                waits.pop(mark, None)
            if not in_time:
                raise waiting.timeout_error(self, float(timeout or 0), self._awaited)
            if words[_SEQUENCE] == expected:
                self._look_for_writer()

    async def read_async(self, timeout: float | None = None) -> Frame:
        """`read` for coroutines: others run meanwhile. If it is cancelled, nothing of it remains."""
        with late_imports():
            from extmem.channel.async_waits import sleep_async

        if self._closed:
            self._check()
        page = self._page
        deadline = None if timeout is None else waiting.deadline_after(timeout)
        while True:
            expected = page.sequence_number
            frame = self._take()
            if frame is not None:
                return frame
            if page.marked or self._control.words[Words.CLOSED]:
                gone = self._gone()
                if gone is not None:
                    return self._last_one(gone)
            left = waiting.SLICE if deadline is None else min(waiting.SLICE, (deadline - monotonic_ns()) / 1e9)
            if left <= 0:
                raise waiting.timeout_error(self, float(timeout or 0), self._awaited)
            if self._gpu is None:
                await sleep_async(self, expected, left, self._waits)
            else:
                await self._gpu.sleep_async(expected, left)
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
        """How many frames this reader has not seen since it was opened: the sum of `Frame.skipped`."""
        return self._lost

    @property
    def every(self) -> bool:
        """Whether it reads each frame in order; else the newest one."""
        return self._every

    @property
    def reliable(self) -> bool:
        """Whether the writer does not overwrite frames before it has read them."""
        return self._reliable and not self._words[Words.REFUSES]

    @property
    def cursor(self) -> int:
        """The number of the last frame that it has read."""
        return self._cursor

    @property
    def held(self) -> int:
        """How many frames it holds now, the one of the loop included."""
        self._settle()
        current = self._current
        return (
            (current is not None and not current.released) + len(self._kept) + len(self._lingering) + len(self._pending)
        )

    @property
    def info(self) -> ChannelInfo:
        """See `Channel.info`."""
        self._check()
        return info.of(self._control, self._page, self._place, gpu=self._source.order)

    def options(self) -> dict[str, Any]:
        """Return the arguments of `open_channel` that can be pickled (for the library itself)."""
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
        self._set_closed()
        if self._ended:
            return
        waiting.end_waits(self._page, self._waits)
        self._close()

    @in_turn
    def _close(self) -> None:
        if self._ended:
            return
        for frame in (self._current, *[kept() for kept, _, _ in list(self._kept.values())]):
            if frame is not None:
                frame.release()
        self._current = None
        self._settle()
        if self._gpu is not None:
            self._gpu.close()
            self._leave_order(self._source.order)
        self._control.locks.unlock(self._control.place_range(self._place))
        self._source.close()
        self._own.close()
        self._frames.close()
        self._control.close()
        self._ended = True

    def __repr__(self) -> str:
        if self._closed:
            return f"<ChannelReader {self._name!r}: closed>"
        kind = "every frame" if self._every else "newest"
        return f"<ChannelReader {self._name!r}: {kind}, frame {self._cursor} of {self._page.value} read>"

    # Parts of reading.

    def _take(self) -> Frame | None:
        """Release the frame before, and return the next one; None if there is none now. The path of each frame."""
        if self._pid != current_process.pid:
            self._check()
        turns, turn = self._turns, {THREAD: get_ident()}
        try:
            last = turns.last
            if ENDED not in last or last.setdefault(NEXT, turn) is not turn:
                await_turn(last, turn)
            turns.last = turn
            current = self._current
            if current is not None:
                if not current._live:
                    if current._unlock is not None:
                        self.release(current)  # an exception has ended that before
                    self._current = None
                elif current._kept:
                    self.keep(current)
                elif current._memory is None and not current._exporters and self._gpu is None:
                    # As `Frame.release`, of a frame without arrays.
                    current._live = False
                    unlock = current._unlock
                    if unlock is not None:
                        next(unlock, None)
                    current._unlock = self._current = None
                    if self._words[_WAITING]:
                        self._wake_writer()
                else:
                    current.release()
                    self._current = None
            if self._gpu is not None:
                self._gpu.settle()
            if self._kept or self._places:
                self._settle()
                if len(self._kept) >= self._max_held:
                    self._refuse_more()
            source, cursor = self._source, self._cursor
            if source.taking >= 0:
                source.reconcile(self._held)
            count = self._values[0]
            if count <= cursor:
                self._state[_HELD] = 0
                self._awaited = cursor + 1
                return None
            if not self._every or count == cursor + 1:
                # The usual case of `take`: the newest frame is next, and nobody overwrites it.
                slot, slots = self._table[count % self._entries], source.slots
                there = slots[slot] if slot < len(slots) else None
                if there is not None:
                    source.taking = slot
                    try:
                        self._call(*there.locking)
                    except BlockingIOError:
                        pass
                    else:
                        if source.numbers[slot] == count and self._words64[_EPOCH] == source.epoch:
                            return self._made(source, count, there)
                        source.unlock(slot)
            return self._search(source, cursor)
        finally:
            turn[ENDED] = True

    def _search(self, source: ReadSource, cursor: int) -> Frame | None:
        """Return the next frame in any case. The caller has the turn."""
        while True:
            number, slot = take(source, cursor, self._every)
            if slot >= 0:
                return self._made(source, number, cast("Slot", source.slots[slot]))  # it was locked
            if number != cursor:
                self._awaited = number
                return None
            moved = self._move()
            if moved is None:
                self._awaited = cursor + 1
                return None
            source = moved

    def _made(self, source: ReadSource, number: int, there: Slot) -> Frame:
        """Return the frame in a slot that was locked."""
        state, slot = self._state, there.index
        skipped = number - self._cursor - 1
        if skipped:
            skipped = self._skip(source, number, slot, skipped)
        meta = self._control.meta(slot) if self._sizes[slot] else b""
        unlock = starmap(self._call, there.unlocking_once)
        frame = self._frame_class(self, there, number, skipped, self._times[slot], meta, unlock)
        state[_HELD + 1] = monotonic_ns()
        state[_HELD] = state[_CURSOR] = number
        # No handler runs between these: the frame releases the slot from here on, and before, the next read does.
        self._current = frame
        source.taking = -1
        self._cursor = number
        return frame

    def _skip(self, source: ReadSource, number: int, slot: int, skipped: int) -> int:
        """Count frames that are gone. Return how many the frame tells of. Errors: FramesLostError."""
        self._lost += skipped
        self._state[_LOST] = self._lost
        if self._strict:
            source.unlock(slot)
            first, self._cursor = self._cursor + 1, number - 1
            raise FramesLostError(
                f"{skipped} frames of {self._name!r}, from {first} on, were overwritten before this reader read them, "
                "or ended with slots that the writer has replaced: the reader is too slow for "
                f"{self._control.words[Words.SLOTS]} slots. Read faster, give the channel more "
                "slots, open it with reliable=True, or without strict=True to have them counted alone",
                first=first,
                count=skipped,
            )
        return skipped

    def _move(self) -> ReadSource | None:
        """Open the slots that have replaced those of this reader; None if their writer has ended meanwhile."""
        before = self._source
        try:
            self._source = source = ReadSource.opened(self._control, self._page, self._device)
        except NameNotFoundError:
            return None
        before.close(self._held)
        if source.order is not None:
            self._gpu, self._frame_class = gpu_parts(self, self._gpu)
        self._leave_order(before.order)
        return source

    # The writer's end.

    def _gone(self) -> WriterGoneError | None:
        return None if self._reconnect else waiting.gone_error(self, self._awaited)

    def _last_one(self, gone: WriterGoneError) -> Frame:
        """Return the frame that the writer has published just before its end. Raise the error if there is none."""
        frame = self._take()
        if frame is None:
            if self._gpu is not None:
                self._gpu.before_end()
            raise gone
        return frame

    def _look_for_writer(self) -> None:
        """After a long silence: raise WriterGoneError if the writer has ended, and nobody could tell."""
        if not self._reconnect:
            waiting.check_writer(self, self._awaited)
