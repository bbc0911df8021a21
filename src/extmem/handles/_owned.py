"""The base class of owned handles: their states, and the methods that change the state.

::

    open --close()--> closed         the reference is released
    open --take()---> taken          the caller owns the raw value, and must close it
    closed, taken --close()--> same  (a second close has no effect; a close that raised is tried again)

Every other method requires the open state. All methods are thread-safe: a method operates on the handle's own object,
or raises HandleStateError. A handle that is garbage-collected while open issues a ResourceWarning and is closed.
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

    _type_text = "handle"

    def __init__(self, value: int) -> None:
        self._value = value
        self._pid = current_process.pid
        self._state = OPEN

    # Subclasses define these.

    @abc.abstractmethod
    def _close(self) -> None:
        """Release the reference. Called in any state, and again after it raised."""

    @abc.abstractmethod
    def take(self) -> int:
        """Stop owning, and return a raw value, which the caller must close."""

    # Methods of all handles.

    @property
    def closed(self) -> bool:
        """True once closed or taken."""
        return self._state is not OPEN

    def close(self) -> None:
        """Release the reference, once no other thread uses it. Safe to call twice; no effect after `take`.

        A call after one that raised tries again.
        """
        if self._pid != current_process.pid:
            if self._state is OPEN:
                self._state = FORKED
            return
        self._close()

    def check_open(self) -> None:
        """Raise HandleStateError unless the handle is open and belongs to this process (for the library itself)."""
        if self._state is not OPEN:
            raise HandleStateError(
                f"this {self._type_text} ({self._value:#x}) is {self._state}; its value may already refer to another "
                "object, so use a handle that is still open"
            )
        if self._pid != current_process.pid:
            raise HandleStateError(
                f"this {self._type_text} ({self._value:#x}) belongs to process {self._pid}, and this is its forked "
                f"child {current_process.pid}; start children with spawn and pass the handle, or open the name again"
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
            f"{self!r} cannot be copied by the copy module: duplicate() makes another handle to the same object, which "
            "is closed separately",
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
        """See `Held.origin`: a warning that is kept must not keep the handle alive."""

    def __del__(self) -> None:
        # Only the warning is issued here: the handle's `Owner` releases the reference by itself.
        if getattr(self, "_state", CLOSED) is OPEN and not sys.is_finalizing() and self._pid == current_process.pid:
            warnings.warn(
                f"unclosed {type(self).__name__}({self._value:#x})", ResourceWarning, source=self._origin, stacklevel=2
            )
