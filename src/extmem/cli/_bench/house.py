"""A private object manager for a benchmark, and the processes that use it; all gone at the end, whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from extmem.cli._worker import Worker

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and host device; there is none to measure here")

import resource

__all__ = ["House", "allow_descriptors", "descriptors_of", "resident_kib", "wait_for", "waited_ns"]


def allow_descriptors() -> None:
    """Raise this process's limit of open descriptors, and so its children's and its broker's, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class House:
    """A runtime directory of its own. Workers started here share a broker that nobody else knows of."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="extmem-bench-"))
        self.workers: list[Worker] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find this house's broker."""
        return {"EXTMEM_RUNTIME_DIR": str(self.directory)}

    def worker(self, title: str) -> Worker:
        """A new process in this house."""
        worker = Worker(title, self.environment)
        self.workers.append(worker)
        return worker

    def dismiss(self, worker: Worker) -> None:
        """End a worker before the others."""
        self.workers.remove(worker)
        worker.close()

    def broker(self) -> int:
        """The pid of the broker that listens here; 0 for none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(str(self.directory / "broker.sock"))
            except OSError:
                return 0
            # The kernel says who listens: struct ucred, pid first.
            return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    def close(self) -> None:
        """End every process and remove the directory."""
        for worker in self.workers:
            worker.close()
        pid = self.broker()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if not _gone(pid, 5.0):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _gone(pid: int, patience: float) -> bool:
    try:
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), patience)
    except TimeoutError:
        return False
    return True


def wait_for(condition: Callable[[], bool], patience: float) -> None:
    """Ask until it is true. TimeoutError after `patience` seconds."""
    end = time.monotonic() + patience
    pause = 0.001
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:g} s in vain")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def descriptors_of(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_kib(pid: int) -> int:
    """How much memory of a process is in RAM (VmRSS), in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"process {pid} has no memory; it has ended")


def waited_ns(pid: int) -> int:
    """How long a process's main thread was ready to run and had no processor, in nanoseconds since it began."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1])
