"""Which process this is, without a system call each time: the number changes in a forked child."""

from __future__ import annotations

import os

__all__ = ["this_process"]

_pid = os.getpid()


def this_process() -> int:
    """This process's pid."""
    return _pid


def _in_child() -> None:
    global _pid
    _pid = os.getpid()


# Windows has no fork, and so no such hook.
_register = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_in_child)
