"""Stopping a process with SIGSTOP, and waiting until it has stopped."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from extmem.testing.waiting import wait_until


def stop(pid: int) -> None:
    """Send SIGSTOP and wait until each of the process's threads has stopped; until then one may still take a lock."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _states(pid) == {"T"}, f"all threads of process {pid} to stop")


def _states(pid: int) -> set[str]:
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found.add((thread / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0])
    return found
