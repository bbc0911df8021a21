"""`ChannelWriter`: the side of the writer: it fills slots, publishes them, and decides what a full ring means.

How this works. The writer alone writes to the control page. A frame is written into a slot whose lock it has alone, and
whose number is 0 meanwhile. Publishing stores the time, the metadata, the number, and the slot in the table, releases
the lock, and then raises the timeline, which wakes the readers in one call of the kernel. If the writer ends at any
point of this, the frame is complete and announced, or it is in no table: the next writer takes its number.

A writer that waits for a slot sets a word in the page, tries the locks once more, and sleeps on the timelines of the
readers. A reader looks at the word after it has released a lock: the kernel's lock orders the two, so one of them sees
the other.
"""

from __future__ import annotations

import time
from threading import get_ident
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

from extmem.arguments import whole_number
from extmem.channel import info, reclaiming, waiting
from extmem.channel.base import Channel
from extmem.channel.frame import WritableFrame
from extmem.channel.ring import EVERYTHING, WriteOrder
from extmem.channel.slots import Slot, close_memory
from extmem.channel.turns import ENDED, NEXT, THREAD, await_turn, in_turn
from extmem.errors import ChannelFullError, HandleStateError, OutOfMemoryError
from extmem.handles.process_id import current_process
from extmem.sharing import timeline_page
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from extmem.api.device import Device, DeviceMemory
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage
    from extmem.channel.format import SlotFormat
    from extmem.channel.gpu_writing import WriterOrder
    from extmem.channel.info import ChannelInfo
    from extmem.channel.reclaiming import Readers
    from extmem.channel.system import WriterLock

__all__ = ["ChannelWriter", "WhenFull"]

WhenFull = Literal["drop", "wait", "raise", "grow"]
_COUNT, _DROPPED, _WAITING = Words.COUNT, Words.DROPPED, Words.WAITING
_STATE = timeline_page.STATE // 4


