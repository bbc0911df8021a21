"""What CUDA calls take, and the calls that give it back, recorded together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap
from operator import itemgetter
from typing import Any

from extmem.owning import Owner, do_last

__all__ = ["Undo", "take", "undo_all"]

Undo = list[tuple[Any, ...]]
"""Calls that give back what was taken, each with its arguments, in the order of taking."""


def undo_all(undo: Undo) -> None:
    """Give everything back, last taken first. What these calls return is of no use: there is nothing else to do."""
    while undo:
        do_last(undo)


def take(undo: Undo, step: tuple[Any, ...], call: Any, *arguments: Any, consumes: Owner | None = None) -> Any:
    """Make a CUDA call and record what gives back what it made, in one call of C code. Its answer, CUresult first.

    step: the call that gives it back, and its arguments, `...` for what was made. Where the answer is an error, nothing
    is recorded. consumes: an owner whose thing the call takes over where it succeeds.
    """
    answers: list[Any] = []
    consumed: list[Any] = []
    calls: Iterator[Any] = map(answers.append, starmap(call, (arguments,)))
    if consumes is not None:
        consuming = map(consumed.append, consumes.take_one())
        calls = zip(consuming, calls, strict=False)
    first = map(itemgetter(1), zip(calls, (step[0],), strict=False))
    made = (map(itemgetter(-1), answers) if value is ... else (value,) for value in step[1:])
    undo.extend(zip(first, *made, strict=False))
    if answers[0][0]:
        undo.pop()
        if consumes is not None:
            consumes.owe(consumed)
    return answers[0]
