"""File descriptors on Linux."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("these are calls of Linux; extmem.owning imports the module of this system")

import fcntl
import os
from collections.abc import Iterator
from itertools import starmap
from os import close as close_native
from typing import Final

__all__ = ["FIRST", "FIRST_NATIVE", "close_native", "duplicating", "fds_in_use"]

FIRST: Final = 3
"""Lowest number of an owned fd. 0, 1 and 2 are the standard streams, which other code writes to by number."""
FIRST_NATIVE: Final = FIRST
"""Lowest number of the fd of a payload."""


def duplicating(fd: int) -> Iterator[int]:
    """Return an iterator that duplicates an fd, close-on-exec, and yields the copy."""
    return starmap(fcntl.fcntl, ((fd, fcntl.F_DUPFD_CLOEXEC, FIRST),))


def fds_in_use() -> tuple[int, int]:
    """Return how many fds this process has open, and how many it may have; -1 for no limit. Nothing is imported."""
    limit = os.sysconf("SC_OPEN_MAX")  # the soft limit RLIMIT_NOFILE
    try:
        return len(os.listdir("/proc/self/fd")) - 1, limit  # not the one of the list itself
    except OSError:  # there is no fd left for the list
        return limit, limit
