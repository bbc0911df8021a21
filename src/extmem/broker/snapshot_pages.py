"""A snapshot in pages, each small enough for one turn of the broker's loop.

How this works. Each page continues the object manager's walk. A page ends when it has visited `VISITED` objects,
handles and holders, or has `ROOM` bytes, whichever comes first. The values of timelines are not the model's: they are
read when their rows are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from extmem import wire
from extmem.objects import STEP, Part

__all__ = ["ROOM", "VISITED", "SnapshotPages"]

VISITED: Final = 1_000
"""Number of objects, handles and holders that a page visits, at most."""
ROOM: Final = 1 << 18
"""Bytes of a page, except the last part in it."""


class SnapshotPages:
    """A snapshot that is being sent. `number` is the cursor of the next page; 0 after the last one."""

    def __init__(self, walk: Iterator[Part | None], value: Callable[[int], int | None]) -> None:
        """value: returns the value in the page of a payload; None where there is none."""
        self._walk = walk
        self._value = value
        self.number = 1

    def page(self) -> bytes:
        """Return the next page, encoded. It may be empty."""
        parts: list[Part] = []
        size = 0
        visited = 0
        while visited < VISITED and size < ROOM:
            try:
                part = next(self._walk)
            except StopIteration:
                self.number = 0
                return wire.encode(parts)
            if part is None:
                visited += STEP
                continue
            if part.readable and part.row is not None:
                row = msgspec.structs.replace(part.row, counter=self._value(part.payload))
                part = msgspec.structs.replace(part, row=row, readable=False)
            parts.append(part)
            visited += 1 if part.holder is None else 1 + len(part.holder.handles)
            size += 200 if part.row is None else 200 + len(part.row.descriptor)
        self.number += 1
        return wire.encode(parts)
