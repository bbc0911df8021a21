"""Exceptions of the program's signal handlers, told apart from those of the system's calls.

How this works. A handler runs in the middle of whatever the main thread does, and what it raises comes out there. A
handler that raises TimeoutError after `signal.alarm` is the usual way to limit a call; taken for the answer of the call
that it interrupted, its exception would be lost. The traceback tells: a call of the system raises in a frame of this
library, a handler in a frame of its own.
"""

from __future__ import annotations

__all__ = ["raised_by_handler"]


def raised_by_handler(error: BaseException) -> bool:
    """Whether a function outside this library raised it, as a signal handler does."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] != "extmem"
