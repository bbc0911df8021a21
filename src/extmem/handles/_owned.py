"""What every owned handle shares: three states and the verbs that lead from one to the next.

::

    open --close()--> closed         the reference is given back to the system
    open --take()---> taken          somebody else owns the raw value now; nobody here will close it
    closed, taken --close()--> same  (closing is safe twice)

Every other verb needs the open state. A handle that is lost while open says so with a ResourceWarning and is closed.
"""

from __future__ import annotations

import sys
import warnings
from types import TracebackType
from typing import Self

from extmem.errors import HandleStateError
from extmem.handles.here import HERE

__all__ = ["OPEN", "OwnedHandle"]

OPEN, _CLOSED, _TAKEN, _FORKED = "open", "closed", "taken", "left behind by fork"


class OwnedHandle:
    """Base of `NtHandle` and `FdHandle`. Not thread-safe: share the memory, not one handle object."""

    __slots__ = ("__weakref__", "_pid", "_state", "_value")

    _word = "handle"

    def __init__(self, value: int) -> None:
        self._value = value
        self._state = OPEN
        self._pid = HERE.pid

    # What a kind of handle must say of itself.

    def _close(self, value: int) -> None:
        """Give the reference back. Raises if the system refuses; the handle then stays open."""
        raise AssertionError(f"{type(self).__name__} defines _close")  # pragma: no cover

    def _close_lost(self, value: int) -> None:
        """Close from the finalizer: as `_close`, but must not block."""
        self._close(value)

    # The verbs.

    @property
    def closed(self) -> bool:
        """True once closed or taken."""
        return self._state is not OPEN

    def close(self) -> None:
        """Give the reference back. Safe to call twice; does nothing after `take()`."""
        if self._state is not OPEN:
            return
        if self._pid != HERE.pid:
            self._state = _FORKED
            return
        self._close(self._value)
        self._state = _CLOSED

    def take(self) -> int:
        """Stop owning and return the raw value: closing it is now the caller's duty."""
        if self._state is not OPEN or self._pid != HERE.pid:
            int(self)  # says which of the two
        self._state = _TAKEN
        return self._value

    def __int__(self) -> int:
        if self._state is not OPEN:
            raise HandleStateError(
                f"this {self._word} ({self._value:#x}) is {self._state}; its value may be another object's by now, "
                "so use a handle that is still open"
            )
        if self._pid != HERE.pid:
            raise HandleStateError(
                f"this {self._word} ({self._value:#x}) belongs to process {self._pid}, and this is its forked child "
                f"{HERE.pid}; start children with spawn and pass the handle, or open the name again"
            )
        return self._value

    def __enter__(self) -> Self:
        int(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._state is OPEN else f", {self._state}"
        return f"{type(self).__name__}({self._value:#x}{state})"

    def __del__(self) -> None:
        # __init__ may have raised before the state was set; the process's end closes everything anyway.
        if getattr(self, "_state", _CLOSED) is not OPEN or sys.is_finalizing() or self._pid != HERE.pid:
            return
        self._state = _CLOSED
        warnings.warn(f"unclosed {type(self).__name__}({self._value:#x})", ResourceWarning, source=self, stacklevel=2)
        self._close_lost(self._value)
