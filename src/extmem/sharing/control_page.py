"""The control page of memory: the count of its changes, in which readers see whether an update runs. Pure.

How this works. The page has the layout of a timeline (`timeline_page`), whose value is the generation of the contents.
It is even while the contents are those of a finished update, and odd while an update runs. The process that updates
adds 1 before its first byte and 1 after its last, so an update makes it 2 greater. Only one process updates at a time:
it has the lease of the object manager.

A process that ends inside an update, or leaves it by an exception, leaves an odd generation. The object manager (the
process itself, for an exception) then marks the page, as that of a timeline whose signaler has ended. The next update
adds 2, which is odd again, and 1 at its end. If the object manager was killed meanwhile, nobody marks the page: who
updates writes its pid and start time there, by which others of its pid namespace find that it has ended.

The page is in the file of a host payload, before its self-description. Memory of other devices has it as a companion
page, where a stamp of 8 bytes for each named array follows: the generation of the last update that named it.

All numbers are in native byte order. A process that may write the payload can write anything here. What readers do with
it is a comparison of numbers, so a wrong page makes them wait, or accept contents that a writer could have falsified as
well.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from extmem.sharing import timeline_page

__all__ = [
    "FROZEN",
    "ID",
    "ID_SIZE",
    "MOST",
    "PAGE_SIZE",
    "STAMP_SIZE",
    "WHOLE",
    "Updater",
    "after",
    "begun",
    "enter_updater",
    "finished",
    "is_running",
    "mark_torn",
    "new",
    "updater",
]

PAGE_SIZE: Final = timeline_page.PAGE_SIZE
"""Bytes of the page, without the stamps of named arrays."""
MOST: Final = (1 << 64) - 4
"""The greatest generation from which an update can begin."""

STAMP_SIZE: Final = 8
"""Bytes of the stamp of a named array."""
ID: Final = 2048
"""Offset of the id of a companion page, which is in the names of its events and of its mutex on Windows."""
ID_SIZE: Final = 16
WHOLE: Final = 2072
"""Offset of a u64: the generation of the last update that named no arrays."""
FROZEN: Final = 2080
"""Offset of a u64: not 0 once a process freezes the memory, or has frozen it. Waiters look at it; the seals decide."""
_UPDATER: Final = 2088
_NUMBERS: Final = struct.Struct("=QQQ")


class Updater(NamedTuple):
    """The process that updates, or has updated last."""

    pid: int
    start: int
    """Its start time, in clock ticks since the start of the system."""
    namespace: int
    """The inode of its pid namespace."""


def new(arrays: int, page_id: bytes) -> bytes:
    """Return the contents of a new page, with stamps for so many named arrays. page_id: `ID_SIZE` random bytes."""
    page = bytearray(PAGE_SIZE + STAMP_SIZE * arrays)
    page[ID : ID + ID_SIZE] = page_id
    return bytes(page)


def enter_updater(page: memoryview, who: Updater) -> None:
    """Write who updates, before the generation says that somebody does."""
    _NUMBERS.pack_into(page, _UPDATER, *who)


def updater(page: memoryview) -> Updater:
    """Return who updates."""
    return Updater(*_NUMBERS.unpack_from(page, _UPDATER))


def is_running(generation: int) -> bool:
    """Return whether an update runs, or was not finished."""
    return bool(generation & 1)


def finished(generation: int) -> int:
    """Return the generation of the last finished update."""
    return generation & ~1


def after(generation: int) -> int:
    """Return the first generation of finished contents that is newer."""
    return (generation | 1) + 1


def begun(generation: int) -> int:
    """Return the generation while the next update runs."""
    return generation + 2 if is_running(generation) else generation + 1


def mark_torn(page: memoryview, pid: int, since: int) -> bool:
    """Mark the page if an update runs there, whose process `pid` has ended. Return whether the waiters must be woken.

    since: nanoseconds of CLOCK_MONOTONIC.
    """
    facts = timeline_page.read(page)
    if not is_running(facts.value) or facts.abandoned:
        return False
    timeline_page.mark_gone(page, pid, since)
    return True
