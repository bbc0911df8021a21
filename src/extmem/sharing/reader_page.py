"""What a reader of a channel says about itself: in the page of its timeline, behind what timelines use. Pure.

::

    0          2560    2564    2568     2576   2584        2592
    +----------+-------+-------+--------+------+-----------+----------------------- - -
    | timeline | mode  | start | cursor | lost | most held | held: number, since; 32 of them
    +----------+-------+-------+--------+------+-----------+----------------------- - -

All numbers are in native byte order. The value of the timeline counts releases that the writer waits for.

The reader alone writes to the page; the writer and other processes of the same user read it. Who reads it believes
nothing else than what concerns the reader itself: a reliable reader that lies about its cursor is a slow reader.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import Final

import msgspec

__all__ = ["CURSOR", "HELD", "HELD_LIMIT", "LOST", "Mode", "ReaderState", "is_reliable", "pack", "read"]

_AT: Final = 2560  # behind the id of a page on Windows
HELD_LIMIT: Final = 32
"""The most frames that a reader can hold at once."""
CURSOR: Final = (_AT + 8) // 8
"""Offset of the number of the last frame that it has read, in words of 8 bytes."""
LOST: Final = (_AT + 16) // 8
"""Offset of the number of frames that it has not seen, in words of 8 bytes."""
HELD: Final = (_AT + 32) // 8
"""Offset of the first pair of a frame number (0 for none) and a time (ns of CLOCK_MONOTONIC), in words of 8 bytes."""

_HEAD: Final = struct.Struct("=IIQQQ")
_HELD: Final = struct.Struct("=" + "QQ" * HELD_LIMIT)


class Mode(IntFlag):
    """How it reads."""

    EVERY = 1
    """Each frame in order; else the newest one."""
    RELIABLE = 2
    """The writer does not overwrite a frame before this reader has read it."""


class ReaderState(msgspec.Struct, frozen=True):
    """What is written in the page."""

    mode: Mode
    cursor: int
    """The number of the last frame that it has read."""
    lost: int
    """How many frames it has not seen."""
    max_held: int
    held: tuple[tuple[int, int], ...]
    """The frames that it holds: number, and since when, in nanoseconds of CLOCK_MONOTONIC."""


def pack(page: memoryview, mode: Mode, cursor: int, max_held: int) -> None:
    """Write the state of a new reader."""
    _HEAD.pack_into(page, _AT, int(mode), 0, cursor, 0, max_held)


def is_reliable(page: memoryview) -> bool:
    """Return whether the page says that the writer has to wait for the reader."""
    return bool(_HEAD.unpack_from(page, _AT)[0] & Mode.RELIABLE)


def read(page: memoryview) -> ReaderState:
    """Return what is written in a page, whoever wrote it."""
    mode, _, cursor, lost, most = _HEAD.unpack_from(page, _AT)
    pairs = _HELD.unpack_from(page, _AT + _HEAD.size)
    held = tuple((pairs[at], pairs[at + 1]) for at in range(0, 2 * HELD_LIMIT, 2) if pairs[at])
    return ReaderState(Mode(mode & 3), cursor, lost, most, held)
