"""A worker that has a worker: `extmem.cli._worker` runs it in another process."""

from __future__ import annotations

import multiprocessing.connection
import os
import time
from collections.abc import Iterator

from extmem.cli._worker import Worker, end_with

_kept: list[Worker] = []


def start() -> int:
    """Return the pid of a worker of this process."""
    _kept.append(Worker("inner"))
    pid: int = _kept[0].call("os:getpid")
    return pid


def start_busy() -> int:
    """Return the pid of a worker of this process that is in the middle of a task."""
    _kept.append(Worker("inner"))
    _kept[0].start(f"{__name__}:never_end")
    return int(next(_kept[0].stream()))


def never_end() -> Iterator[int]:
    """Yield the pid, and wait."""
    yield os.getpid()
    time.sleep(1000)


def spawn_busy() -> int:
    """Return the pid of a process of `multiprocessing` that is in the middle of a task."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=wait_with_parent, args=(theirs, os.getpid()), daemon=True
    )
    child.start()
    return int(ours.recv())


def wait_with_parent(connection: multiprocessing.connection.Connection, parent: int) -> None:
    """Send the pid, and wait; the parent's end ends it."""
    end_with(parent)
    connection.send(os.getpid())
    time.sleep(1000)
