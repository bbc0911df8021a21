"""How a row of each table looks: its columns, which of them fit into a window, and one line of text. Pure.

The first character of a line is the mark of the selected row, the second that of a new or ended one, so that nothing
is expressed by colour alone. A cell that is too long ends with `…`; the details of the selected row have all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from rich.cells import cell_len, set_cell_size

from extmem.cli._out import bytes_in_words
from extmem.cli._top.channels import ChannelFacts
from extmem.cli._top.items import Subject
from extmem.cli._top.model import Row, State

__all__ = ["COLUMNS", "Column", "Placed", "clock", "fitting", "header_line", "row_line", "seconds_in_words"]

_SELECTED, _MARGIN, _GAP = ">", 3, 2
"""The mark of the selected row; the columns of the marks and the space after them; the space between columns."""
_LEAST_NAME, _GOOD_NAME = 12, 24
"""The least width of the name, for which other columns are left out: those up to the rank `_WORTH`, and those of a
greater one.
"""
_WORTH: Final = 3


class Column(msgspec.Struct, frozen=True):
    """A column of a table."""

    title: str
    width: int
    """Its width without the space after it. That of the name is the rest of the window."""
    rank: int
    """Which columns a narrow window leaves out first: those of the greatest rank. 0 for the first column, which is
    always shown."""
    text: Callable[[Row, State], str]
    key: Callable[[Row], Any]
    """What rows are sorted by; None sorts last."""
    number: bool = False
    """Whether it is aligned to the right, and begins with the greatest value when rows are sorted by it."""


class Placed(msgspec.Struct, frozen=True):
    """A column with its place in the window."""

    column: Column
    at: int
    width: int


def clock(wall: float) -> str:
    """Return a time of `time.time` as local time: `14:03:10`."""
    return time.strftime("%H:%M:%S", time.localtime(wall))


def seconds_in_words(seconds: float | None) -> str:
    """Return a duration in at most 6 characters: `0.3 ms`, `4.2 s`, `59 s`, `3 min`, `2 h`, `3 d`."""
    if seconds is None:
        return "-"
    if seconds < 0.1:
        return f"{max(0.0, seconds) * 1000:.2g} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for size, unit, most in ((1, "s", 120), (60, "min", 120 * 60), (3600, "h", 48 * 3600)):
        if seconds < most:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"


def _rate_text(row: Row, state: State) -> str:
    if row.rate is None:
        return "-"
    return f"{row.rate:.1f}" if 0 < row.rate < 99.95 else f"{row.rate:.0f}"


def _number_text(row: Row, state: State) -> str:
    return "-" if row.item.number is None else str(row.item.number)


def _size_text(row: Row, state: State) -> str:
    return "-" if row.item.size is None else bytes_in_words(row.item.size)


def _since_text(row: Row, state: State) -> str:
    return f"<{clock(state.began)}" if row.since is None else clock(row.since)


def _since_key(row: Row) -> float:
    return 0.0 if row.since is None else row.since


def _of_channel(get: Callable[[ChannelFacts], Any]) -> Callable[[Row], Any]:
    def key(row: Row) -> Any:
        return None if row.item.channel is None else get(row.item.channel)

    return key


def _slowest_text(row: Row, state: State) -> str:
    channel = row.item.channel
    slowest = None if channel is None else channel.slowest
    return "-" if channel is None or slowest is None else f"{slowest.pid}, {channel.frames - slowest.cursor} behind"


def _text_of(key: Callable[[Row], Any]) -> Callable[[Row, State], str]:
    def text(row: Row, state: State) -> str:
        value = key(row)
        return "-" if value is None else str(value)

    return text


_readers = _of_channel(lambda channel: len(channel.readers))
_held = _of_channel(lambda channel: sum(reader.held for reader in channel.readers))
_skipped = _of_channel(lambda channel: sum(reader.skipped for reader in channel.readers))
_age = _of_channel(lambda channel: channel.age)
_behind = _of_channel(
    lambda channel: None if channel.slowest is None else channel.frames - channel.slowest.cursor  # frames
)

_NAME = Column("name", 0, 0, lambda row, state: row.item.name, lambda row: row.item.name.lower())
_KIND = Column("kind", 26, 4, lambda row, state: row.item.kind, lambda row: row.item.kind)
_HOLDERS = Column("held by", 20, 3, lambda row, state: row.item.held_by, lambda row: row.item.held_by)
_COUNT = Column("procs", 7, 1, lambda row, state: str(len(row.item.holders)), lambda row: len(row.item.holders), True)
_SINCE = Column("since", 9, 6, _since_text, _since_key)
_RATE = Column("per s", 7, 2, _rate_text, lambda row: row.rate, True)

COLUMNS: Final[dict[Subject, tuple[Column, ...]]] = {
    Subject.PAYLOADS: (
        _NAME,
        Column("size", 9, 2, _size_text, lambda row: row.item.size, True),
        Column("generation", 12, 5, _number_text, lambda row: row.item.number, True),
        _RATE,
        _COUNT,
        _HOLDERS,
        _KIND,
        _SINCE,
    ),
    Subject.TIMELINES: (
        _NAME,
        Column("kind", 16, 4, lambda row, state: row.item.kind, lambda row: row.item.kind),
        Column("value", 12, 1, _number_text, lambda row: row.item.number, True),
        _RATE,
        _COUNT,
        _HOLDERS,
        _SINCE,
    ),
    Subject.CHANNELS: (
        _NAME,
        Column("writer", 18, 2, lambda row, state: row.item.held_by, lambda row: row.item.held_by),
        Column("frames", 10, 3, _number_text, lambda row: row.item.number, True),
        _RATE,
        Column("age", 7, 1, lambda row, state: seconds_in_words(_age(row)), _age, True),
        Column("readers", 9, 4, _text_of(_readers), _readers, True),
        Column("held", 6, 5, _text_of(_held), _held, True),
        Column("skipped", 9, 3, _text_of(_skipped), _skipped, True),
        Column("slowest", 22, 2, _slowest_text, _behind, True),
        _SINCE,
    ),
}
"""The columns of each table, in their order. The name is the first, in which rows are sorted at first."""


def fitting(columns: Sequence[Column], width: int) -> list[Placed]:
    """Return the columns that a window of this width shows. The first one gets what the others leave.

    Columns are taken in the order of their ranks, each if there is room for it.
    """
    left = width - _MARGIN - _LEAST_NAME
    shown = {columns[0]}
    for one in sorted(columns[1:], key=lambda column: column.rank):
        kept = 0 if one.rank <= _WORTH else _GOOD_NAME - _LEAST_NAME
        if one.width + _GAP + kept <= left:
            left -= one.width + _GAP
            shown.add(one)
    placed, at = [], _MARGIN
    for one in columns:
        if one in shown:
            wide = max(1, left + _LEAST_NAME) if one is columns[0] else one.width
            placed.append(Placed(one, at, wide))
            at += wide + _GAP
    return placed


def header_line(placed: Sequence[Placed], sorted_by: Column, *, descending: bool) -> str:
    """Return the line of titles. The one by which rows are sorted has an arrow: `v` from the greatest, `^` from the
    least.
    """
    cells = []
    for one in placed:
        title = one.column.title
        if one.column is sorted_by:
            title += " v" if descending else " ^"
        cells.append(_fitted(title, one))
    return " " * _MARGIN + (" " * _GAP).join(cells)


def row_line(row: Row, placed: Sequence[Placed], state: State, *, selected: bool) -> str:
    """Return a row as one line of text."""
    marks = (_SELECTED if selected else " ") + row.mark + " "
    return marks + (" " * _GAP).join(_fitted(one.column.text(row, state), one) for one in placed)


def _fitted(text: str, placed: Placed) -> str:
    width = placed.width
    if cell_len(text) > width:
        return set_cell_size(set_cell_size(text, width - 1) + "…", width)
    return " " * (width - cell_len(text)) + text if placed.column.number else set_cell_size(text, width)
