"""A worker that has a worker: `extmem.cli._worker` runs it in another process."""

from __future__ import annotations

from extmem.cli._worker import Worker

_kept: list[Worker] = []


def start() -> int:
    """Return the pid of a worker of this process."""
    _kept.append(Worker("inner"))
    pid: int = _kept[0].call("os:getpid")
    return pid
