"""Work for a thread that no signal handler interrupts: giving back what was lost and takes more than one call of C.

How this works. Python runs signal handlers in the main thread alone. An `Owner` that is lost may owe a message to the
broker, or CUDA calls in a context; its step then is `step(work)`, which puts `work` into a queue, in C code. A daemon
thread takes it out and calls it. `work` does everything of its kind that is to be done by then, is safe to repeat, and
leaves what it could not do where the next request finds it.

The thread starts with the first step. It ends before a fork and starts again afterwards, so that a program whose
threads are its own forks without Python's warning.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

from extmem.errors import ExtmemError
from extmem.owning._join_thread import join_thread
from extmem.owning.lock import Lock

if TYPE_CHECKING:
    from extmem.owning.owner import Step

__all__ = ["step"]

Work: TypeAlias = Callable[[], object]

_JOIN_S: Final = 0.2
"""Seconds that a fork waits for work that is under way; then it goes on, with Python's warning."""
_log = logging.getLogger("extmem")


class _Worker:
    """The queue and its thread. One serves the process."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """As in a new process: nothing is queued, and no thread runs."""
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        """The last one that was started; it may have ended for a fork."""
        self._lock = Lock(reentrant=True)
        self._halt = False
        """Whether the thread is to end, for a fork."""
        self._running = False
        """Whether there is a thread that has not decided to end. Changed under `_lock`."""

    def step(self, work: Work) -> Step:
        """See `step`."""
        if self._thread is None:
            self.start()
        return (self._queue.put, work)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if not self._running:
                thread = threading.Thread(target=self._run, name="extmem-cleanup", daemon=True)
                thread.start()
                self._thread = thread
                self._running = True

    def _run(self) -> None:
        while (work := self._queue.get()) is not None or not self._ends():
            if work is None:
                continue  # that fork is over
            try:
                work()
            except (ExtmemError, OSError) as error:
                _log.warning("giving back what was lost: %s; tried again by the next call", error)
            del work

    def _ends(self) -> bool:
        """Whether the thread is to end; then nobody counts on it any more."""
        with self._lock:
            self._running = not self._halt
            return self._halt

    def stop(self) -> None:
        """Before a fork: end the thread when it has done what is queued, unless that takes long."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._halt = True
            self._queue.put(None)
            join_thread(thread, _JOIN_S)

    def go_on(self) -> None:
        """After a fork, in the parent: there is a thread again."""
        if self._halt:
            with self._lock:
                self._halt = False
                self.start()


_worker = _Worker()
step = _worker.step
"""The step of an `Owner` that has `work` called soon by the thread, when the owner is lost."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_worker.stop, after_in_parent=_worker.go_on, after_in_child=_worker.begin_anew)
