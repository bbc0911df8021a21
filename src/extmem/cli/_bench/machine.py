"""What Linux tells of processes and of their broker, for benchmarks: descriptors, memory, waiting, who listens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from extmem.cli._bench.waiting import wait_for

if sys.platform != "linux":
    raise ImportError("the object manager that is looked at here is Linux's broker, a process; elsewhere there is none")

import resource

__all__ = [
    "allow_descriptors",
    "broker_of",
    "descriptors_of",
    "end_broker",
    "on_processor",
    "processors",
    "resident_kib",
    "waited_ns",
]


def allow_descriptors() -> None:
    """Raise this process's limit of open descriptors, and so its children's and its broker's, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def broker_of(directory: Path) -> int:
    """The pid of the broker that listens in this runtime directory; 0 for none."""
    from extmem.wire.runtime_dir import RuntimeDir

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(RuntimeDir(directory).socket))
        except OSError:
            return 0
        # The kernel says who listens: struct ucred, pid first.
        return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def end_broker(directory: Path) -> None:
    """End the broker that listens there, for sure."""
    pid = broker_of(directory)
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not _gone(pid, 5.0):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _gone(pid: int, patience: float) -> bool:
    try:
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), patience)
    except TimeoutError:
        return False
    return True


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


def processors() -> list[int]:
    """The numbers of the processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def on_processor(number: int, *pids: int) -> Iterator[None]:
    """Run these processes on one processor, for the time of the block.

    Which processor the kernel picks is luck, and lasts. Waking up a process of another one takes several times as long.
    """
    before = {pid: os.sched_getaffinity(pid) for pid in pids}
    try:
        for pid in pids:
            os.sched_setaffinity(pid, {number})
        yield
    finally:
        for pid, allowed in before.items():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, allowed)
