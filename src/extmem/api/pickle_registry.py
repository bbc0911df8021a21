"""Handles can be pickled wherever devices can be opened: this registers how. What does it, `passing`, comes later.

A KMT handle is a number and travels as one.
"""

from __future__ import annotations

import copyreg
from typing import Any

from extmem.api import operations
from extmem.handles import FdHandle, KmtHandle, NtHandle

__all__: list[str] = []


def _reduce_nt_handle(handle: NtHandle) -> tuple[Any, ...]:
    return operations.pickling.reduce_nt_handle(handle)


def _reduce_fd_handle(handle: FdHandle) -> tuple[Any, ...]:
    return operations.pickling.reduce_fd_handle(handle)


def _reduce_kmt_handle(handle: KmtHandle) -> tuple[type[KmtHandle], tuple[int]]:
    return KmtHandle, (int(handle),)


copyreg.pickle(NtHandle, _reduce_nt_handle)
copyreg.pickle(FdHandle, _reduce_fd_handle)
copyreg.pickle(KmtHandle, _reduce_kmt_handle)
