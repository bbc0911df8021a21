"""The private directory, broker and processes of a benchmark. All of them end with the benchmark, in any case."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from extmem.cli._worker import Worker

__all__ = ["Environment"]


class Environment:
    """A private runtime directory with worker processes. On Linux the workers share a broker of their own.

    Use it with `contextlib.closing`.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="extmem-bench-"))
        self.workers: list[Worker] = []
        self._mark = secrets.token_hex(4)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that make a process use this broker."""
        return {"EXTMEM_RUNTIME_DIR": str(self.directory)}

    def name(self, label: str) -> str:
        """Return a name for a payload. It is unique, because on Windows all programs of a session share their names."""
        return f"bench {self._mark} {label}"

    def worker(self, title: str) -> Worker:
        """Start a worker process in this environment."""
        worker = Worker(title, self.variables)
        self.workers.append(worker)
        return worker

    def dismiss(self, worker: Worker) -> None:
        """End one worker now."""
        self.workers.remove(worker)
        worker.close()

    def close(self) -> None:
        """End all processes and remove the directory."""
        for worker in self.workers:
            worker.close()
        if sys.platform == "linux":
            from extmem.cli._bench.machine import end_broker

            end_broker(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
