"""What unpickling gives for a reference that cannot be claimed: an object that is closed, and says why.

How this works. `multiprocessing` unpickles in threads of its own (a Pool's result thread, an executor's); an exception
there kills the thread, and whoever waits for the result waits for ever. So unpickling does not raise where a reference
cannot be claimed. It gives an object of the right type that is closed from the start; each of its verbs raises the
reason, in the caller. `closed` is true, and closing it does nothing, as for any other closed one.
"""

from __future__ import annotations

from typing import NoReturn, TypeAlias

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

    def __init__(self, reason: Reason) -> None:
        self._closed = True
        self._arrays, self._gpu_holds = [], []
        self._reason = reason

    @property
    def record(self) -> NoReturn:
        """Raises why there is none."""
        raise self._reason.with_traceback(None)

    _facts = record  # what the base class keeps; there is nothing of the kind here

    def close(self) -> None:
        """Nothing is to be given back."""

    def __repr__(self) -> str:
        return f"<DeviceMemory {_STATE}: {self._reason}>"


class UnclaimedHandle(NtHandle):
    """An NT handle that was sent and could not be received."""

    __slots__ = ("_reason",)

    def __init__(self, reason: Reason) -> None:
        self._table = manager()
        self._entry = HandleEntry(self._table)
        self._pid = current_process.pid
        self._state, self._value = _STATE, 0
        self._reason = reason

    def check_open(self) -> NoReturn:
        """Raises why it is not."""
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
        """Raises why it is not."""
        raise self._reason.with_traceback(None)

    __int__ = __reduce__ = check_open
