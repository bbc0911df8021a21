"""Descriptors of the C runtime and HANDLEs on Windows."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are Windows's calls; extmem.owning picks what the system has")

import ctypes
import os
from collections.abc import Callable
from typing import Final

__all__ = ["FIRST", "FIRST_NATIVE", "close_native", "duplicating"]

FIRST: Final = 0
"""The least descriptor to own: no payload has one here."""
FIRST_NATIVE: Final = 0
"""The least number of a payload's descriptor, which is a HANDLE."""
_ntdll = ctypes.WinDLL("ntdll")
close_native = _ntdll.NtClose
"""Closes a HANDLE. What it returns is of no use where the handle is this process's own."""
close_native.restype, close_native.argtypes = ctypes.c_long, [ctypes.c_size_t]


def duplicating() -> tuple[Callable[..., int], tuple[int, ...]]:
    """The call that duplicates a descriptor, not inheritable, and its arguments behind the descriptor."""
    return os.dup, ()
