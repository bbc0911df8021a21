"""`Lock`: a lock that an exception of a signal handler does not leave held.

How this works. `with lock:` calls `__enter__` before the block that `__exit__` ends. Python 3.14 runs signal handlers
after that call if it is C code, as in the locks of `threading`; an exception then leaves the lock held for ever. Here
`__enter__` is a Python function, after whose return no handler runs before the block. Inside it, acquiring the lock is
recorded in the same call of C code, so that an exception can release the lock again. The end of the block is the method
of the lock of `threading`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import starmap
from operator import attrgetter
from typing import Any, Final

__all__ = ["Lock"]

_ONCE: Final = ((),)


class Lock:
    """A lock for `with`. reentrant: whether the thread that holds it may acquire it again."""

    __slots__ = ("_leave", "_lock")

    def __init__(self, *, reentrant: bool = False) -> None:
        self._lock: Any = threading.RLock() if reentrant else threading.Lock()
        self._leave: Callable[[Any, Any, Any], Any] = self._lock.__exit__

    def __enter__(self) -> None:
        acquired: list[bool] = []
        try:
            acquired.extend(starmap(self._lock.acquire, _ONCE))
        except BaseException:
            if acquired:
                self._lock.release()
            raise

    __exit__: Any = property(attrgetter("_leave"))
    """The method of the lock of `threading`: a Python function could be interrupted before it releases the lock."""
