"""A thread that releases what was garbage-collected, if the release takes more than one call of C code.

How this works. Python runs signal handlers in the main thread only, so they do not interrupt this thread. An `Owner`
that the program has lost may owe a message to the broker, or CUDA calls in a context. Its step then is `step(work)`,
which puts `work` into a queue, in C code. A daemon thread takes `work` from the queue and calls it. `work` makes all
releases of its kind that are due, is safe to repeat, and keeps those that failed for the next request.

The thread starts with the first step. It ends before a fork and starts again afterwards, so that a program without
threads of its own forks without Python's warning about threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

from extmem.errors import ExtmemError
from extmem.owning._join_thread import join_thread
from extmem.owning.lock import Lock
from extmem.owning.owner import Step

__all__ = ["finish", "step"]

Work: TypeAlias = Callable[[], object]

_JOIN_S: Final = 0.2
"""Maximum number of seconds that a fork waits for running work. Then it proceeds, with Python's warning."""
_log = logging.getLogger("extmem")


class _Worker:
    """The queue and its thread. There is one in a process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set the state of a new process: an empty queue, and no thread."""
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        """The thread that was started last; it may have ended for a fork."""
        self._lock = Lock(reentrant=True)
        self._stop_requested = False
        """Whether the thread must end, for a fork."""
        self._running = False
        """Whether there is a thread that will take further work. Changed with `_lock` held."""

    def step(self, work: Work) -> Step:
        """See `step`."""
        if self._thread is None:
            self.start()
        return (self._queue.put, work)

    def start(self) -> None:
        """Start the thread, unless it is running."""
        with self._lock:
            if not self._running:
                thread = threading.Thread(target=self._run, name="extmem-cleanup", daemon=True)
                thread.start()
                self._thread = thread
                self._running = True

    def _run(self) -> None:
        while (work := self._queue.get()) is not None or not self._must_end():
            if work is None:
                continue  # the fork has ended
            try:
                work()
            except (ExtmemError, OSError) as error:
                _log.warning("releasing garbage-collected objects failed: %s; the next call tries again", str(error))
            del work

    def _must_end(self) -> bool:
        """Return whether the thread must end, and record that it takes no further work then."""
        with self._lock:
            self._running = not self._stop_requested
            return self._stop_requested

    def finish(self, seconds: float) -> None:
        """Wait until the work is done that is in the queue now, at most so long."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            done: SimpleQueue[None] = SimpleQueue()
            self._queue.put(partial(done.put, None))
            with contextlib.suppress(Empty):
                done.get(timeout=seconds)

    def stop(self) -> None:
        """End the thread before a fork, once the queued work is done or after `_JOIN_S` seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._stop_requested = True
            self._queue.put(None)
            join_thread(thread, _JOIN_S)

    def restart(self) -> None:
        """Start the thread again after a fork, in the parent."""
        if self._stop_requested:
            with self._lock:
                self._stop_requested = False
                self.start()


_worker = _Worker()
step = _worker.step
"""Return the step of an `Owner` that makes the thread call `work` when the owner is garbage-collected."""
finish = _worker.finish
"""Wait until the work is done that is in the queue now, at most so many seconds."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_worker.stop, after_in_parent=_worker.restart, after_in_child=_worker.reset)
