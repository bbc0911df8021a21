"""CUDA calls that take a resource, recorded together with the calls that release it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap
from operator import itemgetter
from typing import Any

from extmem.owning import Owner, do_last

__all__ = ["Undo", "take", "undo_all"]

Undo = list[tuple[Any, ...]]
"""Calls that release resources, each with its arguments, in the order in which the resources were taken."""


def undo_all(undo: Undo) -> None:
    """Release everything, in reverse order. The results of the calls are ignored: nothing else could be done."""
    while undo:
        do_last(undo)


def take(undo: Undo, step: tuple[Any, ...], call: Any, *arguments: Any, consumes: Owner | None = None) -> Any:
    """Make a CUDA call, and record the call that releases its result, in one call of C code. Return its answer.

    The answer begins with the CUresult. step: the releasing call and its arguments, `...` for the result. If the answer
    is an error, nothing is recorded. consumes: an owner whose resource the call takes over if it succeeds.
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
