"""A process that a fake driver serves tells at its end what it did wrong."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence

__all__ = ["EXIT_MISUSE", "tell_at_exit"]

EXIT_MISUSE = 70
"""What a process ends with whose fake noted a misuse."""


def tell_at_exit(misuses: Sequence[object]) -> None:
    """When this process ends, write what is in `misuses` by then to stderr, and end with EXIT_MISUSE if that is any."""
    atexit.register(_tell, misuses)


def _tell(misuses: Sequence[object]) -> None:
    if misuses:
        for misuse in misuses:
            sys.stderr.write(f"{misuse}\n")
        sys.stderr.flush()
        os._exit(EXIT_MISUSE)  # atexit has no other way to say it
