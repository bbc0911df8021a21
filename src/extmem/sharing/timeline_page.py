"""The page of a timeline: its value, its state, and its signalers. Pure: functions over a memoryview of the page.

::

    0       8       12      16      24      32      40      44      48       52      64          1024
    +-------+-------+-------+-------+-------+-------+-------+-------+--------+--- - -+------ - - +---- - -
    | value | seq.  | state | pid   | since |reached| flags | marks | entries| zeros | signalers | raised
    +-------+-------+-------+-------+-------+-------+-------+-------+--------+--- - -+------ - - +---- - -

    a signaler: u32 pid, u32 flags, u64 start time; 32 of them, up to byte 576
    raised: u64, for each signaler the greatest value that it has announced

All numbers are in native byte order: the page never leaves the machine. The page is the first one of a sealed memory
file. It is the payload of a timeline of the host, or the companion page of another semaphore or fence: of a driver's
timeline (its value is what the submitters' hosts have seen done), of a binary semaphore or a fence (no value).

How this works. A signaler stores the value, then adds 1 to the sequence and wakes all that wait for a change of it
(FUTEX_WAKE_OP: its atomic addition is a full barrier). A waiter reads the value, the sequence, and the value again, and
sleeps while the sequence does not change. Each process enters itself into the table before its first signal (`enter`),
so that the object manager knows whose end concerns the waiters. When such a process ends, the object manager marks the
page (`mark_gone`), adds 1 to the sequence and wakes the waiters. The process that shares the payload first is entered
as its creator, by the object manager. The end of a creator that has not signaled concerns the waiters only while no
other signaler is in the table. A process that ends normally says so in its own entry just before (`mark_leaving`). Its
end then is like that of its last object: it concerns the waiters only if no signaler is left.

A waiter whose value is reached succeeds, whatever the state is. Else, if the page is marked and no signal came after
the mark (`REPAIRED`), nobody is going to signal: that is an error at once. A survivor that signals sets `REPAIRED`, and
the mark stays: values above `reached` were signaled after the mark.

A process with the right to signal can write anything here, also while it is read. Every function accepts any contents;
what it returns is then just as wrong as the contents are. Processes without that right have a read-only mapping.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

import msgspec

__all__ = [
    "MARKS",
    "PAGE_SIZE",
    "RAISED",
    "REACHED",
    "SEQUENCE",
    "SIGNALERS",
    "SINCE",
    "STATE",
    "TABLE",
    "UNUSED",
    "VALUE",
    "WHO",
    "ENTRIES",
    "Facts",
    "Flags",
    "Left",
    "Signaler",
    "State",
    "enter",
    "leave",
    "mark_gone",
    "mark_leaving",
    "mark_repaired",
    "read",
    "signalers",
]

PAGE_SIZE: Final = 4096
"""Bytes of the page. The system's pages may be larger; the rest of one is unused."""
VALUE: Final = 0
"""Offset of the value, u64."""
SEQUENCE: Final = 8
"""Offset of the sequence, u32: the futex word. It wraps."""
STATE: Final = 12
"""Offset of the state, u32 (`State`)."""
WHO: Final = 16
"""Offset of the pid of the process that the state is about, u64."""
SINCE: Final = 24
"""Offset of the time of the state, u64: nanoseconds of CLOCK_MONOTONIC."""
REACHED: Final = 32
"""Offset of the value that was reached when the page was marked, u64."""
FLAGS: Final = 40
"""Offset of the flags, u32 (`Flags`)."""
MARKS: Final = 44
"""Offset of the number of marks, u32. It wraps."""
ENTRIES: Final = 48
"""Offset of a u32 that is greater than 1 once several processes may signal. The device's alone."""
UNUSED: Final = 56
"""Offset of a u32 that nobody writes or sleeps on."""
TABLE: Final = 64
"""Offset of the table of signalers."""
SIGNALERS: Final = 32
"""Entries of the table."""
RAISED: Final = 1024
"""Offset of a u64 for each entry of the table: what this signaler announced. The device's alone."""

_ENTRY: Final = struct.Struct("=IIQ")
_HEAD: Final = struct.Struct("=QIIQQQII")
_U32: Final = struct.Struct("=I")
_U64: Final = struct.Struct("=Q")
_TABLE: Final = struct.Struct("=" + "IIQ" * SIGNALERS)
_DEAD: Final = 1
_CREATOR: Final = 2
_LEAVING: Final = 4


class State(IntEnum):
    """What the object manager knows of the signalers."""

    ALIVE = 0
    """Nothing has happened to them."""
    GONE = 1
    """One of them has ended, or (with `Flags.CLOSED`) the last one has closed the object."""
    POISONED = 2
    """A signaler has declared the payload invalid."""


class Flags(IntFlag):
    """Details of the state."""

    CLOSED = 1
    """The signaler has closed the object in the usual way, and no signaler is left."""
    REPAIRED = 2
    """Another process has signaled since the page was marked."""
    EXITED = 4
    """With CLOSED: the signaler has not closed the object, and its program has ended normally."""


class Facts(msgspec.Struct, frozen=True):
    """The contents of a page, its table aside."""

    value: int
    sequence: int
    state: int
    """A `State`, or any other number on a page of a faulty process."""
    pid: int
    """The process that the state is about; 0 if none."""
    since: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    reached: int
    flags: int
    marks: int

    @property
    def marked(self) -> bool:
        """Whether the state is anything but ALIVE."""
        return self.state != State.ALIVE

    @property
    def abandoned(self) -> bool:
        """Whether a value that is not reached has no signaler: the page is marked, and nobody has signaled since."""
        return self.state != State.ALIVE and not self.flags & Flags.REPAIRED

    @property
    def closed(self) -> bool:
        """Whether the signaler has closed the object in the usual way, or its program has ended normally."""
        return self.flags & Flags.CLOSED != 0

    @property
    def exited(self) -> bool:
        """Whether the signaler's program has ended normally, and has not closed the object."""
        return self.flags & Flags.EXITED != 0


