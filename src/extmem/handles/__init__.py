"""Types for operating-system handles. An owning handle is closed exactly once.

`NtHandle` owns a reference to a shared object, `FdHandle` owns a file descriptor, `KmtHandle` owns nothing.
"""

from __future__ import annotations

from extmem.handles._access import Access
from extmem.handles._fd import FdHandle
from extmem.handles._kmt import KmtHandle, is_kmt_value
from extmem.handles._nt import NtHandle
from extmem.handles._owned import OwnedHandle
from extmem.handles._table import HandleEntry, HandleInfo, NtHandleTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.handles._payload import FdPayload

__all__ = [
    "Access",
    "FdHandle",
    "FdPayload",
    "HandleEntry",
    "HandleInfo",
    "KmtHandle",
    "NtHandle",
    "NtHandleTable",
    "OwnedHandle",
    "is_kmt_value",
]

if not TYPE_CHECKING:  # a type checker would take this to mean that every name exists

    def __getattr__(name: str) -> object:
        if name != "FdPayload":  # needs msgspec, which opening a device does not need
            raise AttributeError(f"module 'extmem.handles' has no attribute {name!r}")
        from extmem.handles import _payload

        globals()[name] = _payload.FdPayload
        return _payload.FdPayload
