"""A benchmark's own directory and object manager, and the processes that use it; all gone at the end, in any case."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from extmem.cli._worker import Worker

__all__ = ["House"]


class House:
    """A runtime directory of its own. On Linux its workers share a broker that nobody else knows of."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="extmem-bench-"))
        self.workers: list[Worker] = []
        self._mark = secrets.token_hex(4)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find this house's broker."""
        return {"EXTMEM_RUNTIME_DIR": str(self.directory)}

    def name(self, what: str) -> str:
        """A name for a payload; on Windows every program of the session sees it, so it is like no other."""
        return f"bench {self._mark} {what}"

    def worker(self, title: str) -> Worker:
        """A new process in this house."""
        worker = Worker(title, self.environment)
        self.workers.append(worker)
        return worker

    def dismiss(self, worker: Worker) -> None:
        """End a worker before the others."""
        self.workers.remove(worker)
        worker.close()

    def close(self) -> None:
        """End every process and remove the directory."""
        for worker in self.workers:
            worker.close()
        if sys.platform == "linux":
            from extmem.cli._bench.machine import end_broker

            end_broker(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
