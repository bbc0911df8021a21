"""`Turns`: one turn at a time, whatever ends a turn, and whenever."""

from __future__ import annotations

import threading
from threading import get_ident

import pytest

from extmem.channel.turns import ENDED, NEXT, THREAD, Turn, Turns, in_turn
from extmem.errors import HandleStateError
from extmem.testing.waiting import wait_until


class Side:
    """Something with turns: it counts without a lock of its own."""

    def __init__(self) -> None:
        self._turns = Turns()
        self.count = 0
        self.running = 0
        self.most = 0

    @in_turn
    def add(self, step: int = 1) -> int:
        """Add, in a way that loses additions of threads that are not excluded."""
        self.running += 1
        self.most = max(self.most, self.running)
        before = self.count
        get_ident()
        self.count = before + step
        self.running -= 1
        return self.count

    @in_turn
    def fail(self) -> None:
        """Raise an error in a turn."""
        raise ValueError("planted")

    @in_turn
    def nested(self) -> int:
        """Take a turn in a turn, as a signal handler would."""
        return self.add()


def turn() -> Turn:
    return {THREAD: get_ident()}


def test_threads_exclude_each_other() -> None:
    side = Side()
    threads = [threading.Thread(target=lambda: [side.add() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (side.count, side.most) == (2000, 1)


def test_an_error_ends_the_turn() -> None:
    side = Side()
    with pytest.raises(ValueError, match="planted"):
        side.fail()
    assert side.add(step=2) == 2


def test_a_turn_in_a_turn_of_the_same_thread_is_refused_and_of_another_one_waits() -> None:
    side = Side()
    with pytest.raises(HandleStateError, match="signal handler"):
        side.nested()
    assert side.add() == 1
    mine = turn()
    side._turns.begin(mine)
    other = threading.Thread(target=side.add)
    other.start()
    wait_until(lambda: other.is_alive() and side.count == 1, "the other thread to wait")
    mine[ENDED] = True
    other.join(10)
    assert side.count == 2


def test_a_turn_that_an_exception_ended_before_it_was_noted_keeps_nobody() -> None:
    side = Side()
    lost = turn()
    assert side._turns.last.setdefault(NEXT, lost) is lost  # and the exception comes here
    lost[ENDED] = True
    assert side.add() == 1


def test_a_turn_that_an_exception_ended_before_it_began_keeps_nobody() -> None:
    side = Side()
    never = turn()
    never[ENDED] = True
    assert side.add() == 1


def test_turns_that_have_ended_are_forgotten() -> None:
    side = Side()
    for _ in range(100):
        side.add()
    assert side._turns.last.keys() == {THREAD, ENDED}
