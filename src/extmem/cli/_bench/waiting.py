"""Waiting for something in a benchmark, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_for"]


def wait_for(condition: Callable[[], bool], patience: float) -> None:
    """Ask until it is true. TimeoutError after `patience` seconds."""
    end = time.monotonic() + patience
    pause = 0.001
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:g} s in vain")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
