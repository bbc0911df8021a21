"""Turns: threads that use one side of a channel take turns in its shortest paths, without the call of a lock.

How this works. A turn is a dictionary, and the turns of one side are a chain: each has the next one under `NEXT`. A
block that needs the turn is::

    turn = {THREAD: get_ident()}
    try:
        self._turns.begin(turn)
        …
    finally:
        turn[ENDED] = True

Whoever makes its turn the next one of a turn that has ended has it: `setdefault` is one call of C code, so of several
threads one succeeds, and the others wait for the end of that turn. An exception of a signal handler can come at any
point of the block, also just after `setdefault`, or in the first step of `finally`: the store that ends a turn is one
instruction, at which no handler runs, and needs no look whether the turn had begun. A turn that never began ends, too,
and nobody waits for it.

`owning.Lock` protects against the same by calls that take as long as the rest of the path of a frame. The paths of each
frame contain the body of `begin` themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from threading import get_ident
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from extmem.errors import HandleStateError

__all__ = ["ENDED", "NEXT", "THREAD", "Turn", "Turns", "await_turn", "in_turn"]

_NAP: Final = 0.000_05

P = ParamSpec("P")
R = TypeVar("R")
Turn = dict[int, Any]
THREAD: Final = 0
"""The key of the id of the thread whose turn it is."""
ENDED: Final = 1
"""The key that exists once the turn has ended."""
NEXT: Final = 2
"""The key of the next turn."""


class Turns:
    """The turns of one side. See the module."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: Turn = {ENDED: True}
        """The last turn that began, or an earlier one, if an exception came before it was noted here."""

    def begin(self, turn: Turn) -> None:
        """Begin a turn: wait until no other one runs. The caller ends it, also after an exception of this.

        Errors: as `await_turn`.
        """
        last = self.last
        if ENDED not in last or last.setdefault(NEXT, turn) is not turn:
            await_turn(last, turn)
        self.last = turn


def await_turn(last: Turn, turn: Turn) -> None:
    """Wait for the end of a turn, and of those that follow it, and make `turn` the next one.

    Errors: HandleStateError in a signal handler that interrupts a turn of its thread.
    """
    while True:
        if ENDED in last:
            following = last.setdefault(NEXT, turn)
            if following is turn:
                return
            last = following
        elif last[THREAD] == turn[THREAD]:
            raise HandleStateError(
                "a signal handler uses a channel that its thread was just using when the signal came; set a flag in "
                "the handler, and use the channel in the program"
            )
        else:
            time.sleep(_NAP)


class _Side(Protocol):
    _turns: Turns


S = TypeVar("S", bound=_Side)


def in_turn(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method of one side of a channel exclude other threads while it runs. It must not call another such one."""

    @wraps(method)
    def excluding(self: S, /, *arguments: P.args, **options: P.kwargs) -> R:
        turn: Turn = {THREAD: get_ident()}
        try:
            self._turns.begin(turn)
            return method(self, *arguments, **options)
        finally:
            turn[ENDED] = True

    return excluding
