"""What commands print: data to stdout, words to stderr, tables that survive a narrow terminal.

A table is drawn where the window is wide enough for it, and told line by line where it is not. Nothing is ever cut off,
and nothing is said by colour alone. Into a pipe there is no window, so lines are as long as they need to be.

Names, devices and processes are other programs' words. What a terminal would act on (control characters, escape
sequences, directions of writing) is shown and not sent: `clean` writes it as a backslash and a number, and everything
that is printed here is cleaned line by line. JSON has such characters escaped already. Characters that the output's
encoding lacks are written with a backslash, too (`prepare`).
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
    "on_terminal",
    "prepare",
    "table",
    "width",
    "words",
]

_UNBOUNDED = 100_000
_READABLE = 24
"""Columns below which a broken cell is harder to read than no table."""
_MANY = 500
"""Rows above which a table is written without Rich."""
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def prepare() -> None:
    """Have the output take every character, whatever its encoding: what it lacks is written with a backslash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clean(text: str) -> str:
    """Another program's words in one line that no terminal acts on: `\\x1b]0;x\\x07`, `\\n`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _cleaned(text: str) -> str:
    return "\n".join(map(clean, text.split("\n")))


def emit_json(data: object) -> None:
    """Write data as JSON, for programs."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def emit_line(text: str = "") -> None:
    """Write a line of data."""
    sys.stdout.write(_cleaned(text) + "\n")


def words(text: str) -> None:
    """Say something to whoever watches: stderr, at once, after the data so far."""
    with contextlib.suppress(OSError):  # `end_output` tells of data that cannot be written
        sys.stdout.flush()
    sys.stderr.write(_cleaned(text) + "\n")
    sys.stderr.flush()


def on_terminal(stream: IO[str]) -> bool:
    """Whether a person looks at the stream (NO_COLOR and TERM=dumb are rich's affair)."""
    return stream.isatty()


def width(stream: IO[str]) -> int:
    """Columns to fill: COLUMNS if set, else the terminal's, else no limit."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return shutil.get_terminal_size().columns if on_terminal(stream) else _UNBOUNDED


def console(stream: IO[str]) -> Console:
    """A rich console on a stream, with our idea of its width. Markup is off: names may hold brackets."""
    from rich.console import Console

    return Console(file=stream, width=width(stream), highlight=False, markup=False, emoji=False, soft_wrap=False)


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", stream: IO[str] | None = None
) -> None:
    """Print rows under headers; cells may have several lines, and the last column's are broken where they must be.

    A line is cleaned, a cell is not: whoever joins several words of others' cleans each.

    Windows that are too narrow for that get one `header: cell` line each.
    """
    target = sys.stdout if stream is None else stream
    rows = [[_cleaned(cell) for cell in row] for row in rows]
    screen = console(target)
    *others, last = _natural_widths(headers, rows)
    room = screen.width - sum(others)
    if room < min(last, _READABLE):
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
    # Rich pads every line to the table's width and frames it with empty ones; blanks are no data.
    with screen.capture() as captured:
        screen.print(drawn)
    lines = [title] * bool(title) + [line.rstrip() for line in captured.get().strip("\n").splitlines() if line.strip()]
    target.write("".join(line + "\n" for line in [*lines, ""]))


def _natural_widths(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns that each needs, space between included."""
    return [
        max(len(line) for cell in column for line in (cell.splitlines() or [""])) + 3
        for column in zip(headers, *rows, strict=True)
    ]


def _plain(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str, target: IO[str]) -> None:
    """The same, for so many rows that laying them out by Rich takes seconds; the last column's lines stay whole."""
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


def counted(count: int, what: str) -> str:
    """`1 process`, `2 processes`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"


def bytes_in_words(count: int) -> str:
    """A size for people: exact below 1 KiB, three digits above."""
    if count < 1024:
        return counted(count, "byte")
    value = float(count)
    unit = 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 99.95 or value == int(value) else f"{value:.3g} {_UNITS[unit]}"
