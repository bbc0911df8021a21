"""Work that would take too long for one turn of the loop: it is done in steps, between the turns of clients.

How this works. A piece of work is a generator, which yields after some hundred items. `step` continues it for at most
`STEPS` yields; the loop calls it once in a turn while a piece is left. Pieces are finished in the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

__all__ = ["STEPS", "BackgroundWork"]

STEPS: Final = 4
"""Number of yields in one turn of the loop, at most."""


class BackgroundWork:
    """The pieces of work that are not finished."""

    def __init__(self) -> None:
        self.pieces: deque[Iterator[None]] = deque()
        """The pieces that were begun, oldest first."""

    def add(self, piece: Iterator[None]) -> None:
        """Begin a piece; it is finished at once if it is small and no other piece is left."""
        if not self.pieces and next(piece, self) is self:
            return
        self.pieces.append(piece)

    def step(self) -> None:
        """Continue for at most `STEPS` yields."""
        for _ in range(STEPS):
            if not self.pieces:
                return
            if next(self.pieces[0], self) is self:
                self.pieces.popleft()
