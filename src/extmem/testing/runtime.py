"""A private object manager: a runtime directory that is always removed, with the processes that use it.

A program's broker is found through its runtime directory, so a process whose EXTMEM_RUNTIME_DIR is a new directory
shares nothing with any other. Each process that was started with it is recognized by its environment: by that `close`
ends the processes that are left, and `processes` finds the broker without connecting to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from extmem.testing._system import KILL, TEMPORARY, broker_serves, started_with
from extmem.testing.waiting import wait_until

__all__ = ["VARIABLE", "Runtime"]

VARIABLE = "EXTMEM_RUNTIME_DIR"


class Runtime:
    """A private runtime directory. A process uses it if `environment` is part of its environment."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="extmem-", dir=TEMPORARY))

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make a process use this runtime."""
        return {VARIABLE: str(self.path)}

    def processes(self) -> dict[int, str]:
        """Return the pid and command line of each process that was started with this runtime, also of the broker."""
        return started_with(VARIABLE, str(self.path))

    def serving(self) -> bool:
        """Return whether a broker accepts connections. LookupError on Windows, which has no broker."""
        return broker_serves(self.path)

    def broker_pid(self) -> int | None:
        """Return the broker's process id; None if none runs."""
        return next((pid for pid, command in self.processes().items() if "extmem.broker" in command), None)

    def kill_broker(self, number: int = KILL, *, required: bool = True) -> int | None:
        """Send the broker a signal, wait until it has ended, and return its process id.

        number: the signal; SIGKILL if not given.
        required: whether it is an error if none runs; otherwise None is returned.
        Errors: LookupError if none runs and one is `required`.
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
        """Kill each process of it and remove the directory. Return a text of each killed one. Safe to call twice."""
        ended: list[str] = []

        def gone() -> bool:
            left = self.processes()
            for pid, command in left.items():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, KILL)
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
