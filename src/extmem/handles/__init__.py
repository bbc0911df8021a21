"""Owned operating-system handles as types: who holds one closes it, once.

`NtHandle` owns a reference to a shared object, `FdHandle` owns a file descriptor, `KmtHandle` owns nothing.
"""

from extmem.handles._access import Access
from extmem.handles._fd import FdHandle, FdPayload
from extmem.handles._kmt import KmtHandle, is_kmt_value
from extmem.handles._nt import NtHandle
from extmem.handles._owned import OwnedHandle
from extmem.handles._table import HandleEntry, HandleInfo, NtHandleTable

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
