"""`Lock`: a lock that no exception of a signal handler leaves held.

How this works. `with lock:` calls `__enter__` before the block that `__exit__` ends. Python 3.14 runs signal handlers
after that call where it is one of C code, as the locks of `threading` have it: an exception then leaves the lock held
for good. Here `__enter__` is a function of Python, after whose return no handler runs before the block. What takes the
lock within it is noted in the same call of C code, so that an exception in it lets go again. The end of the block is
the method of the lock itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import starmap
from typing import Any, Final

__all__ = ["Lock"]

_ONCE: Final = ((),)


class Lock:
    """A lock for `with`. reentrant: whether its thread may take it again."""

    __slots__ = ("_lock",)

    def __init__(self, *, reentrant: bool = False) -> None:
        self._lock: Any = threading.RLock() if reentrant else threading.Lock()

    def __enter__(self) -> None:
        got: list[bool] = []
        try:
            got.extend(starmap(self._lock.acquire, _ONCE))
        except BaseException:
            if got:
                self._lock.release()
            raise

    @property
    def __exit__(self) -> Callable[[Any, Any, Any], Any]:
        """The lock's own: a function of Python could be interrupted before it lets go."""
        leave: Callable[[Any, Any, Any], Any] = self._lock.__exit__
        return leave
