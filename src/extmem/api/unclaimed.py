"""Results of unpickling for tickets that cannot be claimed: closed objects whose methods raise the reason.

How this works. `multiprocessing` unpickles in its own threads (the result thread of a Pool or of an executor). An
exception ends such a thread, and code that waits for the result waits forever. So unpickling does not raise if a ticket
cannot be claimed. It returns an object of the right type that is closed from the beginning. Each of its methods raises
the reason when the program calls it. `closed` is true, and `close()` does nothing, as for any closed object.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

from extmem.api.device import DeviceMemory
from extmem.handles import FdHandle, HandleEntry, NtHandle
from extmem.handles.process_id import current_process
from extmem.manager import manager
from extmem.owning import OwnedFd

__all__ = ["Reason", "UnclaimedFd", "UnclaimedHandle", "UnclaimedMemory"]

Reason: TypeAlias = Exception
_STATE = "not received"


class UnclaimedMemory(DeviceMemory):
    """Memory that was sent and could not be received."""

    __slots__ = ("_reason",)
    _made_of = Exception

    def __init__(self, reason: Reason) -> None:
        self._closed = True
        self._arrays, self._gpu_holds = [], []
        self._reason = reason

    @property
    def record(self) -> NoReturn:
        """Raises the reason why the memory could not be received."""
        raise self._reason.with_traceback(None)

    _facts = record  # the base class reads its record from this attribute

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def __repr__(self) -> str:
        return f"<DeviceMemory {_STATE}: {self._reason}>"


class UnclaimedHandle(NtHandle):
    """An NT handle that was sent and could not be received."""

    __slots__ = ("_reason",)

    @classmethod
    def _is_from_library(cls, given: tuple[Any, ...]) -> bool:
        return isinstance(given[0], Exception)

    def __init__(self, reason: Reason) -> None:
        self._table = manager()
        self._entry = HandleEntry(self._table)
        self._pid = current_process.pid
        self._state, self._value = _STATE, 0
        self._reason = reason

    def check_open(self) -> NoReturn:
        """Raise the reason why the handle could not be received."""
        raise self._reason.with_traceback(None)

    __int__ = __reduce__ = check_open


class UnclaimedFd(FdHandle):
    """An fd handle that was sent and could not be received."""

    __slots__ = ("_reason",)

    def __init__(self, reason: Reason) -> None:
        self.payload = None
        self._owner = OwnedFd()
        self._pid = current_process.pid
        self._state, self._value = _STATE, -1
        self._reason = reason

    def check_open(self) -> NoReturn:
        """Raise the reason why the handle could not be received."""
        raise self._reason.with_traceback(None)

    __int__ = __reduce__ = check_open
