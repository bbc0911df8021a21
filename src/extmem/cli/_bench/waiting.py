"""Wait for a condition with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_for"]


def wait_for(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until the condition is true, at most `timeout` seconds. Return whether it is."""
    end = time.monotonic() + timeout
    pause = 0.001
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True
