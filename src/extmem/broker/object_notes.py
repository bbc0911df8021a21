"""What a broker that follows a killed one must know of objects, and no client can announce.

How this works. Clients announce an object as it was when they got it. Two things may have happened since: another
object has got its name (superseded), or the broker does not keep it any more (forgotten). The broker appends a line to
a file for each of these, and its successor reads the file. Lines of objects that have ended are removed when there are
many; the file is removed when a broker ends without a client. Writing is best effort: without the file, the older one
of two objects with one name loses it, and a forgotten object is kept again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeAlias

__all__ = ["ObjectNotes"]

What: TypeAlias = Literal["superseded", "forgotten"]
_LIMIT: Final = 1 << 20
"""Bytes of the file that are read."""
_SPARE: Final = 256
"""Lines from which on those of ended objects are removed."""


class ObjectNotes:
    """The file, and its contents: `superseded` and `forgotten` are ids of objects."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.superseded: set[int] = set()
        self.forgotten: set[int] = set()
        self._fd = -1
        self._room = _SPARE

    def begin(self, *, follows: bool) -> None:
        """Open the file. follows: read what a killed broker wrote; else begin anew."""
        if follows:
            self.read()
            self._open(0)
        else:
            self._open(os.O_TRUNC)

    def read(self) -> None:
        """Read the file. Lines that are not valid are ignored: the last one may be incomplete."""
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            for line in file.read(_LIMIT).split(b"\n"):
                what, _, number = line.partition(b" ")
                if number.isdigit() and len(number) < 20:
                    self._change(what.decode("ascii", "replace"), int(number))

    def note(self, what: What, number: int) -> None:
        """Record that the object was superseded or forgotten."""
        self._change(what, number)
        self._append(what, number)

    def undo(self, number: int) -> None:
        """Record that the object was not superseded after all."""
        self._change("named", number)
        self._append("named", number)

    def prune(self, is_live: Callable[[int], bool]) -> None:
        """Remove the notes of ended objects, if there are many."""
        if len(self.superseded) + len(self.forgotten) < self._room:
            return
        for noted in (self.superseded, self.forgotten):
            noted.intersection_update([number for number in noted if is_live(number)])
        self._room = 2 * (len(self.superseded) + len(self.forgotten)) + _SPARE
        lines = [f"superseded {number}\n" for number in self.superseded]
        lines += [f"forgotten {number}\n" for number in self.forgotten]
        beside = self._path.with_name(f".{self._path.name}.new")
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(beside, flags, 0o600), "w", encoding="ascii") as file:
                file.write("".join(lines))
            os.replace(beside, self._path)
        self._open(0)

    def close(self, *, remove: bool) -> None:
        """Close the file. remove: no client is left that could announce an object."""
        if remove:
            self._path.unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _change(self, what: str, number: int) -> None:
        if what == "superseded":
            self.superseded.add(number)
        elif what == "named":
            self.superseded.discard(number)
        elif what == "forgotten":
            self.forgotten.add(number)

    def _append(self, what: str, number: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._fd, f"{what} {number}\n".encode("ascii"))

    def _open(self, flag: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND | flag
        with contextlib.suppress(OSError):
            self._fd = os.open(self._path, flags, 0o600)
