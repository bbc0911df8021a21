"""Wait for the end of a thread. Before a fork the library ends its threads, so that a child is forked without them."""

from __future__ import annotations

import os
import threading
import time

__all__ = ["join_thread"]


def join_thread(thread: threading.Thread, seconds: float) -> bool:
    """Wait for a thread that was requested to end, at most this many seconds. Return whether it has ended."""
    deadline = time.monotonic() + seconds
    thread.join(seconds)
    if thread.is_alive():
        return False
    # Before Python 3.13, join() may return shortly before the thread of the system ends.
    task = f"/proc/self/task/{thread.native_id}"
    while os.path.exists(task) and time.monotonic() < deadline:
        time.sleep(0)
    return True
