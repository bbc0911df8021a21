"""The id of the current process, cached: each handle, memory object and device belongs to the process that made it.

os.getpid() takes 0.2 µs, and one import would call it six times. So the id is kept. In a forked child it is read again:
the hook of os.register_at_fork runs after each fork that Python makes, and after each fork of a program that embeds
Python and reports its forks (PyOS_AfterFork_Child).
"""

from __future__ import annotations

import os

__all__ = ["current_process"]


class _CurrentProcess:
    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.update()

    def update(self) -> None:
        """Read the id from the system."""
        self.pid = os.getpid()


current_process = _CurrentProcess()
"""`current_process.pid` is os.getpid()."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=current_process.update)
