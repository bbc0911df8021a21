"""Part of `extmem bench channel`: one hop of a payload from one Python process to another that waits for it.

How this works. A hop is half of a round: the first process sends a payload, the second receives it and sends one back,
which the first receives. Every way runs between the same two processes, with payloads of 8 bytes and of 8 MiB, in five
runs; in each run all ways have their turns, in an order that changes from run to run. p50 and p90 of a way are those of
its best run, since other programs can only add to a time. `async for` of channels awaits in the first process and
blocks in the second; what it takes longer is twice the difference of the hops.

The second process is started by `multiprocessing` ("spawn"), so that it inherits pipes, queues and semaphores.
"""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from extmem.cli._bench.measure import percentile

if sys.platform != "linux":
    raise ImportError("this benchmark measures the host device of Linux")

from extmem.cli._bench.channel_peers import PEERS, PIPE, QUEUE, Inherited, Place

__all__ = ["Spent", "measure"]

SIZES = {"8 B": 8, "8 MiB": 8 << 20}
_DEADLINE = 60.0
_SLOW = {PIPE, QUEUE}
"""Ways that take milliseconds for 8 MiB."""

Spent = dict[tuple[str, str], list[tuple[float, float]]]
"""p50 and p90 of one hop in nanoseconds in each run, by way and size."""


def measure(folder: str, label: str, ways: list[str], runs: int, rounds: int) -> Spent:
    """First process: start the second one and measure. rounds: of each way in a run; fewer for slow ones."""
    spawning = multiprocessing.get_context("spawn")
    inherited = Inherited(max(SIZES.values()))
    ours, theirs = spawning.Pipe()
    second = spawning.Process(target=_second, args=(theirs, inherited, folder, label), daemon=True)
    second.start()
    theirs.close()
    spent: Spent = {}
    try:
        for size_name, size in SIZES.items():
            ends = {}
            for way in ways:
                ours.send((way, size))
                ends[way] = PEERS[way](Place(folder, f"{label} {size}", size, True), inherited)
                _receive(ours)
            gc.collect()
            gc.disable()
            for run in range(-1, runs):  # the first warms up
                for way in ways[run % len(ways) :] + ways[: run % len(ways)]:
                    count = _count(way, size, rounds)
                    ours.send((way, count if run >= 0 else max(3, count // 20)))
                    _receive(ours)
                    times = _rounds(ends[way].send, ends[way].receive, count if run >= 0 else max(3, count // 20))
                    if run >= 0:
                        spent.setdefault((way, size_name), []).append(
                            (percentile(times, 0.5) / 2, percentile(times, 0.9) / 2)
                        )
            gc.enable()
            ours.send(None)
            _receive(ours)
            for end in ends.values():
                end.close()
        ours.send(None)
    finally:
        gc.enable()
        ours.close()
        second.join(5)
        second.kill()
        inherited.close()
    return spent


def _count(way: str, size: int, rounds: int) -> int:
    if size < 1 << 20:
        return rounds
    return max(3, rounds // 100) if way in _SLOW else max(3, rounds // 10) if way == "pyzmq" else rounds


def _receive(connection: Connection) -> Any:
    if not connection.poll(_DEADLINE):
        raise RuntimeError(f"the second process did not reply within {_DEADLINE:g} s")
    return connection.recv()


def _rounds(send: Callable[[int], None], receive: Callable[[], int], count: int) -> list[int]:
    times, now = [], time.perf_counter_ns
    for number in range(1, count + 1):
        begin = now()
        send(number)
        answer = receive()
        times.append(now() - begin)
        if answer != number:
            raise RuntimeError(f"payload {answer} came back, and {number} had been sent")
    return times


def _second(connection: Connection, inherited: Inherited, folder: str, label: str) -> None:
    gc.disable()
    for size in SIZES.values():
        ends = {}
        while (asked := connection.recv()) is not None:
            way, count = asked
            if way not in ends:
                ends[way] = PEERS[way](Place(folder, f"{label} {size}", size, False), inherited)
                connection.send(True)
                continue
            connection.send(True)
            send, receive = ends[way].send, ends[way].receive
            for _ in range(count):
                send(receive())
        connection.send(True)
        for end in ends.values():
            end.close()
