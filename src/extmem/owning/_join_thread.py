"""The end of a thread before a fork: no child is to be born of a process with threads that are ours."""

from __future__ import annotations

import os
import threading
import time

__all__ = ["join_thread"]


def join_thread(thread: threading.Thread, seconds: float) -> bool:
    """Wait for a thread that was told to end, for so long at most. Whether it has ended."""
    deadline = time.monotonic() + seconds
    thread.join(seconds)
    if thread.is_alive():
        return False
    # Before Python 3.13 a thread that was joined may be a little short of its end.
    task = f"/proc/self/task/{thread.native_id}"
    while os.path.exists(task) and time.monotonic() < deadline:
        time.sleep(0)
    return True
