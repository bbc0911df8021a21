"""The output of commands: data to stdout, messages to stderr, tables that also work in a narrow terminal.

A table is drawn if the window is wide enough; otherwise it is written as one line for each cell. Nothing is cut off,
and nothing is expressed by colour alone. A pipe has no window, so its lines have any length.

Names of payloads, devices and processes come from other programs. Characters that a terminal would interpret (control
characters, escape sequences, writing directions) are not sent to it: `clean` replaces each by a backslash and a number,
and all functions of this module clean what they print, line by line. JSON already escapes such characters. Characters
that the output's encoding lacks are also written with a backslash (`prepare`).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "bytes_in_words",
    "clean",
    "console",
    "counted",
    "emit_json",
    "emit_line",
    "prepare",
    "table",
    "width",
    "words",
]

_UNBOUNDED = 100_000
_READABLE = 24
"""Least number of columns for the last column of a table; with fewer, lines are written in place of the table."""
_MANY = 500
"""Number of rows above which a table is written without Rich."""
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def prepare() -> None:
    """Make stdout and stderr accept every character: those that the encoding lacks are written with a backslash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clean(text: str) -> str:
    """Return text of another program in one line without control characters: `\\x1b]0;x\\x07`, `\\n`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _cleaned(text: str) -> str:
    return "\n".join(map(clean, text.split("\n")))


def emit_json(data: object) -> None:
    """Write data as JSON to stdout."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def emit_line(text: str = "") -> None:
    """Write a line of data to stdout."""
    sys.stdout.write(_cleaned(text) + "\n")


def words(text: str) -> None:
    """Write a message to stderr, immediately, after the data that was written so far."""
    with contextlib.suppress(OSError):  # `end_output` reports data that cannot be written
        sys.stdout.flush()
    sys.stderr.write(_cleaned(text) + "\n")
    sys.stderr.flush()


def width(stream: IO[str]) -> int:
    """Return the number of columns: COLUMNS if it is a positive number, else those of the terminal, else no limit."""
    stated = os.environ.get("COLUMNS", "").lstrip("0")
    if stated.isascii() and stated.isdigit():
        return int(stated) if len(stated) < len(str(_UNBOUNDED)) else _UNBOUNDED
    return shutil.get_terminal_size().columns if stream.isatty() else _UNBOUNDED


def console(stream: IO[str], columns: int | None = None) -> Console:
    """Return a Rich console for a stream. Markup is off: names may contain brackets.

    columns: its width; None for what `width` returns.
    """
    from rich.console import Console

    # With both sizes given, Rich does not read COLUMNS and LINES, which it requires to be numbers.
    return Console(
        file=stream,
        width=width(stream) if columns is None else columns,
        height=shutil.get_terminal_size().lines,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    stream: IO[str] | None = None,
    columns: int | None = None,
) -> None:
    """Print rows under headers. Cells may have several lines; those of the last column are wrapped if necessary.

    Lines are cleaned, but a line break in a cell is kept: a caller that joins text of other programs cleans each part.

    In a window that is too narrow, each cell is printed as a line `header: cell`. columns: of the window, if it is not
    that of the stream.
    """
    target = sys.stdout if stream is None else stream
    rows = [[_cleaned(cell) for cell in row] for row in rows]
    screen = console(target, columns)
    *others, last = _natural_widths(headers, rows)
    if screen.width - sum(others) < min(last, _READABLE):
        _records(headers, rows, title, target)
        return
    if len(rows) > _MANY:
        _plain(headers, rows, title, target)
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in headers[:-1]:
        drawn.add_column(Text(header), no_wrap=True)
    drawn.add_column(Text(headers[-1]), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    # Rich pads every line to the width of the table and adds empty lines, which are not data.
    with screen.capture() as captured:
        screen.print(drawn)
    lines = [title] * bool(title) + [line.rstrip() for line in captured.get().strip("\n").splitlines() if line.strip()]
    target.write("".join(line + "\n" for line in [*lines, ""]))


def _natural_widths(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the number of columns of the terminal that each column of the table needs, with the space between.

    A character can take two columns (Chinese, Japanese, Korean, emoji) or none (combining marks).
    """
    from rich.cells import cell_len

    return [
        max(cell_len(line) for cell in column for line in (cell.splitlines() or [""])) + 3
        for column in zip(headers, *rows, strict=True)
    ]


def _plain(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str, target: IO[str]) -> None:
    """Write a table without Rich, which needs seconds for many rows. The last column is not wrapped."""
    from rich.cells import cell_len

    table = [headers, *rows]
    widths = [
        max(cell_len(line) for cell in column for line in cell.split("\n")) for column in zip(*table, strict=True)
    ]
    target.write(title + "\n" if title else "")
    for row in table:
        for line in itertools.zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
            target.write("   ".join(padded).rstrip() + "\n")
    target.write("\n")


def _records(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str, target: IO[str]) -> None:
    if title:
        target.write(title + "\n")
    for row in rows:
        mark = "- "
        for header, cell in zip(headers, row, strict=True):
            first, *more = cell.splitlines() or [""]
            target.write(f"{mark}{header}: {first}\n".replace(": \n", ":\n"))
            mark = "  "
            target.writelines(f"    {line}\n" for line in more)
    target.write("\n")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 process`, `2 processes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def bytes_in_words(count: int) -> str:
    """Return a size as text: exact below 1 KiB, with three digits above."""
    if count < 1024:
        return counted(count, "byte")
    value = float(count)
    unit = 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 99.95 or value == int(value) else f"{value:.3g} {_UNITS[unit]}"