class Signaler(msgspec.Struct, frozen=True):
    """An entry of the table."""

    place: int
    """Its index in the table."""
    pid: int
    start: int
    """Its start time, in clock ticks since the start of the system (field 22 of /proc/PID/stat)."""
    dead: bool
    """Whether it has ended. Its entry may be used again."""
    creator: bool = False
    """Whether it shared the payload first, and has not signaled yet."""
    leaving: bool = False
    """Whether it is about to end normally."""


class Left(msgspec.Struct, frozen=True):
    """The result of `leave`."""

    found: bool
    """Whether the process was in the table, and not as one that has ended."""
    creator: bool
    """Whether it was there as the creator, and had not signaled."""
    signalers: int
    """How many others are in the table, those that have ended and a creator that has not signaled aside."""
    creators: int
    """How many creators that have not signaled are left."""
    leaving: bool
    """Whether it had announced that it ends normally."""

    @property
    def end_matters(self) -> bool:
        """Whether the end of the process concerns the waiters: it may owe them a value that no other one signals."""
        return self.found and not ((self.creator or self.leaving) and self.signalers)


def read(page: memoryview) -> Facts:
    """Return the contents of a page."""
    return Facts(*_HEAD.unpack_from(page))


def signalers(page: memoryview) -> list[Signaler]:
    """Return the signalers in the table, also the dead ones."""
    numbers = _TABLE.unpack_from(page, TABLE)
    found = []
    for place, at in enumerate(range(0, 3 * SIGNALERS, 3)):
        pid, flags, start = numbers[at : at + 3]
        if pid:
            dead, creator, leaving = (flags & bit != 0 for bit in (_DEAD, _CREATOR, _LEAVING))
            found.append(Signaler(place, pid, start, dead, creator, leaving))
    return found


def enter(page: memoryview, pid: int, start: int, *, creator: bool = False) -> bool:
    """Enter a process into the table, unless it is there. Return False if the table is full.

    creator: it has not signaled; the object manager enters it so. Later calls without it make it a signaler.

    Two processes that enter at the same time could take the same entry. The caller excludes the others, for example by
    a lock of the file's bytes `TABLE` and following (fcntl F_SETLK), which the kernel releases when a process ends.
    """
    free = -1
    numbers = _TABLE.unpack_from(page, TABLE)
    for place in range(SIGNALERS):
        at = 3 * place
        known, flags = numbers[at], numbers[at + 1]
        if known == pid and numbers[at + 2] == start and not flags & _DEAD:
            if flags & _CREATOR and not creator:
                _ENTRY.pack_into(page, TABLE + place * _ENTRY.size, pid, flags & ~_CREATOR, start)
            return True
        if free < 0 and (not known or flags & _DEAD):
            free = place
    if free < 0:
        return False
    _ENTRY.pack_into(page, TABLE + free * _ENTRY.size, pid, _CREATOR if creator else 0, start)
    return True


def leave(page: memoryview, pid: int, start: int, *, dead: bool = False) -> Left:
    """Remove a process from the table; with `dead`, keep its entry as that of a process that has ended."""
    found = creator = leaving = False
    others = creators = 0
    for one in signalers(page):
        if one.dead:
            continue
        if one.pid == pid and one.start == start:
            found, creator, leaving = True, one.creator, one.leaving
            kept = (pid, _DEAD, start) if dead else (0, 0, 0)
            _ENTRY.pack_into(page, TABLE + one.place * _ENTRY.size, *kept)
        elif one.creator:
            creators += 1
        else:
            others += 1
    return Left(found, creator, others, creators, leaving)


def mark_leaving(page: memoryview, pid: int, start: int) -> None:
    """Record in the entry of a process, if it has one, that it is about to end normally. It may still signal."""
    for one in signalers(page):
        if one.pid == pid and one.start == start and not one.dead:
            at = TABLE + one.place * _ENTRY.size + 4
            _U32.pack_into(page, at, _U32.unpack_from(page, at)[0] | _LEAVING)


def mark_gone(
    page: memoryview,
    pid: int,
    since: int,
    *,
    closed: bool = False,
    exited: bool = False,
    state: State = State.GONE,
) -> None:
    """Mark the page: the signaler `pid` has ended, or closed the object. The caller wakes the waiters.

    exited: its program has ended normally, and has not closed it. closed: it has closed it.
    state: or it has declared the payload invalid (POISONED).
    since: nanoseconds of CLOCK_MONOTONIC. The details are written before the state. The wake's atomic operation on the
    sequence orders them for the waiters.
    """
    value = _U64.unpack_from(page, VALUE)[0]
    marks = _U32.unpack_from(page, MARKS)[0]
    _U64.pack_into(page, WHO, pid)
    _U64.pack_into(page, SINCE, since)
    _U64.pack_into(page, REACHED, value)
    _U32.pack_into(page, FLAGS, Flags.CLOSED * (closed or exited) | Flags.EXITED * exited)
    _U32.pack_into(page, MARKS, (marks + 1) & 0xFFFF_FFFF)
    _U32.pack_into(page, STATE, state)


def mark_repaired(page: memoryview) -> None:
    """Record that a process signals after the page was marked. The mark stays."""
    flags = _U32.unpack_from(page, FLAGS)[0]
    _U32.pack_into(page, FLAGS, flags | Flags.REPAIRED)
