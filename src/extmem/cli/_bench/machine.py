"""Properties of processes and of their broker that Linux reports: fds, memory, waiting times, the listening process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from extmem.cli._bench.waiting import wait_for

if sys.platform != "linux":
    raise ImportError("these functions are for the broker process, which exists on Linux only")

import resource

__all__ = [
    "allow_descriptors",
    "broker_of",
    "descriptors_at_rest",
    "descriptors_of",
    "end_broker",
    "holdings",
    "kib_of",
    "on_processor",
    "processors",
    "resident_kib",
    "waited_ns",
]


def allow_descriptors() -> None:
    """Raise the limit of open fds of this process, and so of its children and its broker, as far as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def broker_of(directory: Path) -> int:
    """Return the pid of the broker that listens in this runtime directory; 0 for none."""
    from extmem.wire.runtime_dir import RuntimeDir

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(RuntimeDir(directory).socket))
        except OSError:
            return 0
        # The kernel reports the listening process: struct ucred, pid first.
        return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def end_broker(directory: Path) -> None:
    """End the broker that listens in this runtime directory."""
    pid = broker_of(directory)
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not wait_for(lambda: not Path(f"/proc/{pid}").exists(), 5.0):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descriptors_of(pid: int) -> int:
    """Return the number of open fds of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def descriptors_at_rest(pid: int) -> int:
    """Return the number of open fds of a process when it has not changed for a quarter of a second.

    If it does not come to rest within ten seconds, return the last number.
    A broker accepts and ends connections in its own time: the probe of `broker_of`, and those of processes that have
    just ended, are still in the number of fds that a single look returns.
    """
    count, since = descriptors_of(pid), time.monotonic()

    def at_rest() -> bool:
        nonlocal count, since
        if (now := descriptors_of(pid)) != count:
            count, since = now, time.monotonic()
        return time.monotonic() - since > 0.25

    wait_for(at_rest, 10.0)
    return count


def holdings() -> dict[str, int]:
    """Return how many fds, memory objects and handles this process has."""
    from extmem.manager import manager

    own = [holder for row in manager().snapshot() for holder in row.holders if holder.pid == os.getpid()]
    return {
        "fds": descriptors_of(os.getpid()),
        "memory objects": sum(holder.references for holder in own),
        "handles": sum(len(holder.handles) for holder in own),
    }


def kib_of(path: str, label: str) -> int:
    """Return the number of KiB in the line `label` of a file in /proc. Errors: OSError if there is no such line."""
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(f"{label}:"):
            return int(line.split()[1])
    raise OSError(f"{path} has no line {label}")


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process (VmRSS) in KiB. Errors: OSError for a process that has ended."""
    return kib_of(f"/proc/{pid}/status", "VmRSS")


def waited_ns(pid: int) -> int:
    """Return the nanoseconds since its start that the main thread of a process was ready and had no processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1])


def processors() -> list[int]:
    """Return the numbers of the processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def on_processor(number: int, *pids: int) -> Iterator[None]:
    """Run these processes on one processor during the block.

    The kernel's choice of processors varies from run to run. To wake up a process on another processor takes several
    times as long.
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
