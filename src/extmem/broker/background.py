"""Work that takes longer than one turn of the loop may: done a step at a time, between the turns of clients.

How this works. A piece of work is a generator, which yields after some hundred things. `step` lets it go on for at most
`STEPS` of these; the loop calls it once in a turn while there is any. Pieces are finished in the order of their coming.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

from collections import deque
from collections.abc import Iterator
from typing import Final

__all__ = ["STEPS", "BackgroundWork"]

STEPS: Final = 4


class BackgroundWork:
    """What is left to be done."""

    def __init__(self) -> None:
        self.pieces: deque[Iterator[None]] = deque()
        """Those that were begun."""

    def add(self, piece: Iterator[None]) -> None:
        """Begin a piece, and finish it at once if it is a small one."""
        if not self.pieces and next(piece, self) is self:
            return
        self.pieces.append(piece)

    def step(self) -> None:
        """Go on for a while."""
        for _ in range(STEPS):
            if not self.pieces:
                return
            if next(self.pieces[0], self) is self:
                self.pieces.popleft()
