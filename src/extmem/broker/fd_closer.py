"""Closing descriptors that may take their time, beside the loop.

How this works. close(2) of a file that a program serves (FUSE) waits for that program; the last close of a GPU's memory
waits for the driver, and that of much host memory for the kernel. Threads do it, each started when all before it are
busy. Files that no driver gives have threads of their own, so that a program that never answers delays nobody else; how
many of them each user has left there is counted, and the loop hangs up on users who leave too many (`LIMIT`).
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import os
import threading
from collections import Counter, deque
from typing import Final

from extmem.broker.fd_inspection import Sort, look

__all__ = ["LIMIT", "FdCloser"]

_THREADS: Final = 8
"""Threads of each pool, at most."""
LIMIT: Final = 64
"""Files of one user that no driver gives and that may wait to be closed."""
_LARGE: Final = 1 << 20
"""Bytes of a memory file from which on the kernel may take a while to give them back."""


class FdCloser:
    """The descriptors that wait to be closed, and the threads that do it. Ownership: what is given is closed here."""

    def __init__(self) -> None:
        self._strange = _Pool()
        self._drivers = _Pool()

    @property
    def waiting(self) -> int:
        """Descriptors that are not closed yet."""
        return self._strange.waiting() + self._drivers.waiting()

    def crowded(self, uid: int) -> bool:
        """Whether so many strange files of that user wait to be closed that it gets no more of them in."""
        return self._strange.waiting(uid) >= LIMIT

    def dispose(self, fd: int, uid: int) -> bool:
        """Close a descriptor that a process of that user gave and that belongs to no payload: soon, or at once.

        Whether it is of a file that no driver gives.
        """
        try:
            sort = look(fd)
        except OSError:
            sort = Sort.STRANGE
        if sort is Sort.PROCESS or (sort is Sort.MEMFD and os.fstat(fd).st_blocks * 512 < _LARGE):
            os.close(fd)
        else:
            (self._strange if sort is Sort.STRANGE else self._drivers).close(fd, uid)
        return sort is Sort.STRANGE

    def close(self, fd: int, uid: int) -> None:
        """Close a payload's descriptor soon."""
        self._drivers.close(fd, uid)


class _Pool:
    """Threads that close, and what they have to do."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._queue: deque[tuple[int, int]] = deque()
        self._pending: Counter[int] = Counter()
        self._threads = self._idle = 0

    def waiting(self, uid: int | None = None) -> int:
        """How many are not closed yet, of all users or one."""
        if not self._pending:
            return 0
        with self._ready:
            return self._pending.total() if uid is None else self._pending[uid]

    def close(self, fd: int, uid: int) -> None:
        """Have a thread close it."""
        with self._ready:
            self._queue.append((fd, uid))
            self._pending[uid] += 1
            if self._idle < len(self._queue) and self._threads < _THREADS:
                self._threads += 1
                threading.Thread(target=self._background, name="extmem-broker-closing", daemon=True).start()
            self._ready.notify()

    def _background(self) -> None:
        while True:
            with self._ready:
                self._idle += 1
                while not self._queue:
                    self._ready.wait()
                self._idle -= 1
                fd, uid = self._queue.popleft()
            with contextlib.suppress(OSError):
                os.close(fd)
            with self._ready:
                self._pending[uid] -= 1
                if not self._pending[uid]:
                    del self._pending[uid]
