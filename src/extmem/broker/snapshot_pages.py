"""A snapshot in pages: so much of it at a time as one turn of the broker's loop may take.

How this works. The object manager's walk goes on where it was left. A page ends when it has visited `VISITED` things or
has `ROOM` bytes, whichever comes first; a thing that does not fit any more begins the next page.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

from collections.abc import Iterator
from typing import Final

from extmem import wire
from extmem.objects import STEP, Part

__all__ = ["ROOM", "VISITED", "SnapshotPages"]

VISITED: Final = 1_000
"""Things that a page looks at, at most."""
ROOM: Final = 1 << 18
"""Bytes of a page, but for the last part in it."""


class SnapshotPages:
    """One snapshot under way. `number` is the cursor of the next page; 0 once there are no more."""

    def __init__(self, walk: Iterator[Part | None]) -> None:
        self._walk = walk
        self.number = 1

    def page(self) -> bytes:
        """The next page, encoded; perhaps an empty one."""
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
            parts.append(part)
            visited += 1 if part.holder is None else 1 + len(part.holder.handles)
            size += 200 if part.row is None else 200 + len(part.row.descriptor)
        self.number += 1
        return wire.encode(parts)
