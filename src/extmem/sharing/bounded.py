"""`Bounded`: a cache with a limit."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Bounded"]

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A cache of at most `limit` entries. One that is full is emptied, so that a lookup costs no bookkeeping."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def keep(self, key: K, value: V) -> V:
        """Add an entry. Return its value."""
        if len(self) >= self._limit:
            self.clear()
        self[key] = value
        return value
