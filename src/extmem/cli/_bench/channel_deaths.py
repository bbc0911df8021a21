"""Parts of `extmem bench channel`: processes killed with -9, and who is told, and what can be used again.

How this works.

1. *deaths*: a reader has read the only frame and waits for the next one. The writer is killed, and the time is that
   from the kill to the WriterGoneError in the reader. Every round has a new channel.
2. *holders*: a channel of two slots. One has the newest frame; a reader holds the other. While it lives, the writer
   finds no slot. It is killed, and the next write must find one.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem.cli._bench.channel_bounds import bounded
from extmem.cli._bench.measure import Figure, percentile, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures channels on Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._worker import Worker

__all__ = ["Reserve", "deaths", "holders"]

_SIZE = 1 << 20
_AHEAD = 0.002
"""Seconds between the announcement of a wait and the kill."""
_AT_ONCE = 4
_PATIENCE = 30.0
_at: dict[str, Any] = {}


class Reserve:
    """Worker processes that are started before they are needed, some at a time.

    They have imported extmem and know the broker. No other one starts before they are used up, so that nothing that is
    measured meanwhile competes with it.
    """

    def __init__(self, env: Environment, title: str, count: int) -> None:
        self._env, self._title, self._left = env, title, count
        self._ready: deque[Worker] = deque()

    def take(self) -> Worker:
        """Return one that is ready. Errors: IndexError if `count` were taken."""
        if not self._ready:
            count = min(self._left, _AT_ONCE)
            self._left -= count
            self._ready.extend(self._env.worker(self._title) for _ in range(count))
            for worker in self._ready:
                worker.start(f"{__name__}:prepare")
            for worker in self._ready:
                worker.finish()
        return self._ready.popleft()


def deaths(env: Environment, kills: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Kill `kills` writers."""
    report(f"kill -9 of a writer while a reader waits, {kills} times")
    reader, writers, name = env.worker("reader"), Reserve(env, "writer", kills), env.name("deaths")
    reader.call(f"{__name__}:prepare")
    spent: list[float] = []
    for number in range(kills):
        writer = writers.take()
        writer.call(f"{__name__}:publish_one", f"{name} {number}")
        reader.start(f"{__name__}:wait_for_more", f"{name} {number}")
        answers = reader.stream()
        next(answers)  # it is about to wait
        time.sleep(_AHEAD)
        begin = time.monotonic_ns()
        writer.kill()
        spent.append((next(answers) - begin) / 1e6)
        if next(answers, None) is not None:
            raise RuntimeError("the reader has more to report than the end of its wait")
        env.dismiss(writer)
    env.dismiss(reader)
    what = "kill -9 of the writer to WriterGoneError"
    yield bounded(f"{what}, p50", f"{what}, p50 of {kills}", percentile(spent, 0.5))
    yield bounded(f"{what}, max", f"{what}, max of {kills}", max(spent))


def holders(env: Environment, kills: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Kill `kills` readers that hold a slot."""
    report(f"kill -9 of a reader that holds a slot, {kills} times")
    writer, readers, name = env.worker("writer"), Reserve(env, "holder", kills), env.name("holders")
    writer.call(f"{__name__}:create_two_slots", name)
    failed, spent = 0, []
    for _ in range(kills):
        reader = readers.take()
        reader.call(f"{__name__}:hold_newest", name)
        writer.call(f"{__name__}:write_until_full")
        reader.kill()
        written, took = writer.call(f"{__name__}:write_once")
        failed += not written
        spent.append(took)
        env.dismiss(reader)
    env.dismiss(writer)
    what = "writes without the slot of a killed holder"
    yield bounded(what, f"the next writes that did not find the slot of a killed holder, of {kills}", failed)
    yield unbounded("write() with the slot of a killed holder, p50", percentile(spent, 0.5) / 1000, "µs")


# Tasks of the processes.


def prepare() -> None:
    """Have what a channel needs: the modules, and a connection to the broker."""
    from extmem.manager import manager

    manager().snapshot()
    name = f"bench prepared {os.getpid()}"
    with extmem.create_channel(name, (8,), "uint8", slots=2) as writer, extmem.open_channel(name) as reader:
        with writer.write():
            pass
        with reader.read():
            pass


def publish_one(name: str) -> None:
    """Writer: create the channel, publish one frame, and keep the channel until the process is killed."""
    _at["channel"] = extmem.create_channel(name, (_SIZE,), "uint8", slots=3)
    with _at["channel"].write():
        pass


def wait_for_more(name: str) -> Iterator[int]:
    """Reader: read the frame, and wait for another; yield before the wait, and when it has ended."""
    with extmem.open_channel(name) as channel:
        with channel.read(timeout=_PATIENCE):
            pass
        yield 0
        try:
            channel.read(timeout=_PATIENCE).release()
        except extmem.WriterGoneError:
            ended = time.monotonic_ns()
        else:
            raise RuntimeError("the read succeeded, though nothing was published")
    yield ended


def create_two_slots(name: str) -> None:
    """Writer: create a channel of two slots with one frame."""
    _at["channel"] = extmem.create_channel(name, (_SIZE,), "uint8", slots=2, when_full="raise")
    with _at["channel"].write():
        pass


def hold_newest(name: str) -> None:
    """Holder: hold the newest frame until the process is killed."""
    _at["channel"] = extmem.open_channel(name)
    _at["frame"] = _at["channel"].read(timeout=_PATIENCE).hold()


def write_until_full() -> None:
    """Writer: publish one more frame, and make sure that there is no slot for another."""
    with _at["channel"].write():
        pass
    if write_once()[0]:
        raise RuntimeError("there was a slot for another frame, though both were in use")


def write_once() -> tuple[bool, int]:
    """Writer: return whether there was a slot for a frame, and the nanoseconds."""
    begin = time.perf_counter_ns()
    try:
        with _at["channel"].write():
            pass
    except extmem.ChannelFullError:
        return False, time.perf_counter_ns() - begin
    return True, time.perf_counter_ns() - begin
