"""Types for operating-system handles. An owning handle is closed exactly once.

`NtHandle` owns a reference to a shared object, `FdHandle` owns a file descriptor, `KmtHandle` owns nothing.
`fd_payload` is imported by the modules that need it: opening a device does not.
"""

from __future__ import annotations

from extmem.handles._access import Access
from extmem.handles._fd import FdHandle
from extmem.handles._kmt import KmtHandle, is_kmt_value
from extmem.handles._nt import NtHandle
from extmem.handles._owned import OwnedHandle
from extmem.handles._table import HandleEntry, HandleInfo, NtHandleTable

__all__ = [
    "Access",
    "FdHandle",
    "HandleEntry",
    "HandleInfo",
    "KmtHandle",
    "NtHandle",
    "NtHandleTable",
    "OwnedHandle",
    "is_kmt_value",
]
