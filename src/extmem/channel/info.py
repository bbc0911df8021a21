"""`ChannelInfo`: the writer, the readers and the counts of a channel, as they are at one moment."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from extmem.api.sync_functions import open_timeline
from extmem.channel import names
from extmem.core.naming import short_name
from extmem.errors import ExtmemError
from extmem.handles import Access
from extmem.handles.process_id import current_process
from extmem.manager import manager
from extmem.sharing import reader_page
from extmem.sharing.channel_page import Words
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.reader_page import ReaderState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from extmem.channel.control import ControlPage
    from extmem.objects import PayloadRow

__all__ = ["ChannelInfo", "HeldFrame", "ReaderInfo", "of", "openers", "publishers", "rate_of", "reader_info"]


class HeldFrame(msgspec.Struct, frozen=True):
    """A frame that a reader holds."""

    number: int
    slot: int | None
    """Its slot; None if the reader says a number that no slot has."""
    seconds: float
    """For how long."""


class ReaderInfo(msgspec.Struct, frozen=True):
    """A reader of a channel. Its pid is what the object manager knows; the rest is what the reader says."""

    place: int
    pid: int
    """The process; 0 if it is not known."""
    every: bool
    """Whether it reads each frame in order; else the newest one."""
    reliable: bool
    cursor: int
    """The number of the last frame that it has read."""
    behind: int
    """How many frames are newer than that."""
    lost: int
    """How many frames it has not seen."""
    max_held: int
    held: tuple[HeldFrame, ...]
    """The frames that it holds."""


class ChannelInfo(msgspec.Struct, frozen=True):
    """A channel at one moment. Made by `Channel.info`."""

    name: str
    writer: int
    """The pid of the writer, or of the last one."""
    state: str
    """"alive", "closed" (in the usual way), or "gone" (it ended without closing the channel)."""
    epoch: int
    """The epoch: it changes with `reconfigure`."""
    slots: int
    max_slots: int
    count: int
    """The number of the last frame: as many frames were published."""
    age: float | None
    """Seconds since the last frame was published; None if it is not in the ring."""
    dropped: int
    """Frames that were not published, because no slot was free."""
    max_readers: int
    max_reliable: int
    readers: tuple[ReaderInfo, ...]
    rate: float | None = None
    """Frames per second, by the times of the frames in the ring; None if there are fewer than two. It falls while no
    frame comes.
    """
    device: str = ""
    """The name of the GPU on which this side has the slots; empty for memory of the host."""
    order: str = "host"
    """What orders frames on a GPU: "gpu", or "host" where the driver exports no timelines: the host then waits before
    work that waits is submitted. Always "host" for memory of the host.
    """

    @property
    def slowest(self) -> ReaderInfo | None:
        """The reader that is furthest behind; None without readers."""
        return max(self.readers, key=lambda one: one.behind, default=None)


class GpuFacts(Protocol):
    """What is known of slots on a GPU."""

    @property
    def device_name(self) -> str:
        """The GPU."""

    @property
    def by_host(self) -> bool:
        """Whether the host orders the frames."""


def of(
    control: ControlPage,
    page: Any,
    own: int | None = None,
    rows: Iterable[PayloadRow] | None = None,
    gpu: GpuFacts | None = None,
) -> ChannelInfo:
    """Return the facts of a channel. page: of its timeline. own: the place of this reader.

    rows: of a snapshot; one is taken if they are not given. gpu: what orders slots on a GPU.

    Errors: ChannelCorruptError; PeerGoneError if the object manager does not answer.
    """
    header = control.refreshed()
    count = page.value
    slot = control.table[count % control.layout.entries]
    age = None
    if count and slot < control.layout.capacity and control.numbers[slot] == count:
        age = max(0, time.monotonic_ns() - control.times[slot]) / 1e9
    pids = publishers(control.identity, rows)
    readers = [reader_info(control, place, count, pids) for place in control.readers(own)]
    return ChannelInfo(
        control.name,
        header.pid,
        _state(control, page),
        header.epoch,
        header.slots,
        header.capacity,
        count,
        age,
        control.words64[Words.DROPPED],
        header.max_readers,
        0 if control.words[Words.REFUSES] else header.max_reliable,
        tuple(one for one in readers if one is not None),
        rate_of(_frames_in(control, header.slots), time.monotonic_ns()),
        gpu.device_name if gpu is not None else "",
        "gpu" if gpu is not None and not gpu.by_host else "host",
    )


def _frames_in(control: ControlPage, slots: int) -> list[tuple[int, int]]:
    """Return number and time of each frame in the ring, without those that are overwritten meanwhile."""
    found = []
    for slot in range(slots):
        number = control.numbers[slot]
        published = control.times[slot]
        if number and control.numbers[slot] == number:
            found.append((number, published))
    return found


def rate_of(frames: Iterable[tuple[int, int]], now: int) -> float | None:
    """Return the frames per second. frames: their numbers and times. now: nanoseconds, as the times.

    After a frame that is late, the silence counts, too: the rate falls with time.
    """
    numbered = sorted(frames)
    if len(numbered) < 2:
        return None
    (first, begin), (last, end) = numbered[0], numbered[-1]
    count, span = last - first, end - begin
    if count <= 0 or span <= 0:
        return None
    return count / max(span, now - begin - span / count) * 1e9


def publishers(identity: bytes, rows: Iterable[PayloadRow] | None = None) -> dict[str, int]:
    """Return the pids of the processes that have made parts of a channel, by the names of the parts."""
    prefix = names.parts(identity)
    found: dict[str, int] = {}
    for row in manager().snapshot() if rows is None else rows:
        for shared in row.objects:
            name = short_name(shared.name) if shared.name is not None else ""
            if name.startswith(prefix):
                found[name] = shared.publisher
    return found


def openers(name: str, rows: Iterable[PayloadRow]) -> set[int]:
    """Return the pids of the other processes that have opened the channel, readers that do not say so included."""
    found: set[int] = set()
    for row in rows:
        if row.object_kind == ObjectKind.CHANNEL and any(short_name(one) == name for one in row.names):
            found |= {holder.pid for holder in row.holders}
    return found - {current_process.pid}


def reader_info(control: ControlPage, place: int, count: int, pids: dict[str, int]) -> ReaderInfo | None:
    """Return the reader in a place; None if it has just gone. pids: of `publishers`."""
    name = names.reader(control.identity, place)
    state: ReaderState | None = None
    with contextlib.suppress(ExtmemError), open_timeline(name, access=Access.READ) as timeline:
        with timeline.use() as record:
            state = reader_page.read(record.page.contents)
    if state is None:
        return None
    now = time.monotonic_ns()
    slots = {number: slot for slot, number in enumerate(control.numbers) if number}
    held = tuple(
        HeldFrame(number, slots.get(number), max(0, now - since) / 1e9) for number, since in sorted(state.held)
    )
    return ReaderInfo(
        place,
        pids.get(name, 0),
        bool(state.mode & reader_page.Mode.EVERY),
        bool(state.mode & reader_page.Mode.RELIABLE) and not control.words[Words.REFUSES],
        state.cursor,
        max(0, count - state.cursor),
        state.lost,
        state.max_held,
        held,
    )


def _state(control: ControlPage, page: Any) -> str:
    if control.words[Words.CLOSED]:
        return "closed"
    facts = page.abandoned_below(1 << 64)
    if facts is not None:
        return "closed" if facts.closed else "gone"
    words = control.words64
    ended = page.has_ended(words[Words.WRITER], words[Words.WRITER + 1], words[Words.WRITER + 2])
    return "gone" if ended else "alive"
