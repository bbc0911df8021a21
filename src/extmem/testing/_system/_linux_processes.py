"""Which living processes were started with a given entry in their environment, by /proc; and asking for a broker."""

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
"""Where runtime directories are made. Short: a Unix socket's path has 107 bytes at most."""


def started_with(variable: str, value: str) -> dict[int, str]:
    """Every other living process whose environment had variable=value when it started: pid to command line."""
    mark = f"{variable}={value}".encode()
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


def broker_serves(path: Path) -> bool:
    """Whether the broker of this runtime directory takes connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(RuntimeDir(path).socket)) == 0
