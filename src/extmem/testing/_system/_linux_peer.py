"""How a peer on Linux gets its pipe, by inheritance, and how it is made to write its stacks, by SIGUSR1."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is Linux's; extmem.testing._system picks what the system has")

import faulthandler
import signal
import subprocess
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["PYTHON", "Connection", "PeerChannel", "python_variables", "receive_pipe"]

PYTHON = sys.executable
"""The Python executable to start. On Windows it differs from `sys.executable` in a virtual environment."""


def python_variables() -> dict[str, str]:
    """Return the environment variables that PYTHON needs to find the virtual environment."""
    return {}


class PeerChannel:
    """What the starting process passes to a peer.

    pipe: the fd of the peer's end of the pipe; the caller owns it. `arguments`, `passed` (fds) and `options` are for
    the Popen that starts the peer.
    """

    def __init__(self, pipe: int) -> None:
        self.arguments = [str(pipe)]
        self.passed = [pipe]
        self.options: dict[str, Any] = {}

    def send_handles(self, process: subprocess.Popen[Any]) -> None:
        """Pass to the started peer what it cannot inherit: nothing, on Linux."""

    def request_stacks(self, process: subprocess.Popen[Any]) -> None:
        """Make the peer write the stacks of its threads."""
        process.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        """Release what the channel holds: nothing, on Linux."""


def receive_pipe() -> int:
    """Return the fd of the peer's end of the pipe; called in the peer. From now on it writes its stacks on request."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    return int(sys.argv[1])
