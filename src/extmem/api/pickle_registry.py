"""Registers the pickling of memory and handles with `copyreg`. The module `pickling` is imported on its first use.

A KMT handle is pickled as its number.
"""

from __future__ import annotations

import copyreg
from functools import partial
from typing import Any

from extmem import _pickles
from extmem.api.device import DeviceMemory
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.owning import late_imports

__all__: list[str] = []


def _reduce(name: str, value: object) -> tuple[Any, ...]:
    with late_imports():
        from extmem.api import pickling

    return getattr(pickling, name)(value)  # type: ignore[no-any-return]


copyreg.pickle(DeviceMemory, partial(_reduce, "reduce_memory"))
copyreg.pickle(NtHandle, partial(_reduce, "reduce_nt_handle"))
copyreg.pickle(FdHandle, partial(_reduce, "reduce_fd_handle"))
copyreg.pickle(KmtHandle, lambda handle: (_pickles.receive_kmt_handle, (int(handle),)))
