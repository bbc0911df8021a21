"""The lock of a client's connection, with one deadline for all threads that wait.

How this works. `with client.lock:` is a turn. Turns of one thread nest. If the broker does not answer, the thread that
sent the request gives up after `timeout` seconds. Threads that queued for their turn before that have waited for the
same broker, and give up with it, instead of one after the other. A thread that has queued for `timeout` seconds gives
up in any case.

An exception of a signal handler does not leave the lock held: that it was taken is recorded in the same call of C code,
and the end of a turn is the lock's own method.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import starmap
from operator import attrgetter
from typing import Final

from extmem.errors import PeerGoneError

__all__ = ["Turns"]

_AT_ONCE: Final = ((False,),)


class Turns:
    """The lock of a client."""

    __slots__ = ("_acquire", "_exit", "_gave_up", "_lock", "_silence", "_timeout")

    __exit__ = property(attrgetter("_exit"))
    """The lock's own method: a Python function could be interrupted before it releases the lock."""

    def __init__(self, timeout: float, silence: Callable[[], str]) -> None:
        """silence: returns the message for a broker that does not answer."""
        self._lock = threading.RLock()
        self._acquire = self._lock.acquire
        self._exit = self._lock.__exit__
        self._timeout = timeout
        self._silence = silence
        self._gave_up = float("-inf")

    def __enter__(self) -> None:
        got: list[bool] = []
        try:
            got.extend(starmap(self._acquire, _AT_ONCE))
            if not got[0]:
                self._queue(got)
        except BaseException:
            if got and got[-1]:
                self._lock.release()
            raise

    def note_silence(self) -> None:
        """Make all threads that have queued by now give up, because the broker does not answer this thread."""
        self._gave_up = time.monotonic()

    def _queue(self, got: list[bool]) -> None:
        began = time.monotonic()
        got.extend(starmap(self._acquire, ((True, self._timeout),)))
        if not got[-1] or self._gave_up >= began:
            raise PeerGoneError(self._silence())
