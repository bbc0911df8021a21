"""Writing at the end of a process the misuses that its fake driver noted."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence

__all__ = ["EXIT_MISUSE", "tell_at_exit"]

EXIT_MISUSE = 70
"""The exit code of a process whose fake driver noted a misuse."""


def tell_at_exit(misuses: Sequence[object]) -> None:
    """At the end of this process write the contents of `misuses` to stderr; if there are any, exit with EXIT_MISUSE."""
    atexit.register(_write, misuses)


def _write(misuses: Sequence[object]) -> None:
    if misuses:
        for misuse in misuses:
            sys.stderr.write(f"{misuse}\n")
        sys.stderr.flush()
        os._exit(EXIT_MISUSE)  # a function of atexit cannot set the exit code otherwise
