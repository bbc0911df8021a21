"""Starting a process again, under Wine, that ended before its start was complete.

How this works. Wine's CreateProcess forks, and waits until the new process has reported to the wineserver that it is
ready. Sometimes (once in some ten thousand starts on a busy machine) the process ends before that, and CreateProcess
fails with ERROR_INTERNAL_ERROR. Windows has no such case. Nothing of the program has run by then, so the call is
repeated. Every other error is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["ERROR_INTERNAL_ERROR", "TRIES", "install", "started_again"]

ERROR_INTERNAL_ERROR = 1359
TRIES = 5

P = ParamSpec("P")
R = TypeVar("R")


def started_again(create: Callable[P, R]) -> Callable[P, R]:
    """Return `create` wrapped so that it is called up to TRIES times while it fails with ERROR_INTERNAL_ERROR."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for last in range(TRIES - 1):
            try:
                return create(*args, **kwargs)
            except OSError as error:
                if getattr(error, "winerror", None) != ERROR_INTERNAL_ERROR:
                    raise
            time.sleep(0.1 * (last + 1))
        return create(*args, **kwargs)

    return call


def install() -> None:
    """Make subprocess and multiprocessing, which look the function up at each call, start processes in this way."""
    import _winapi

    module: Any = _winapi
    module.CreateProcess = started_again(module.CreateProcess)
