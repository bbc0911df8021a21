"""Parts of `extmem bench channel`: single calls in one process, and what opening and closing leaves.

How this works.

1. *calls*: a writer and a reader in one process, so that nobody waits. `write()` alone is a block of it with nothing in
   it and no reader; `read()` finds a frame that was published just before. iceoryx2's calls of the same purpose run in
   turns with them: to loan, to send and to notify; to wait for a notification that is there, and to receive.
2. *opens*: one process opens and closes a channel 1,000 times, another creates and closes channels 1,000 times. Then
   both must have as many fds, mappings and threads as before, and the broker as many fds and payloads.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import extmem
from extmem.cli._bench.channel_bounds import bounded
from extmem.cli._bench.measure import Figure, interleaved, microseconds, percentile, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark counts fds and mappings by /proc of Linux")

from extmem.cli._bench.channel_peers import ICEORYX, Iceoryx, remove_iceoryx
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import allow_descriptors, broker_of, descriptors_at_rest, descriptors_of
from extmem.cli._bench.waiting import wait_for

__all__ = ["calls", "opens"]

_SIZE = 1 << 20
_WARM_UP = 10
_at: dict[str, Any] = {}


def calls(env: Environment, missing: Mapping[str, str], rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Measure single calls `rounds` times."""
    report(f"write() and read() of a frame that is ready, {rounds} times")
    worker = env.worker("caller")
    try:
        written, read, viewed = worker.call(f"{__name__}:time_calls", env.name("calls"), rounds)
        theirs = [] if ICEORYX in missing else worker.call(f"{__name__}:time_iceoryx", str(env.directory), rounds)
    finally:
        env.dismiss(worker)
        remove_iceoryx(str(env.directory))
    yield bounded("write() alone", "write() alone, p50", percentile(written, 0.5) / 1000)
    yield bounded("read() of a ready frame", "read() of a ready frame, p50", percentile(read, 0.5) / 1000)
    yield microseconds("view() of a frame that was read, p50", viewed)
    if theirs:
        yield microseconds("iceoryx2: loan, send and notify, p50", theirs[0])
        yield microseconds("iceoryx2: wait and receive, when notified, p50", theirs[1])
        yield microseconds("iceoryx2: payload().as_memory_view() of a sample, p50", theirs[2])
    else:
        yield unbounded(f"the calls of iceoryx2: {missing[ICEORYX]}", 0, "not measured")


def opens(env: Environment, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Open and close a channel, and create and close one, `rounds` times each."""
    allow_descriptors()
    report(f"opening and closing, and creating and closing, {rounds} times")
    writer, reader, name = env.worker("writer"), env.worker("reader"), env.name("opens")
    writer.call(f"{__name__}:publish_one", name)
    reader.call(f"{__name__}:open_and_close", name, 1)
    writer.call(f"{__name__}:create_and_close", f"{name} again", 1)
    broker = broker_of(env.directory)
    before = descriptors_at_rest(broker)
    grown = {
        "open_channel() and close()": reader.call(f"{__name__}:open_and_close", name, rounds, deadline=600.0),
        "create_channel() and close()": writer.call(
            f"{__name__}:create_and_close", f"{name} again", rounds, deadline=600.0
        ),
    }
    wait_for(lambda: descriptors_of(broker) <= before, 10.0)
    for what, counts in grown.items():
        for label, count in counts.items():
            yield bounded("more after open and close", f"{label} after {rounds} times {what}", count)
    more = descriptors_at_rest(broker) - before
    yield bounded("more after open and close", f"fds of the broker after {rounds} times both", max(0, more))
    for worker in (reader, writer):
        env.dismiss(worker)


# Tasks of the processes.


def time_calls(name: str, rounds: int) -> tuple[list[int], list[int], list[int]]:
    """Return the nanoseconds of write() while nobody reads, of read() of a frame that is ready, and of its view()."""
    now = time.perf_counter_ns
    with extmem.create_channel(name, (_SIZE,), "uint8", slots=4) as writer:

        def write() -> int:
            begin = now()
            with writer.write():
                pass
            return now() - begin

        (written,) = interleaved(rounds, write)
        with extmem.open_channel(name) as reader:

            def read() -> int:
                with writer.write():
                    pass
                begin = now()
                with reader.read():
                    pass
                return now() - begin

            def view() -> int:
                with writer.write():
                    pass
                with reader.read() as frame:
                    begin = now()
                    frame.view()
                    return now() - begin

            spent, viewed = interleaved(rounds, read, view)
    return written, spent, viewed


def time_iceoryx(folder: str, rounds: int) -> tuple[list[int], list[int], list[int]]:
    """Return the nanoseconds of iceoryx2's calls for the same."""
    now, owner = time.perf_counter_ns, Iceoryx(folder)
    try:
        wait, receive = owner.receiver("calls")
        send = owner.sender("calls", _SIZE)

        def write() -> int:
            begin = now()
            send()
            spent = now() - begin
            wait()
            receive()
            return spent

        def read() -> int:
            send()
            begin = now()
            wait()
            receive()
            return now() - begin

        def view() -> int:
            send()
            wait()
            sample = receive()
            begin = now()
            sample.payload().as_memory_view()
            return now() - begin

        written, spent, viewed = interleaved(rounds, write, read, view)
    finally:
        owner.close()
    return written, spent, viewed


def publish_one(name: str) -> None:
    """Writer: create the channel that is opened, with one frame, and keep it."""
    _at["channel"] = extmem.create_channel(name, (4096,), "uint8", slots=3)
    with _at["channel"].write():
        pass


def open_and_close(name: str, rounds: int) -> dict[str, int]:
    """Reader: open, read a frame, close. Return how much more the process has afterwards."""

    def once(number: int) -> None:
        with extmem.open_channel(name) as channel, channel.read():
            pass

    return _grown(once, rounds)


def create_and_close(name: str, rounds: int) -> dict[str, int]:
    """Writer: create, write a frame, close. Return how much more the process has afterwards."""

    def once(number: int) -> None:
        with extmem.create_channel(name, (4096,), "uint8", slots=3) as channel, channel.write():
            pass

    return _grown(once, rounds)


def _grown(once: Callable[[int], None], rounds: int) -> dict[str, int]:
    _counts()
    for number in range(_WARM_UP):  # what is made once for all channels exists from now on
        once(number)
    before = _counts()
    for number in range(rounds):
        once(number)
    after: dict[str, int] = {}

    def settled() -> bool:
        after.update(_counts())
        return all(after[what] <= before[what] for what in before)

    wait_for(settled, 10.0)
    return {what: max(0, after[what] - before[what]) for what in before}


def _counts() -> dict[str, int]:
    from extmem.manager import manager

    gc.collect()
    return {
        "fds": descriptors_of(os.getpid()),
        "mappings": Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").count("/memfd:"),
        "threads": len(os.listdir("/proc/self/task")),
        "payloads": len(manager().snapshot()),
    }
