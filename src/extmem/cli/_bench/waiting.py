"""Wait for a condition with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_for"]


def wait_for(condition: Callable[[], bool], timeout: float) -> None:
    """Wait until the condition is true. Errors: TimeoutError after `timeout` seconds."""
    end = time.monotonic() + timeout
    pause = 0.001
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the condition was not true within {timeout:g} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
