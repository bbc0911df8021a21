"""A worker that has a worker: run by `extmem.cli._worker` in another process."""

from __future__ import annotations

from extmem.cli._worker import Worker

_kept: list[Worker] = []


def start() -> int:
    """The pid of a worker of this process."""
    _kept.append(Worker("inner"))
    pid: int = _kept[0].call("os:getpid")
    return pid
