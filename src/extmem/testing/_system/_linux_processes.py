"""Finding processes by an entry of their environment, in /proc, and checking whether a broker serves."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is Linux's; extmem.testing._system picks what the system has")

import contextlib
import os
import signal
import socket
from pathlib import Path

from extmem.wire.runtime_dir import RuntimeDir

__all__ = ["KILL", "TEMPORARY", "broker_serves", "started_with"]

KILL = signal.SIGKILL
TEMPORARY: str | None = "/tmp"
"""Where runtime directories are created. It is short because the path of a Unix socket has at most 107 bytes."""


def started_with(variable: str, value: str) -> dict[int, str]:
    """Return the pid and command line of each other process whose environment had variable=value when it started."""
    mark = f"{variable}={value}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # A process may end meanwhile, and those of other users cannot be read.
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found[int(entry.name)] = command
    return found


def broker_serves(path: Path) -> bool:
    """Return whether the broker of this runtime directory accepts connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(RuntimeDir(path).socket)) == 0
