"""File descriptors of the C runtime, and HANDLEs, on Windows."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are calls of Windows; extmem.owning imports the module of this system")

import ctypes
import os
from collections.abc import Iterator
from typing import Final

__all__ = ["FIRST", "FIRST_NATIVE", "close_native", "duplicating", "fds_in_use"]

FIRST: Final = 0
"""Lowest number of an owned fd. No payload has an fd on Windows."""
FIRST_NATIVE: Final = 0
"""Lowest value of a payload's HANDLE."""
_ntdll = ctypes.WinDLL("ntdll")
close_native = _ntdll.NtClose
"""Closes a HANDLE. Its result is not needed, because the handle belongs to this process."""
close_native.restype, close_native.argtypes = ctypes.c_long, [ctypes.c_size_t]


def duplicating(fd: int) -> Iterator[int]:
    """Return an iterator that duplicates an fd, not inheritable, and yields the copy."""
    return map(os.dup, (fd,))


def fds_in_use() -> tuple[int, int]:
    """Return 0 and no limit: no payload has an fd here, and the system states no limit of HANDLEs."""
    return 0, -1
