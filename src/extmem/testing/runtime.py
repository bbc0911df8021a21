"""An object manager of one's own: a private runtime directory, torn down for sure.

A program's broker is found through its runtime directory, so a process whose EXTMEM_RUNTIME_DIR is a fresh directory
shares nothing with any other. Every process that was started with it can be told by its environment, which is how
`close` ends what is left, and how `processes` finds the broker without asking it.
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
    """A private runtime directory. `environment` makes another process use it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="extmem-", dir=TEMPORARY))

    @property
    def environment(self) -> dict[str, str]:
        """What a child's environment needs to use this runtime."""
        return {VARIABLE: str(self.path)}

    def processes(self) -> dict[int, str]:
        """Living processes that were started with this runtime, the broker among them: pid to command line."""
        return started_with(VARIABLE, str(self.path))

    def serving(self) -> bool:
        """Whether a broker takes connections. LookupError on Windows, which has none."""
        return broker_serves(self.path)

    def broker_pid(self) -> int | None:
        """The broker's process, None if none runs."""
        return next((pid for pid, command in self.processes().items() if "extmem.broker" in command), None)

    def kill_broker(self, number: int = KILL, *, required: bool = True) -> int | None:
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
