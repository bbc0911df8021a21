"""Descriptors on Linux."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("these are Linux's calls; extmem.owning picks what the system has")

import fcntl
from collections.abc import Callable
from os import close as close_native
from typing import Final

__all__ = ["FIRST", "FIRST_NATIVE", "close_native", "duplicating"]

FIRST: Final = 3
"""The least descriptor to own. 0, 1 and 2 are standard streams: whatever prints writes to them by number."""
FIRST_NATIVE: Final = FIRST
"""The least number of a payload's descriptor."""


def duplicating() -> tuple[Callable[..., int], tuple[int, ...]]:
    """The call that duplicates a descriptor, close-on-exec, and its arguments behind the descriptor."""
    return fcntl.fcntl, (fcntl.F_DUPFD_CLOEXEC, FIRST)