class ChannelWriter(Channel):
    """The side of the writer. Made by `extmem.create_channel`. A channel has one at a time."""

    def __init__(
        self,
        name: str,
        page: ControlPage,
        frames: Timeline,
        lock: WriterLock,
        slots: list[Slot],
        *,
        form: SlotFormat,
        device: Device,
        gpu: WriterOrder | None,
        when_full: WhenFull,
        timeout: float | None,
        refuses: bool,
        max_slots: int,
        security: str | None,
    ) -> None:
        """lock: that this process has as the writer. gpu: of slots on a GPU. All is owned from now on."""
        super().__init__(name, page, frames)
        self._writer_lock = lock
        self._slots = slots
        self._format = form
        self._device = device
        self._gpu = gpu
        """What orders the frames of slots on a GPU; None for those of the host."""
        self._frame_class = WritableFrame if gpu is None else gpu.used_by(self._writes_one)
        self._when_full = when_full
        self._timeout = timeout
        self._max_slots = max_slots
        self._security = security
        self._numbers = page.numbers
        self._table = page.table
        self._entries = page.layout.entries
        self._words64, self._times, self._sizes = page.words64, page.times, page.sizes
        self._call, self._ring, self._bell = page.locks.call, self._page.ring, self._page.bell
        self._values = self._page.contents.cast("Q")
        """The words of the timeline's page: the first one is the number of the last frame."""
        self._page_words = self._page.contents.cast("I")
        for slot in slots:
            slot.prepare(page.locks, exclusive=True)
        self._taking = -1
        self._writing: dict[int, ref[WritableFrame]] = {}
        """The frames that are being written, by their slots."""
        self._scratch: DeviceMemory | None = None
        self._readers: Readers = reclaiming.Readers(page)
        self._reliable = page.reliable_range() if page.header.max_reliable and not refuses else None
        self._order = WriteOrder(page.numbers[: len(slots)].tolist(), self._page.value)
        for index, number in enumerate(self._order.numbers):
            if page.numbers[index] != number:
                page.numbers[index] = 0
        self._page.announce_signal()
        page.words[Words.REFUSES], page.words[Words.CLOSED] = refuses, 0

    # Writing.

    def write(self) -> WritableFrame:
        """Return a slot to fill: `with channel.write() as frame:`. The end of the block publishes it.

        Its contents are those of an older frame: write all of it. Use its arrays in the block alone: they stay
        writable, and what they write later changes a frame that readers have. Without a free slot, `when_full` decides:
        a frame that is `dropped`, a wait, an error, or one more slot. Several may be written at the same time.
        Errors: ChannelFullError, which names the readers that hold slots; ReaderTooSlowError, if reliable readers have
        not read their frames; OutOfMemoryError.
        """
        if self._pid != current_process.pid:
            self._check()
        turns, turn = self._turns, {THREAD: get_ident()}
        try:
            last = turns.last
            if ENDED not in last or last.setdefault(NEXT, turn) is not turn:
                await_turn(last, turn)
            turns.last = turn
            order = self._order
            ready = order.order
            if ready and self._taking < 0:
                # The usual case of `_claim`: the oldest frame is overwritten, and nobody holds it or waits for it.
                slot = ready[0]
                if order.numbers[slot] < order.unowed:
                    there = self._slots[slot]
                    self._taking = slot
                    try:
                        self._call(*there.locking)
                    except BlockingIOError:
                        self._taking = -1
                    else:
                        self._numbers[slot] = order.numbers[slot] = 0
                        frame = self._frame_class(self, there, there.memory)
                        del ready[0]
                        self._writing[slot] = ref(frame)
                        self._taking = -1
                        return frame
            slot = self._claim()
            if slot >= 0:
                return self._made(slot)
        finally:
            turn[ENDED] = True
        return self._full()

    def put(self, array: Any = None, /, *, meta: bytes = b"", **arrays: Any) -> int:
        """Copy an array into a slot, and publish it. Return its number; 0 if it was dropped.

        array: an array of NumPy, PyTorch, JAX, …, of the shape and element type of a frame, or its bytes; or a
        dictionary of the arrays of a frame with several. arrays: the same, by keywords.
        Errors: as `write`; TypeError and ValueError for other arrays, also if the frame would be dropped.
        """
        form = self._format
        contents = form.contents_of(self._name, array, arrays)
        with self.write() as frame:
            frame.meta = meta
            there = frame.ring_slot.format
            if there is not form and there != form:  # another thread has replaced the slots
                contents = there.contents_of(self._name, array, arrays)
            if not frame.dropped:
                there.fill(frame.memory, contents)
        return frame.number

    def reconfigure(self, shape: Any = None, dtype: Any = None, *, slots: int | None = None) -> None:
        """Replace the slots by others: a new epoch, under the same name. Frame numbers go on.

        shape, dtype: as for `extmem.create_channel`; None for those that there are. An array of several keeps its type
            if its name has one now, and none is given.
        slots: their number; None as now.
        Readers open the new slots at their next read. Frames that they hold stay valid; those that they have not read
        are counted as skipped. The memory of the old slots ends when nobody holds it any more.
        Errors: as `create_channel`; ValueError for more slots than `max_slots`; HandleStateError while a frame is
        being written. After an error nothing has changed.
        """
        self._check()
        form = self._format.changed(shape, dtype)
        count = len(self._slots) if slots is None else whole_number(slots, "slots")
        if not 1 <= count <= self._max_slots:
            limits = f"slots is {count}, and this channel has 1 to {self._max_slots}"
            raise ValueError(f"{limits}; create it with max_slots={max(1, count)}")
        self._reconfigure(form, count)

    @in_turn
    def _reconfigure(self, form: SlotFormat, count: int) -> None:
        self._check()
        if self._writing:
            self._settle()
        if len(self._order.order) != len(self._slots):
            raise HandleStateError(
                f"a frame of {self._name!r} is being written; publish it or give it up before reconfigure()"
            )
        self.replace_slots(form, count)

    def replace_slots(self, form: SlotFormat, count: int) -> None:
        """Begin an epoch with new slots; no frame is being written (for the library itself)."""
        made = reclaiming.make_slots(self._control, self._device, form, count, self._security)
        self._gpu = reclaiming.following(self._gpu, self._device, self._slots, self._scratch, made, self._order.count)
        before, scratch, order = self._slots, self._scratch, WriteOrder([0] * count, self._order.count)
        reclaiming.begin_epoch(self._control, form.encoded, count)
        self._order, self._slots, self._format, self._scratch = order, made, form, None
        if scratch is not None:
            close_memory(scratch)
        for slot in before:
            slot.close()

    def add_slots(self, count: int) -> None:
        """Add slots to those of the epoch, up to this number (for the library itself)."""
        while len(self._slots) < count:
            slot = reclaiming.more(self._control, self._device, self._format, len(self._slots), self._security)
            self._slots.append(slot)
            self._order.grow()
            self._control.words[Words.SLOTS] = len(self._slots)

    # Facts.

    @property
    def dropped(self) -> int:
        """How many frames were not published, because no slot was free."""
        self._check()
        return self._control.words64[_DROPPED]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a frame; of frames with several arrays, that of their bytes."""
        return self._format.shape

    @property
    def dtype(self) -> str:
        """The element type of a frame."""
        return self._format.dtype

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._slots)

    @property
    def info(self) -> ChannelInfo:
        """See `Channel.info`."""
        self._check()
        return info.of(self._control, self._page, gpu=self._gpu)

    def close(self) -> None:
        """End the channel: readers get what is published first. Arrays keep their slots. Safe to call twice."""
        self._set_closed()
        self._close()

    @in_turn
    def _close(self) -> None:
        if self._ended:
            return
        self._control.words[Words.CLOSED] = 1
        self._page.wake()
        if self._gpu is not None:
            self._gpu.finish(self._slots, self._scratch)
        self._frames.close()
        self._readers.close()
        for slot in self._slots:
            slot.close()
        if self._scratch is not None:
            close_memory(self._scratch)
        if self._gpu is not None:
            self._gpu.close()
        self._control.close()
        self._writer_lock.close()
        self._ended = True

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._order.count} frames published"
        return f"<ChannelWriter {self._name!r}: {self._format}, {len(self._slots)} slots, {state}>"

    def _end_frames(self) -> None:
        while self._writing:
            if (frame := self._writing.popitem()[1]()) is not None:
                frame._memory = None

    def _writes_one(self) -> bool:
        return len(self._writing) == 1 and len(self._order.order) == len(self._slots) - 1

    @property
    def gpu(self) -> WriterOrder:
        """What orders the frames of slots on a GPU (for the library itself)."""
        if self._gpu is None:
            raise HandleStateError(f"the slots of {self._name!r} are memory of the host")
        return self._gpu

    def _claim(self) -> int:
        """Lock a slot that may be overwritten, and return it; -1 if there is none. The caller has the turn."""
        order, locks, slots = self._order, self._control.locks, self._slots
        if self._taking >= 0:
            self._settle()
        read = EVERYTHING
        if self._reliable is not None and locks.has_foreign(self._reliable):
            read = self._readers.least_cursor()
        order.note_readers(read)
        for slot in order.candidates(read):
            self._taking = slot
            if locks.try_exclusive(slots[slot].range):
                self._numbers[slot] = 0
                return slot
        self._taking = -1
        if (self._writing or len(order.order) != len(slots)) and self._settle():
            return self._claim()
        return -1

    def _settle(self) -> bool:
        """Give up frames that were lost, and attempts that an exception ended. Return whether there were any."""
        found, taking, self._taking = False, self._taking, -1
        if taking in self._order.order:
            self._control.locks.unlock(self._slots[taking].range)
        open_now = {slot for slot, frame in list(self._writing.items()) if (one := frame()) and not one.released}
        for index, slot in enumerate(self._slots):
            if index not in open_now and (index in self._writing or index not in self._order.order):
                self._control.locks.unlock(slot.range)
                self._writing.pop(index, None)
                if index not in self._order.order:
                    self._order.give_back(index)
                found = True
        return found

    def _made(self, slot: int) -> WritableFrame:
        """Return the frame of a slot that was claimed. The caller has the turn."""
        there = self._slots[slot]
        frame = self._frame_class(self, there, there.memory)
        self._order.take(slot)
        self._writing[slot] = ref(frame)
        self._taking = -1
        return frame

    def publish(self, slot: Slot, meta: bytes) -> int:
        """Publish a slot that is filled. Return the number of the frame (for the library itself)."""
        if self._pid != current_process.pid:
            self._check()
        index, order = slot.index, self._order
        turns, turn = self._turns, {THREAD: get_ident()}
        try:
            last = turns.last
            if ENDED not in last or last.setdefault(NEXT, turn) is not turn:
                await_turn(last, turn)
            turns.last = turn
            if self._gpu is not None and index in self._writing:
                self._gpu.publish(slot, order.count + 1)
            if self._writing.pop(index, None) is None:  # first, so that nobody publishes it twice
                raise HandleStateError(f"this frame of {self._name!r} is published or given up; write the next one")
            number = order.count + 1
            order.order.append(index)
            self._times[index] = monotonic_ns()
            if meta or slot.has_meta:
                slot.has_meta = True
                self._control.set_meta(index, meta)
                slot.has_meta = bool(meta)
            self._numbers[index] = number
            self._table[number % self._entries] = index
            self._words64[_COUNT] = number
            self._call(*slot.unlocking)
            if self._page_words[_STATE]:
                self._page.announce_signal()
            # No handler runs between these stores: a number that was not published is that of the next frame.
            self._values[0] = number
            order.count = order.numbers[index] = number
            self._ring(self._bell)
        finally:
            turn[ENDED] = True
        return number

    @in_turn
    def give_up(self, slot: Slot) -> None:
        """Give up a slot that was being filled (for the library itself)."""
        if self._writing.pop(slot.index, None) is not None and not self._closed:
            self._control.locks.unlock(slot.range)
            self._order.give_back(slot.index)

    def _full(self) -> WritableFrame:
        policy = self._when_full
        if policy == "wait":
            return self._made_when_free()
        if policy == "raise":
            raise self._full_error()
        if policy == "grow":
            grown = self._grown()
            if grown is not None:
                return grown
        return self._drop()

    @in_turn
    def _drop(self) -> WritableFrame:
        memory = self._scratch
        if memory is None:
            try:
                memory = self._scratch = self._format.allocate(self._device, None, None)
            except OutOfMemoryError as error:
                full = reclaiming.full_error(self._control, self._order, None)
                full.add_note(f"There is no memory for a frame to drop, either: {error}")
                raise full from None
        self._control.words64[_DROPPED] += 1
        dropped = Slot(-1, 0, memory, self._format, self._slots[0].range)
        return self._frame_class(self, dropped, memory, True)

    @in_turn
    def _grown(self) -> WritableFrame | None:
        """Add a slot, and return a frame in it; None if there may be no more, or no memory is left."""
        if len(self._slots) >= self._max_slots:
            return None
        try:
            self.add_slots(len(self._slots) + 1)
        except OutOfMemoryError:
            return None
        claimed = self._claim()
        return None if claimed < 0 else self._made(claimed)

    def _made_when_free(self) -> WritableFrame:
        """Wait until a slot is free, and return a frame in it. Errors: ChannelFullError."""
        deadline = None if self._timeout is None else waiting.deadline_after(self._timeout)
        control, readers = self._control, self._readers
        began = time.monotonic_ns()
        try:
            while True:
                self._check()
                control.words[_WAITING] = 1
                expected, frame = self._made_if_free()
                if frame is not None:
                    return frame
                if deadline is not None and time.monotonic_ns() >= deadline:
                    raise self._full_error((time.monotonic_ns() - began) / 1e9)
                readers.sleep(expected, deadline)
        finally:
            if not self._closed:
                control.words[_WAITING] = 0

    @in_turn
    def _made_if_free(self) -> tuple[list[tuple[Any, int]], WritableFrame | None]:
        """Return the sequences of the readers' pages before the look, and a frame, if a slot is free now."""
        self._check()
        expected = self._readers.expected()
        slot = self._claim()
        return expected, self._made(slot) if slot >= 0 else None

    @in_turn
    def _full_error(self, waited: float | None = None) -> ChannelFullError:
        return reclaiming.full_error(self._control, self._order, waited)
