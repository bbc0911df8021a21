"""Copies to addresses of the host that several threads make together.

How this works. One thread copies some 5 GB/s, which is less than a GPU's link carries. `CopyThreads.begin` divides a
copy into parts, which its threads take from one list, as does the caller while it waits for them (`Copying.finish`). So
a copy needs no thread of its own: a machine with one processor, and a process that cannot start threads, copy alone.
The copies are calls of C code that release the GIL.

The bytes come from another address, or from what a function reads (`Move`): a file. An error of it, in whichever
thread, ends the copy, and is raised by `Copying.finish`.

A copy is done when no part is left and no thread is at work on it. The threads say the second before they take a part.
An exception of a signal handler ends the wait of the caller, which then drops the parts that no thread has taken, and
waits for the others (`Copying.drop`): no byte is written after that.

The threads end after some seconds without work, and before a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

from extmem.owning import Lock, join_thread

__all__ = ["IDLE_S", "CopyThreads", "Copying", "Move", "copy_threads"]

Move: TypeAlias = Callable[[int, int, int], object]
"""Brings bytes to an address. Gets the address, the place that they come from, and how many there are."""

IDLE_S: Final = 10.0
"""Seconds without work after which a thread ends."""
_MOST: Final = 8
"""More threads than this do not copy faster."""
_LEAST_PART: Final = 256 << 10
"""Bytes: a smaller part is not worth the hand-over to a thread."""
_LOOK_S: Final = 0.05
_JOIN_S: Final = 0.2
"""Maximum number of seconds that a fork waits for the threads."""


class Copying:
    """A copy that was begun. It keeps what the addresses belong to until it has ended."""

    __slots__ = ("_active", "_ended", "_failed", "_keep", "_move", "_parts")

    def __init__(self, parts: list[tuple[int, int, int]], keep: object, move: Move = ctypes.memmove) -> None:
        self._move = move
        self._failed: list[BaseException] = []
        """The errors of other threads than the caller's."""
        self._parts = parts
        """Target, source and size of the parts that nobody has taken."""
        self._active: list[None] = []
        """One entry for each thread that may have a part."""
        self._keep = keep
        self._ended: SimpleQueue[None] = SimpleQueue()
        """Has an entry when a thread has found nothing left: it wakes the caller."""

    def take_part(self) -> None:
        """Copy parts until none is left: what the threads call."""
        self._active.append(None)
        try:
            self._copy_parts()
        except BaseException as error:  # noqa: BLE001  # the caller raises it
            self._failed.append(error)
            self._parts.clear()
        finally:
            self._active.pop()
            if not self._parts and not self._active:
                self._ended.put(None)

    def _copy_parts(self) -> None:
        while True:
            try:
                target, source, size = self._parts.pop()
            except IndexError:
                return
            self._move(target, source, size)

    def finish(self) -> None:
        """Copy what is left, and wait until all is copied.

        Errors: those of the function that moves, and of signal handlers; call `drop` then.
        """
        self._copy_parts()
        self._wait()
        if self._failed:
            raise self._failed.pop()

    def drop(self) -> None:
        """Leave out the parts that nobody has taken, and wait for the others."""
        self._parts.clear()
        self._wait()

    def _wait(self) -> None:
        while self._parts or self._active:
            with contextlib.suppress(Empty):
                self._ended.get(timeout=_LOOK_S)
        # A thread may still have to take this copy from its queue, and would keep the program's buffer from changing.
        self._keep = None


class CopyThreads:
    """The threads of one process. They start with the first copy."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set the state of a new process, without threads."""
        self._queue: SimpleQueue[Copying | None] = SimpleQueue()
        self._lock = Lock(reentrant=True)
        self._threads: set[threading.Thread] = set()
        self.idle_s = IDLE_S
        self.when_idle: dict[object, Callable[[], object]] = {}
        """Functions that the last thread calls before it ends, and a fork before it begins, each by a key."""

    def begin(self, target: int, source: int, size: int, keep: object, move: Move = ctypes.memmove) -> Copying:
        """Begin to copy `size` bytes from one address to another. The ranges must not overlap.

        move: copies a part, in any thread; `source` is an address for it, or a place in what it reads.
        keep: what both addresses belong to, kept until the copy has ended. The caller calls `finish`, or `drop`.
        """
        wanted = min(_MOST, max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpus()))
        count = max(1, min(wanted, size // _LEAST_PART))
        each = -(-size // count // 64) * 64
        # The list is taken from its end: the first part comes last in it.
        parts = [(target + at, source + at, min(each, size - at)) for at in range(0, size, each)][::-1]
        copying = Copying(parts, keep, move)
        if count > 1:
            self._start(count - 1)  # the caller copies too
            for _ in range(count - 1):
                self._queue.put(copying)
        return copying

    def _start(self, count: int) -> None:
        with self._lock:
            while len(self._threads) < count:
                thread = threading.Thread(target=self._run, name="extmem-copy", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no thread can be started: the caller copies alone
                    return
                self._threads.add(thread)

    def _run(self) -> None:
        while True:
            try:
                copying = self._queue.get(timeout=self.idle_s)
            except Empty:
                with self._lock:
                    if not self._queue.empty():
                        continue
                    self._threads.discard(threading.current_thread())
                    last = not self._threads
                if last:
                    self._call_idle()
                return
            if copying is None:
                with self._lock:
                    self._threads.discard(threading.current_thread())
                return
            copying.take_part()
            del copying

    def _call_idle(self) -> None:
        for call in list(self.when_idle.values()):
            call()

    def stop(self) -> None:
        """End the threads, and release what is kept for later copies: before a fork."""
        threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            join_thread(thread, _JOIN_S)
        self._call_idle()


def _cpus() -> int:
    return os.cpu_count() or 1


copy_threads: Final = CopyThreads()
"""Those of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=copy_threads.stop, after_in_child=copy_threads.reset)
