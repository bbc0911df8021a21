"""`Bounded`: a cache that is emptied when it is full."""

from __future__ import annotations

from extmem.sharing.bounded import Bounded


def test_it_returns_what_it_keeps() -> None:
    cache: Bounded[str, int] = Bounded(2)
    assert cache.keep("a", 1) == 1 and cache["a"] == 1


def test_it_never_has_more_entries_than_its_limit() -> None:
    cache: Bounded[int, int] = Bounded(3)
    sizes = [len(cache) for number in range(8) if cache.keep(number, number) == number]
    assert sizes == [1, 2, 3, 1, 2, 3, 1, 2]
    assert 7 in cache and 0 not in cache
