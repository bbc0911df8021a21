"""The watcher: a daemon thread that detects the end of the broker while this process does not send requests.

How this works. The thread waits in poll(2) for the end of the connection (never for input: replies are read by the
thread that sent the request) and for the wake pipe. When the connection ends, it makes the client connect again and
announce what it holds. If that fails (no broker can be started now), it tries again after growing pauses, while there
is something to announce. The wake pipe also reports that something could not be released yet, or that a child is being
started to which tickets must be bound.

The thread ends before this process forks, and another one starts afterwards (`pause`, `resume`): in the child of a
process with threads, locks may be held that no thread releases, and Python warns of it. A fork does not wait for a
thread that does something long (the broker does not answer).
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
import weakref
from typing import Final, Protocol

from extmem.errors import ExtmemError
from extmem.owning import Lock, join_thread, pipes_and_sockets

__all__ = ["Watched", "Watcher"]

_FIRST_RETRY: Final = 0.02
_LAST_RETRY: Final = 1.0
_BIRTH: Final = 2
"""Milliseconds between two checks whether a child that is being started has a pid."""
_LATER: Final = 1_000
"""Milliseconds until a failed release is tried again."""
_FORK: Final = 0.2
"""Seconds that a fork waits for the end of the thread."""
_EMPTY_PATIENCE: Final = 2.0
"""Seconds for which a process that holds nothing tries to connect to the new broker, which may wait for it."""


class Watched(Protocol):
    """What the watcher needs of a client (`connection.Connection`)."""

    @property
    def connected(self) -> socket.socket | None:
        """The socket of its broker; None without one."""

    @property
    def unfinished(self) -> bool:
        """Whether it holds something that it has not announced to a broker yet."""

    def work(self) -> bool:
        """Do the deferred work. Return whether a child that is being started has no pid yet. Raises as requests do."""

    def reconnect(self, seen: socket.socket | None) -> bool:
        """Connect to the next broker, unless the socket is another than `seen`. Return whether that is done."""


class Watcher:
    """The thread and its wake pipe. It does not keep the client alive."""

    def __init__(self, client: Watched) -> None:
        self._client = weakref.ref(client)
        self._receiving, self._sending = pipes_and_sockets.pipe(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stop = False
        self._halt = False
        """Whether the thread must end, finally (`_stop`) or for a fork. Call `wake` after setting it."""
        self._lock = Lock()
        self._running = False
        """Whether a thread runs that has not decided to end. Changed under `_lock`."""
        self._thread = threading.Thread()
        with self._lock:
            self._begin()

    def wake(self) -> None:
        """Wake the thread. Never blocks: if the pipe is full, the thread wakes in any case."""
        try:
            os.write(self._sending.fd, b"!")
        except (BlockingIOError, OSError):
            return

    def stop(self) -> None:
        """End the thread."""
        self._stop = True
        self._halt = True
        self.wake()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()

    def pause(self) -> None:
        """Before a fork: end the thread, unless it takes long."""
        thread = self._thread
        if not thread.is_alive() or thread is threading.current_thread():
            return
        self._halt = True
        self.wake()
        join_thread(thread, _FORK)

    def resume(self) -> None:
        """After a fork, in the parent: start a thread again."""
        with self._lock:
            if not self._stop:
                self._halt = False
                if not self._running:
                    self._begin()

    def after_fork(self) -> None:
        """In the child, where the thread does not exist."""
        self._receiving.close()
        self._sending.close()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="extmem-broker-watcher", daemon=True)
        self._running = True
        try:
            self._thread.start()
        except RuntimeError:
            self._running = (
                False  # the interpreter is ending, or there are too many threads: the client works without a watcher
            )

    def _run(self) -> None:
        while not self._ends():
            client = self._client()
            if client is None:
                return
            try:
                patience = _BIRTH if client.work() else None
            except (ExtmemError, OSError):
                patience = _LATER  # for example, the broker does not answer: the next caller gets the error
            sock = client.connected
            if client.unfinished:
                self._again(client)
                continue
            fd = -1 if sock is None else sock.fileno()
            del client
            if self._hung_up(fd, patience):
                client = self._client()
                if client is not None and client.connected is sock:
                    self._again(client)

    def _ends(self) -> bool:
        """Return whether the thread must end. It counts as ended from then on."""
        with self._lock:
            self._running = not self._halt
            return not self._running

    def _hung_up(self, fd: int, patience: int | None) -> bool:
        waiting = select.poll()
        waiting.register(self._receiving.fd, select.POLLIN)
        if fd >= 0:
            waiting.register(fd, 0)
        for ready, event in waiting.poll(patience):
            if ready == self._receiving.fd:
                self._drain()
            elif event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                return True
        return False

    def _drain(self) -> None:
        try:
            while os.read(self._receiving.fd, 4_096):
                pass
        except BlockingIOError:
            return

    def _again(self, client: Watched) -> None:
        seen = client.connected
        pause = _FIRST_RETRY
        started = time.monotonic()
        while not self._halt:
            try:
                if client.reconnect(seen):
                    return
            except (ExtmemError, OSError):
                pass  # the next caller gets the error; the watcher tries again
            if not client.unfinished and time.monotonic() > started + _EMPTY_PATIENCE:
                return
            self._wait(pause)
            pause = min(2 * pause, _LAST_RETRY)

    def _wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as the thread is to end.

        It waits for the wake pipe: an Event of `threading` has a lock, which an exception of a signal handler in
        `set` leaves held.
        """
        until = time.monotonic() + seconds
        while not self._halt and (left := until - time.monotonic()) > 0:
            self._hung_up(-1, math.ceil(left * 1_000))
