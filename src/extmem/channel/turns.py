"""Turns: threads that use one side of a channel take turns in its shortest paths, without the call of a lock.

How this works. Each side has a dictionary for its turn, and a block that needs the turn is::

    turn = (get_ident(),)
    try:
        if turns.setdefault(0, turn) is not turn:
            await_turn(turns, turn)
        …
    finally:
        if turns.get(0) is turn:
            del turns[0]

`setdefault` is one call of C code, so one thread gets the turn. An exception of a signal handler at any point of the
block, also just after that call, ends the turn: whose it is says the dictionary, and not a variable. `owning.Lock`
protects against the same, by a call of a Python function that takes as long as the rest of the path of a frame.
"""

from __future__ import annotations

import time
from typing import Final

from extmem.errors import HandleStateError

__all__ = ["Turns", "await_turn"]

_NAP: Final = 0.000_05


Turn = tuple[int]
"""One block of a thread: its id. Each block has an object of its own."""
Turns = dict[int, Turn]
"""Empty, or with the turn of a thread under the key 0."""


def await_turn(turns: Turns, turn: Turn) -> None:
    """Wait until it is this turn. Errors: HandleStateError in a signal handler that interrupts a turn of its thread."""
    while True:
        other = turns.setdefault(0, turn)
        if other is turn:
            return
        if other == turn:
            raise HandleStateError(
                "a signal handler uses a channel that its thread was just using when the signal came; set a flag in "
                "the handler, and use the channel in the program"
            )
        time.sleep(_NAP)
