"""Waiting for something to become true, with an end. No test sleeps and hopes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["DEADLINE", "DeadlineError", "wait_until"]

DEADLINE = 30.0
"""Seconds after which something that should have happened is taken as never happening. Generous: machines are slow."""

T = TypeVar("T")


class DeadlineError(AssertionError):
    """What was waited for did not happen in time."""


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], *, deadline: float = DEADLINE) -> T:
    """Ask `condition` again and again until it is true, and return its answer.

    what: what is waited for, or a function that says how things stand, for DeadlineError's message.
    """
    end = time.monotonic() + deadline
    pause = 0.000_5
    ticker = threading.Event()
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise DeadlineError(f"waited {deadline:g} s in vain for {what if isinstance(what, str) else what()}")
        ticker.wait(pause)
        pause = min(pause * 2, 0.02)
