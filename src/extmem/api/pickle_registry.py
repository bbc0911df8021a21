"""Registers the pickling of memory and handles with `copyreg`. The module `pickling` is imported on its first use.

A KMT handle is pickled as its number.
"""

from __future__ import annotations

import copyreg
from typing import Any

from extmem.api.device import DeviceMemory
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.owning import late_imports

__all__: list[str] = []


def _reduce_memory(memory: DeviceMemory) -> tuple[Any, ...]:
    with late_imports():
        from extmem.api import pickling

    return pickling.reduce_memory(memory)


def _reduce_nt_handle(handle: NtHandle) -> tuple[Any, ...]:
    with late_imports():
        from extmem.api import pickling

    return pickling.reduce_nt_handle(handle)


def _reduce_fd_handle(handle: FdHandle) -> tuple[Any, ...]:
    with late_imports():
        from extmem.api import pickling

    return pickling.reduce_fd_handle(handle)


def _reduce_kmt_handle(handle: KmtHandle) -> tuple[type[KmtHandle], tuple[int]]:
    return KmtHandle, (int(handle),)


copyreg.pickle(DeviceMemory, _reduce_memory)
copyreg.pickle(NtHandle, _reduce_nt_handle)
copyreg.pickle(FdHandle, _reduce_fd_handle)
copyreg.pickle(KmtHandle, _reduce_kmt_handle)
