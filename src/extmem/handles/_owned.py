"""What every owned handle shares: its states and the verbs that lead from one to the next.

::

    open --close()--> closed         the reference is given back to the system
    open --take()---> taken          somebody else owns the raw value now; nobody here will close it
    closed, taken --close()--> same  (closing is safe twice, and after a `close` that raised it is tried again)

Every other verb needs the open state. Any verb may be called from any thread: it works on the handle's own object, or
raises HandleStateError. A handle that is lost while open warns (ResourceWarning) and is closed.
"""

from __future__ import annotations

import abc
import sys
import warnings
from types import TracebackType
from typing import NoReturn, Self

from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process

__all__ = ["CLOSED", "OPEN", "TAKEN", "OwnedHandle"]

OPEN, CLOSED, TAKEN, FORKED = "open", "closed", "taken", "left behind by fork"


class OwnedHandle(abc.ABC):
    """Base of `NtHandle` and `FdHandle`."""

    __slots__ = ("__weakref__", "_pid", "_state", "_value")

    _word = "handle"

    def __init__(self, value: int) -> None:
        self._value = value
        self._pid = current_process.pid
        self._state = OPEN

    # What a kind of handle defines.

    @abc.abstractmethod
    def _close(self) -> None:
        """Give the reference back; what must be tried again is left for the next call. Called in any state."""

    @abc.abstractmethod
    def take(self) -> int:
        """Stop owning and return a raw value: closing it is now the caller's duty."""

    # The verbs.

    @property
    def closed(self) -> bool:
        """True once closed or taken."""
        return self._state is not OPEN

    def close(self) -> None:
        """Give the reference back, when no other thread uses it any more. Safe to call twice; no effect after `take`.

        Called again after it raised, it tries again.
        """
        if self._pid != current_process.pid:
            if self._state is OPEN:
                self._state = FORKED
            return
        self._close()

    def check_open(self) -> None:
        """Raises HandleStateError unless the handle is open, and this process's (for the library itself)."""
        if self._state is not OPEN:
            raise HandleStateError(
                f"this {self._word} ({self._value:#x}) is {self._state}; its value may be another object's by now, "
                "so use a handle that is still open"
            )
        if self._pid != current_process.pid:
            raise HandleStateError(
                f"this {self._word} ({self._value:#x}) belongs to process {self._pid}, and this is its forked child "
                f"{current_process.pid}; start children with spawn and pass the handle, or open the name again"
            )

    def __int__(self) -> int:
        self.check_open()
        return self._value

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> NoReturn:
        raise UnsupportedError(
            f"{self!r} is not copied by the copy module: duplicate() makes another handle to the same object, which is "
            "closed by itself",
            requires_one_of=["duplicate()"],
        )

    def __deepcopy__(self, memo: dict[int, object]) -> NoReturn:
        self.__copy__()

    def __repr__(self) -> str:
        state = "" if self._state is OPEN else f", {self._state}"
        return f"{type(self).__name__}({self._value:#x}{state})"

    @property
    @abc.abstractmethod
    def _origin(self) -> object:
        """See `Held.origin`: a warning that is kept must not keep the handle open."""

    def __del__(self) -> None:
        # It warns, and nothing more: what the handle holds is an `Owner`, which gives itself back.
        if getattr(self, "_state", CLOSED) is OPEN and not sys.is_finalizing() and self._pid == current_process.pid:
            warnings.warn(
                f"unclosed {type(self).__name__}({self._value:#x})", ResourceWarning, source=self._origin, stacklevel=2
            )
