"""Closes file descriptors in threads where close(2) may block, so that the broker's loop does not wait.

How this works. close(2) of a file that a program serves (FUSE) waits for that program; the last close of a GPU's memory
waits for the driver, and that of much host memory for the kernel. Threads do it; each is started when all others are
busy. Files that cannot be a payload (`Sort.STRANGE`) have threads of their own, so that a program that never answers
does not delay the closing of payloads. The number of such files that wait is counted for each user, and the loop closes
the connections of a user who has too many (`LIMIT`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, deque
from typing import Final

from extmem.broker.fd_inspection import Sort, look

__all__ = ["LIMIT", "FdCloser"]

_THREADS: Final = 8
"""Number of threads of each pool, at most."""
LIMIT: Final = 64
"""Number of files of one user that cannot be a payload and wait to be closed, at most."""
_LARGE: Final = 1 << 20
"""Bytes of a memory file from which on the kernel may take long to free them."""


class FdCloser:
    """The file descriptors that wait to be closed, and the threads that close them. Ownership: they are closed here."""

    def __init__(self) -> None:
        self._strange = _Pool()
        self._drivers = _Pool()

    @property
    def waiting(self) -> int:
        """The number of file descriptors that are not closed yet."""
        return self._strange.waiting() + self._drivers.waiting()

    def crowded(self, uid: int) -> bool:
        """Return whether the user has reached the limit of files that cannot be a payload and wait to be closed."""
        return self._strange.waiting(uid) >= LIMIT

    def dispose(self, fd: int, uid: int) -> bool:
        """Close a file descriptor that a process of that user sent and that does not belong to a payload.

        Return whether its file is of a sort that cannot be a payload.
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
        """Close a payload's file descriptor in a thread."""
        self._drivers.close(fd, uid)


class _Pool:
    """Threads that close, and their queue."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._queue: deque[tuple[int, int]] = deque()
        self._pending: Counter[int] = Counter()
        self._threads = self._idle = 0

    def waiting(self, uid: int | None = None) -> int:
        """Return how many are not closed yet, of all users or of one."""
        if not self._pending:
            return 0
        with self._ready:
            return self._pending.total() if uid is None else self._pending[uid]

    def close(self, fd: int, uid: int) -> None:
        """Queue the file descriptor for a thread."""
        with self._ready:
            self._queue.append((fd, uid))
            self._pending[uid] += 1
            if self._idle < len(self._queue) and self._threads < _THREADS:
                self._threads += 1
                threading.Thread(target=self._work, name="extmem-broker-closing", daemon=True).start()
            self._ready.notify()

    def _work(self) -> None:
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
