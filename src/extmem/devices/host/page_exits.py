"""The normal end of a process, which is written into the pages that it signals, so that it is not told as a death.

How this works. The object manager, or a waiter on Windows, notices that a process has ended, but not how. So a process
that ends normally writes that into its own entry in the table of each page (`PageSignals.mark_leaving`), and nothing
else: it may signal until it has ended, for example in functions of `atexit` that run later. It does so in a function of
`atexit`, and in a child process of `multiprocessing`, which may skip those functions, in a finalizer of that package.
What the program has lost before is closed first, by the cleanup thread.

A program that an exception ended has not ended normally: it may owe a signal. Neither has one that a signal or
`os._exit` ended, for which none of this runs. If this is interrupted (Ctrl-C), some pages are not written, and the end
is told as that of a process that did not close them.

A forked child has no pages of its parent: it forgets them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Any, Final, Protocol
from weakref import WeakSet

from extmem.handles.process_id import current_process
from extmem.owning import cleanup_thread

__all__ = ["leave", "watch"]

_CLOSING_S: Final = 0.5
"""Longest time in seconds that the end of a process waits for the cleanup thread."""
_AFTER_CHILDREN: Final = -1
"""Exit priority of the finalizer: after the process has joined its own children."""


class _Page(Protocol):
    """A page, as this module needs it."""

    def mark_leaving(self) -> None:
        """See `PageSignals`."""


class _Process:
    """The pages of this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set the state of a new process."""
        self.pages: WeakSet[Any] = WeakSet()
        self.finalizer_of = 0
        """The id of this process once it has a page: then it has a finalizer, if `multiprocessing` started it."""
        self.failed = False


_process: Final = _Process()


def watch(page: _Page) -> None:
    """Write the page when this process ends normally. The caller excludes other threads."""
    _process.pages.add(page)
    if _process.finalizer_of != current_process.pid:
        _process.finalizer_of = current_process.pid
        _finalize_in_children()


def _finalize_in_children() -> None:
    """Call `leave` at the end of a child process of `multiprocessing`."""
    package, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if package is not None and util is not None and package.parent_process() is not None:
        util.Finalize(None, leave, exitpriority=_AFTER_CHILDREN)


@atexit.register
def leave() -> None:
    """Write all pages, unless an exception ended the program. Safe to repeat."""
    if not _process.finalizer_of or _failed():
        return  # it never had a page, or may owe a signal
    cleanup_thread.finish(_CLOSING_S)
    for page in list(_process.pages):
        with contextlib.suppress(OSError):  # /proc is not there: the end is told as one without closing
            page.mark_leaving()


def _failed() -> bool:
    """Return whether an exception ended the program: the one that is handled now, or the last one that was printed.

    `multiprocessing` runs finalizers while it handles an exception of the child's function. An interactive interpreter
    goes on after it has printed one.
    """
    error = sys.exc_info()[1]
    if isinstance(error, SystemExit):
        _process.failed |= error.code not in (None, 0)
    elif error is not None or (getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1")):
        _process.failed = True
    return _process.failed


def _forget_after_fork() -> None:
    """A forked child may not use the pages of its parent."""
    _process.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
