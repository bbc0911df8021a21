"""Distinguishes exceptions of the program's signal handlers from those of calls of the system.

How this works. A handler runs between any two instructions of the main thread, and its exception is raised there. A
handler that raises TimeoutError after `signal.alarm` is the usual way to limit the time of a call. If its exception
were taken for an error of the call that it interrupted, it would be lost. The traceback shows the difference: a call of
the system raises in a frame of this library, a handler in a frame of its own function.
"""

from __future__ import annotations

__all__ = ["raised_by_handler"]


def raised_by_handler(error: BaseException) -> bool:
    """Return whether a function outside this library raised the exception, as a signal handler does."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] != "extmem"
