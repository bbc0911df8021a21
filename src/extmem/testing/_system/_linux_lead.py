"""What a peer on Linux gets: it inherits its end of the pipe, and SIGUSR1 asks it where it hangs."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is Linux's; extmem.testing._system picks what the system has")

import faulthandler
import signal
import subprocess
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["PYTHON", "Connection", "Lead", "python_variables", "receive"]

PYTHON = sys.executable
"""The Python to start when the process itself is wanted, not its parent."""


def python_variables() -> dict[str, str]:
    """What its environment needs besides."""
    return {}


class Lead:
    """This side's part. pipe: the peer's end, the caller's; `arguments` and `options` go into the peer's start."""

    def __init__(self, pipe: int) -> None:
        self.arguments = [str(pipe)]
        self.passed = [pipe]
        self.options: dict[str, Any] = {}

    def hold(self, process: subprocess.Popen[Any]) -> None:
        """The peer was started."""

    def ask_where(self, process: subprocess.Popen[Any]) -> None:
        """Have the peer write its stacks."""
        process.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        """Let go of it."""


def receive() -> int:
    """The peer's side: its end of the pipe; from now on it can be asked where it hangs."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    return int(sys.argv[1])
