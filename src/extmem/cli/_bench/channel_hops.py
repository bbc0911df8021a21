"""Part of `extmem bench channel`: one hop of a payload from one Python process to another that waits for it.

How this works. A hop is half of a round: the first process sends a payload, the second receives it and sends one back,
which the first receives. The payload is in hand then, whether it was looked at or not; the libraries without copies are
measured in both ways, and what copies is compared with the slower one. Every way runs between the same two processes,
with payloads of 8 bytes and of 8 MiB, in five runs; in each run all ways have their turns, in an order that changes
from run to run. p50 and p90 of a way are those of its best run, since other programs can only add to a time.
`async for` awaits in the first process while the second blocks, so what it takes longer is twice the difference of the
hops.

The second process is started by `multiprocessing` ("spawn"), so that it inherits pipes, queues and semaphores.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeAlias

from extmem.cli._bench.channel_bounds import bounded
from extmem.cli._bench.measure import Figure, percentile, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures channels on Linux")

from extmem.cli._bench.channel_ends import AWAITED, CHANNEL, CHANNEL_READ, WAYS
from extmem.cli._bench.channel_peers import (
    ICEORYX,
    ICEORYX_READ,
    PIPE,
    PYZMQ,
    QUEUE,
    SEMAPHORE,
    UNREAD,
    Inherited,
    Place,
    remove_iceoryx,
)
from extmem.cli._bench.environment import Environment
from extmem.cli._worker import end_with

__all__ = ["SIZES", "Hop", "figures", "measure"]

SIZES = {"8 B": 8, "8 MiB": 8 << 20}
_SHARES = {PYZMQ: 10, PIPE: 100, QUEUE: 100}
"""Ways that copy 8 MiB take milliseconds for it, and have fewer rounds by this factor."""
_LEAST = 4
_DEADLINE = 60.0


class Hop(NamedTuple):
    """Nanoseconds of one hop: p50 and p90, each of the run in which it was least."""

    p50: float
    p90: float


Hops: TypeAlias = dict[tuple[str, str], Hop]
"""By way and size."""


def figures(
    env: Environment, missing: Mapping[str, str], runs: int, rounds: int, report: Callable[[str], None]
) -> Iterator[Figure]:
    """Measure `rounds` rounds of each way in each of `runs` runs. missing: ways that cannot be measured, and why."""
    ways = [way for way in WAYS if way not in missing]
    report(f"one hop, {rounds} times in each of {runs} runs: {', '.join(ways)}")
    worker = env.worker("first")
    try:
        hops: Hops = worker.call(
            f"{__name__}:measure", str(env.directory), env.name("hops"), ways, runs, rounds, deadline=1800.0
        )
    finally:
        env.dismiss(worker)
        remove_iceoryx(str(env.directory))
    for size in SIZES:
        yield from _compared(hops, size, missing)
    for (way, size), hop in hops.items():
        yield unbounded(f"one hop of {size}, {way}: p50", hop.p50 / 1000, "µs")
        yield unbounded(f"one hop of {size}, {way}: p90", hop.p90 / 1000, "µs")


def _compared(hops: Hops, size: str, missing: Mapping[str, str]) -> Iterator[Figure]:
    own, what = hops[CHANNEL, size], f"one hop of {size}"
    for mine, theirs in ((CHANNEL, ICEORYX), (CHANNEL_READ, ICEORYX_READ)):
        against = f"against {theirs}"
        if theirs in missing:
            yield unbounded(f"{what}, {against}: {missing[theirs]}", 0, "not measured")
            continue
        ours, other = hops[mine, size], hops[theirs, size]
        yield bounded("one hop, p50, against iceoryx2", f"{what}, p50, {against}", ours.p50 / other.p50)
        yield bounded("one hop, p90, against iceoryx2", f"{what}, p90, {against}", ours.p90 / other.p90)
    yield unbounded(f"{what}, p50, against a bare POSIX semaphore", own.p50 / hops[SEMAPHORE, size].p50, "ratio")
    longer = max(0.0, 2 * (hops[AWAITED, size].p50 - own.p50)) / 1000
    yield bounded("async for, longer than read()", f"{what}: async for, longer than read()", longer)
    if size != "8 MiB":
        return
    own = hops[CHANNEL_READ, size]
    for way in (PYZMQ, PIPE, QUEUE):
        name = f"{what}, times as fast as {way}"
        if way in missing:
            yield unbounded(f"{name}: {missing[way]}", 0, "not measured")
        elif way == QUEUE:
            yield unbounded(name, hops[way, size].p50 / own.p50, "ratio")
        else:
            yield bounded(name, name, hops[way, size].p50 / own.p50)


# Tasks of the processes.


def measure(folder: str, label: str, ways: Sequence[str], runs: int, rounds: int) -> Hops:
    """First process: start the second one, and return the hops of each way and size."""
    spawning = multiprocessing.get_context("spawn")
    inherited = Inherited(max(SIZES.values()))
    ours, theirs = spawning.Pipe()
    second = spawning.Process(target=_second, args=(theirs, inherited, folder, label, os.getpid()), daemon=True)
    second.start()
    theirs.close()
    hops: Hops = {}
    try:
        for name, size in SIZES.items():
            ends = {}
            for way in ways:
                ours.send((way, size))
                ends[way] = WAYS[way](Place(folder, f"{label} {way} {size}", size, True), inherited)
                _wait_for_reply(ours)
            for way, found in _runs(ours, ends, ways, size, runs, rounds).items():
                hops[way, name] = best(found)
            ours.send(None)
            _wait_for_reply(ours)
            for end in ends.values():
                end.close()
    finally:
        ours.close()
        second.join(5)
        second.kill()
        inherited.close()
    return hops


def best(runs: Sequence[Hop]) -> Hop:
    """Return p50 and p90, each of the run in which it was least."""
    return Hop(*(min(column) for column in zip(*runs, strict=True)))


def _runs(
    connection: Connection, ends: Mapping[str, Any], ways: Sequence[str], size: int, runs: int, rounds: int
) -> dict[str, list[Hop]]:
    """Return p50 and p90 of one hop in each run, for each way."""
    found: dict[str, list[Hop]] = {way: [] for way in ways}
    for run in range(-1, runs):  # the first warms up
        turn = run % len(ways)
        for way in (*ways[turn:], *ways[:turn]):
            count = rounds if size < SIZES["8 MiB"] else rounds // _SHARES.get(way, 1)
            count = max(_LEAST, count if run >= 0 else count // 10)
            connection.send((way, count))
            _wait_for_reply(connection)
            gc.collect()
            gc.disable()
            try:
                times = asyncio.run(_awaited(ends[way], count)) if way == AWAITED else _blocked(ends[way], count)
            finally:
                gc.enable()
            if run >= 0:
                found[way].append(Hop(percentile(times, 0.5) / 2, percentile(times, 0.9) / 2))
    return found


def _wait_for_reply(connection: Connection) -> None:
    if not connection.poll(_DEADLINE):
        raise RuntimeError(f"the second process did not reply within {_DEADLINE:g} s")
    connection.recv()


def _check(number: int, answer: int) -> None:
    if answer not in (number, UNREAD):
        raise RuntimeError(f"payload {number} was sent, and {answer} came back")


def _blocked(end: Any, count: int) -> list[int]:
    times, now, send, receive = [], time.perf_counter_ns, end.send, end.receive
    for number in range(count):
        begin = now()
        send(number)
        answer = receive()
        times.append(now() - begin)
        _check(number, answer)
    return times


async def _awaited(end: Any, count: int) -> list[int]:
    times: list[int] = []
    now, send = time.perf_counter_ns, end.send
    number, begin = 0, now()
    send(number)
    async for answer in end.received():
        times.append(now() - begin)
        _check(number, answer)
        number += 1
        if number == count:
            break
        begin = now()
        send(number)
    return times


def _second(connection: Connection, inherited: Inherited, folder: str, label: str, parent: int) -> None:
    """Second process: send back what it receives, as often as it is told."""
    end_with(parent)
    gc.disable()
    for size in SIZES.values():
        ends: dict[str, Any] = {}
        while (asked := connection.recv()) is not None:
            way, count = asked
            if way not in ends:
                ends[way] = WAYS[way](Place(folder, f"{label} {way} {size}", size, False), inherited)
                connection.send(True)
                continue
            connection.send(True)
            send, receive = ends[way].send, ends[way].receive
            for _ in range(count):
                send(receive())
        connection.send(True)
        for end in ends.values():
            end.close()
