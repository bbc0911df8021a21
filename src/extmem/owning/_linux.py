"""File descriptors on Linux."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("these are calls of Linux; extmem.owning imports the module of this system")

import fcntl
from collections.abc import Callable
from os import close as close_native
from typing import Final

__all__ = ["FIRST", "FIRST_NATIVE", "close_native", "duplicating"]

FIRST: Final = 3
"""Lowest number of an owned fd. 0, 1 and 2 are the standard streams, which other code writes to by number."""
FIRST_NATIVE: Final = FIRST
"""Lowest number of the fd of a payload."""


def duplicating() -> tuple[Callable[..., int], tuple[int, ...]]:
    """Return the call that duplicates an fd, close-on-exec, and its arguments after the fd."""
    return fcntl.fcntl, (fcntl.F_DUPFD_CLOEXEC, FIRST)
