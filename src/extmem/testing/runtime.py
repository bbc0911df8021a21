"""An object manager of one's own: a private runtime directory, torn down for sure.

A program's broker is found through its runtime directory, so a process whose EXTMEM_RUNTIME_DIR is a fresh directory
shares nothing with any other. Every process that was started with it can be told by its environment, which is how
`close` ends what is left, and how `processes` finds the broker without asking it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from extmem.testing.waiting import wait_until

__all__ = ["VARIABLE", "Runtime"]

VARIABLE = "EXTMEM_RUNTIME_DIR"
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Runtime:
    """A private runtime directory. `environment` makes another process use it."""

    def __init__(self) -> None:
        # Short: a Unix socket's path has 107 bytes at most.
        self.path = Path(tempfile.mkdtemp(prefix="extmem-", dir="/tmp"))

    @property
    def environment(self) -> dict[str, str]:
        """What a child's environment needs to use this runtime."""
        return {VARIABLE: str(self.path)}

    def processes(self) -> dict[int, str]:
        """Living processes that were started with this runtime, the broker among them: pid to command line."""
        mark = f"{VARIABLE}={self.path}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            # Processes end while we look, and others' are not ours to read.
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(entry.name)] = command
        return found

    def serving(self) -> bool:
        """Whether a broker takes connections."""
        if sys.platform != "linux":
            raise LookupError("only Linux has a broker")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            return probe.connect_ex(str(self.path / "broker.sock")) == 0

    def broker_pid(self) -> int | None:
        """The broker's process, None if none runs."""
        return next((pid for pid, command in self.processes().items() if "extmem.broker" in command), None)

    def kill_broker(self, number: int = _KILL, *, required: bool = True) -> int | None:
        """Send the broker a signal, SIGKILL unless another is given, and wait until it is gone; its pid.

        Errors: LookupError if none runs; not `required`: None then.
        """
        pid = self.broker_pid()
        if pid is None:
            if required:
                raise LookupError(f"no broker runs in {self.path}")
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        wait_until(lambda: pid not in self.processes(), f"broker {pid} to end")
        return pid

    def close(self) -> list[str]:
        """End every process of it and remove the directory. Safe to call twice. What had to be ended."""
        ended: list[str] = []

        def gone() -> bool:
            left = self.processes()
            for pid, command in left.items():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, _KILL)
                    ended.append(f"{pid}: {command}")
            return not left

        wait_until(gone, lambda: f"the processes of {self.path} to end: {self.processes()}")
        shutil.rmtree(self.path, ignore_errors=True)
        return ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
