"""What a writer does about its readers: waits for them, names them in errors, and replaces the slots under them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from extmem.api.sync_functions import open_timeline
from extmem.channel import info, names
from extmem.channel.ring import EVERYTHING, WriteOrder
from extmem.channel.slots import make_slot
from extmem.core.naming import short_name
from extmem.devices.host.sync_system import sleep_on_pages
from extmem.errors import ChannelFullError, ExtmemError, ReaderTooSlowError
from extmem.handles import Access
from extmem.handles.process_id import current_process
from extmem.manager import manager
from extmem.sharing import reader_page
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from extmem.api.device import Device, DeviceMemory
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage
    from extmem.channel.format import SlotFormat
    from extmem.channel.gpu_writing import WriterOrder
    from extmem.channel.slots import Slot
    from extmem.objects import PayloadRow

__all__ = ["Readers", "begin_epoch", "following", "full_error", "make_slots", "more"]

_SLICE_NS: Final = 20_000_000
"""The longest sleep of a writer that waits. A reader that loses a frame, instead of releasing it, does not wake it."""
_NAP: Final = 0.001
"""Seconds of sleep if no reader can be slept on."""
_CURSOR: Final = reader_page.CURSOR


class Readers:
    """The timelines of the readers, as the writer has opened them. Use it in one thread at a time."""

    __slots__ = ("_control", "_open")

    def __init__(self, control: ControlPage) -> None:
        self._control = control
        self._open: dict[int, tuple[Timeline, Any, memoryview]] = {}

    def least_cursor(self) -> int:
        """Return the number up to which every reliable reader has read.

        0 if the page of one cannot be opened: then nothing is overwritten.
        """
        least = EVERYTHING
        most = self._control.header.max_reliable
        for place in self._control.readers():
            if place >= most:
                break
            found = self._of(place)
            if found is None:
                return 0
            if reader_page.is_reliable(found[1].contents):  # others take these places when no other is free
                least = min(least, found[2][_CURSOR])
        return least

    def expected(self) -> list[tuple[Any, int]]:
        """Return the pages of the readers that are there, and their sequences: read before the locks are tried."""
        pages = [found[1] for place in self._control.readers() if (found := self._of(place)) is not None]
        return [(page, page.sequence_number) for page in pages]

    def sleep(self, expected: list[tuple[Any, int]], deadline: int | None) -> None:
        """Sleep until a reader has released something, or has ended; not long."""
        until = time.monotonic_ns() + _SLICE_NS
        if deadline is not None:
            until = min(until, deadline)
        if expected:
            sleep_on_pages(expected, until)
        else:
            time.sleep(_NAP)

    def _of(self, place: int) -> tuple[Timeline, Any, memoryview] | None:
        """Return the timeline of the reader in a place, its page, and the words of that."""
        found = self._open.get(place)
        if found is not None:
            if not found[1].marked:
                return found
            del self._open[place]  # that reader has ended: another one may be in its place
            found[0].close()
        with contextlib.suppress(ExtmemError):
            timeline = open_timeline(names.reader(self._control.identity, place), access=Access.READ)
            with timeline.use() as record:
                page = record.page
            if not page.marked:
                found = self._open[place] = (timeline, page, page.contents.cast("Q"))
                return found
            timeline.close()
        return None

    def close(self) -> None:
        """Close the timelines. Safe to call twice."""
        while self._open:
            self._open.popitem()[1][0].close()


def full_error(control: ControlPage, order: WriteOrder, waited: float | None) -> ChannelFullError:
    """Return the error to raise if no slot is free. It names the readers. waited: seconds; None for not waiting."""
    name, rows = control.name, manager().snapshot()
    pids = info.publishers(control.identity, rows)
    found = [info.reader_info(control, place, order.count, pids) for place in control.readers()]
    readers = [one for one in found if one is not None]
    holders = [one for one in readers if one.held]
    slow = [one for one in readers if one.reliable and one.behind]
    held = [(one.pid, frame) for one in holders for frame in one.held if frame.slot is not None]
    facts = [
        f"process {pid or '?'} holds frame {frame.number} in slot {frame.slot} for {frame.seconds:.3f} s"
        for pid, frame in held
    ]
    unread = order.unread(min((one.cursor for one in slow), default=EVERYTHING))
    facts += [
        f"process {one.pid or '?'}, a reliable reader, has read up to frame {one.cursor} of {order.count}"
        for one in slow
    ]
    writing = len(order.numbers) - len(order.order)
    if writing:
        facts.append(f"{writing} of them are being written by this process")
    newest = {order.numbers.index(order.count)} if len(order.numbers) > 1 and order.count in order.numbers else set()
    known = {frame.slot for _, frame in held} | set(unread) | newest
    untold = sorted(set(order.order) - known)
    if untold and not slow:
        facts.append(
            f"{len(untold)} of them are locked without telling (slots {', '.join(map(str, untold))}), by arrays of a "
            f"reader that is closed, or by a faulty process: one of {_users(control, untold, rows)}"
        )
    begin = f"no slot of {name!r} is free" + (f" after {waited:.3f} s" if waited is not None else "")
    text = (
        f"{begin}: it has {len(order.numbers)}{f', and its newest frame ({order.count}) keeps one' * bool(newest)}; "
        f"{'; '.join(facts) or 'readers hold the others'}. Have readers release their frames sooner, create the "
        'channel with more slots (2 and those that readers hold), or with when_full="drop" or "grow"'
    )
    if unread and not holders:
        return ReaderTooSlowError(text, holders=slow)
    return ChannelFullError(text, holders=holders or slow or readers)


def _users(control: ControlPage, slots: list[int], rows: list[PayloadRow]) -> str:
    """Return the processes that have these slots, or the channel, open: one of them has the locks."""
    open_in = info.openers(control.name, rows)
    wanted = {names.slot(control.identity, control.epoch, slot) for slot in slots}
    for row in rows:
        if any(short_name(name) in wanted for name in row.names):
            open_in |= {holder.pid for holder in row.holders}
    others = sorted(open_in - {current_process.pid})
    return ", ".join([*(f"process {pid}" for pid in others), f"this process ({current_process.pid})"])


def make_slots(control: ControlPage, device: Device, form: SlotFormat, count: int, security: str | None) -> list[Slot]:
    """Return the slots of a new epoch, which nobody uses yet. After an error there are none."""
    epoch = control.epoch + 1
    made: list[Slot] = []
    try:
        for index in range(count):
            place = control.slot_range(epoch, index)
            slot = make_slot((control.identity, epoch), index, device, form, place, security)
            made.append(slot)
            slot.prepare(control.locks, exclusive=True)
    except BaseException:
        for slot in made:
            slot.close()
        raise
    return made


def more(control: ControlPage, device: Device, form: SlotFormat, index: int, security: str | None) -> Slot:
    """Return one more slot for this epoch, which readers do not see yet. index: its own. Errors: as `make_slots`."""
    place = control.slot_range(control.epoch, index)
    slot = make_slot((control.identity, control.epoch), index, device, form, place, security)
    control.numbers[index] = 0
    slot.prepare(control.locks, exclusive=True)
    return slot


def following(
    order: WriterOrder | None,
    device: Device,
    before: list[Slot],
    scratch: DeviceMemory | None,
    made: list[Slot],
    count: int,
) -> WriterOrder | None:
    """Return what orders the frames of new slots on a GPU, when the GPU is done with those before; None for the host.

    The new slots are closed after an error. scratch: the memory of frames that were dropped. count: the number of the
    last frame.
    """
    if order is None:
        return None
    try:
        order.finish(before, scratch)
        new = order.following(device, count)
    except BaseException:
        for slot in made:
            slot.close()
        raise
    order.close()
    return new


def begin_epoch(control: ControlPage, encoded: bytes, count: int) -> None:
    """Let readers move to the slots of the next epoch, which exist. encoded: the table of their arrays.

    The numbers of the old epoch are deleted first, and then where its frames were: a reader that comes between finds no
    frame, and afterwards none leads to a slot that the new epoch does not have.
    """
    for index in range(control.layout.capacity):
        control.numbers[index] = 0
    for entry in range(control.layout.entries):
        control.table[entry] = 0
    control.set_arrays(encoded)
    control.words[Words.SLOTS] = count
    control.words64[Words.EPOCH] += 1
