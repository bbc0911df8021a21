"""`end_with`: a lock ends with the last of some arrays, exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap
from weakref import ref

import numpy as np
import pytest

from extmem.channel import lingering
from extmem.channel.lingering import end_with

UNLOCKED = "unlocked"


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def unlock(calls: list[str]) -> Iterator[None]:
    return starmap(calls.append, ((UNLOCKED,),))


def test_it_ends_at_once_without_arrays(calls: list[str], unlock: Iterator[None]) -> None:
    keep: list[object] = ["kept"]
    end_with([], unlock, keep, lambda: calls.append("then"))
    assert (calls, keep) == ([UNLOCKED, "then"], [])


def test_it_ends_with_the_last_array(calls: list[str], unlock: Iterator[None]) -> None:
    keep: list[object] = ["kept"]
    arrays = [np.zeros(1) for _ in range(3)]
    end_with([ref(array) for array in arrays], unlock, keep, lambda: calls.append("then"))
    del arrays[1], arrays[0]
    assert (calls, keep) == ([], ["kept"])
    arrays.clear()
    assert (calls, keep) == ([UNLOCKED, "then"], [])
    before = len(lingering._watches)
    end_with([], iter(()), [], lambda: None)
    assert len(lingering._watches) <= before  # what is over is forgotten


def test_it_ends_once_if_another_one_has_released_the_lock(calls: list[str], unlock: Iterator[None]) -> None:
    array = np.zeros(1)
    end_with([ref(array)], unlock, [], lambda: None)
    next(unlock, None)
    del array
    assert calls == [UNLOCKED]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_lock_ends_also_if_what_follows_fails(calls: list[str], unlock: Iterator[None]) -> None:
    def fail() -> None:
        raise ValueError("planted")

    array, keep = np.zeros(1), ["kept"]
    end_with([ref(array)], unlock, keep, fail)
    del array
    assert (calls, keep) == ([UNLOCKED], [])
