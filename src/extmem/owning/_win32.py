"""File descriptors of the C runtime, and HANDLEs, on Windows."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are calls of Windows; extmem.owning imports the module of this system")

import ctypes
import os
from collections.abc import Callable
from typing import Final

__all__ = ["FIRST", "FIRST_NATIVE", "close_native", "duplicating"]

FIRST: Final = 0
"""Lowest number of an owned fd. No payload has an fd on Windows."""
FIRST_NATIVE: Final = 0
"""Lowest value of a payload's HANDLE."""
_ntdll = ctypes.WinDLL("ntdll")
close_native = _ntdll.NtClose
"""Closes a HANDLE. Its result is not needed, because the handle belongs to this process."""
close_native.restype, close_native.argtypes = ctypes.c_long, [ctypes.c_size_t]


def duplicating() -> tuple[Callable[..., int], tuple[int, ...]]:
    """Return the call that duplicates an fd, not inheritable, and its arguments after the fd."""
    return os.dup, ()
