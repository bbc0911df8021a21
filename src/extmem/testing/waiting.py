"""Waiting for a condition with a deadline, in place of a sleep that may be too short."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["DEADLINE", "DeadlineError", "wait_until"]

DEADLINE = 100.0
"""Seconds after which a wait fails. They are many, because machines may be slow."""

T = TypeVar("T")


class DeadlineError(AssertionError):
    """The condition did not become true before the deadline."""


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], *, deadline: float = DEADLINE) -> T:
    """Call `condition` again and again until it returns a true value, and return that.

    what: what is waited for, or a function that returns it with the present state, for the message of DeadlineError.
    deadline: seconds.
    Errors: DeadlineError.
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
