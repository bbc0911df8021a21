"""Which process this is: every handle, memory object and device belongs to one, and a forked child has none of them.

Asking the system takes a fifth of a microsecond, and one import would ask six times. So the answer is kept, and each
fork that Python knows of (its own, and those of servers that embed it and say so) asks again in the child.
"""

from __future__ import annotations

import os

__all__ = ["HERE"]


class _Here:
    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.look()

    def look(self) -> None:
        self.pid = os.getpid()


HERE = _Here()
"""`HERE.pid` is os.getpid()."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HERE.look)
