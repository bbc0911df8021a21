"""`extmem bench broker`: many objects and many clients, against one object and one client in the same run.

Two brokers run at the same time: one with one object and one client, and one with 10,000 objects of 64 client
processes. The same loop runs in a client of each, in turns.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import extmem
from extmem.cli._bench.measure import Figure, at_least, at_most, microseconds, percentile, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and the host device of Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import (
    allow_descriptors,
    broker_of,
    descriptors_at_rest,
    descriptors_of,
    on_processor,
    processors,
    resident_kib,
    waited_ns,
)
from extmem.cli._bench.sharing import SHARE
from extmem.cli._bench.waiting import wait_for
from extmem.cli._worker import Worker

__all__ = ["figures"]

_WINDOW = 0.5
_drawn: list[str] = []


def figures(env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure `rounds` opens of one client in each turn."""
    allow_descriptors()
    objects, clients, turns = (200, 8, 2) if quick else (10_000, 64, 20)
    observer = env.worker("observer")
    observer.call(f"{__name__}:left_over")
    broker = broker_of(env.directory)
    descriptors = descriptors_at_rest(broker)
    report(f"starting {clients} clients")
    others = [env.worker(f"client {number}") for number in range(clients)]
    counts = [objects // clients + (number < objects % clients) for number in range(clients)]
    report(f"sharing {objects} objects")
    for number, client in enumerate(others):
        client.start(SHARE, [(f"bench {number}.{index}", 4096) for index in range(counts[number])])
    for client in others:
        client.finish()
    with contextlib.closing(Environment()) as small:
        small.worker("client").call(SHARE, [("bench 0.0", 4096)])
        single_opener = small.worker("opener")
        # The first of the many clients opens objects of the others.
        names = [f"bench {number}.{index}" for number in range(1, clients) for index in range(counts[number])]
        report(f"one client opens while the others are idle: {2 * turns} turns")
        turned: list[tuple[int, list[int], list[int]]] = []
        first, *_, last = 2 * processors()
        brokers, openers = (broker, broker_of(small.directory)), (others[0].pid, single_opener.pid)
        with on_processor(first, *brokers), on_processor(last, *openers):
            for turn in range(2 * turns):
                delayed = waited_ns(broker) + waited_ns(others[0].pid)
                one = single_opener.call(f"{__name__}:open_some", ["bench 0.0"], rounds, turn)
                many = others[0].call(f"{__name__}:open_some", names, rounds, turn)
                delayed = waited_ns(broker) + waited_ns(others[0].pid) - delayed
                turned.append((delayed, one, many))
    # Slow outliers show the influence of other programs. So only the half of the turns counts in which the two
    # processes waited least for a processor, and of these the median. Clients that are not idle would slow down every
    # turn.
    kept = sorted(turned, key=lambda turn: turn[0])[:turns]
    ratios = [percentile(many, 0.99) / statistics.median(one) for _, one, many in kept]
    times_of_one = [spent for _, one, _ in kept for spent in one]
    times_of_many = [spent for _, _, many in kept for spent in many]
    yield at_most(
        f"p99 of opening with {objects} objects and {clients} clients, against p50 with one object and one client",
        statistics.median(ratios),
        8.0,
    )
    yield microseconds("p50 of opening with one object and one client", times_of_one)
    yield unbounded("p99 of opening with one object and one client", percentile(times_of_one, 0.99) / 1000, "µs")
    yield microseconds(f"p50 of opening with {objects} objects and {clients} clients", times_of_many)
    yield unbounded(
        f"p99 of opening with {objects} objects and {clients} clients", percentile(times_of_many, 0.99) / 1000, "µs"
    )

    report(f"all {clients} clients open at once, in turns with one client alone")
    for number, client in enumerate(others):
        client.call(f"{__name__}:prepare", names, number)
    single: list[float] = []
    together: list[float] = []
    for turn in range(max(2, turns // 2)):
        order = ((single, others[:1]), (together, others))
        for results, workers in order if turn % 2 else reversed(order):
            results.append(_throughput(workers))
    # The speed of the machine changes from second to second, but little within one turn.
    yield at_least(
        f"opens per second of {clients} clients at once, against one client alone",
        statistics.median(many / one for one, many in zip(single, together, strict=True)),
        0.5,
    )
    yield unbounded("opens per second of one client alone", statistics.median(single), "per second")
    yield at_most("memory of the broker (VmRSS)", resident_kib(broker) / 1024, 100, "MiB")

    report("killing all clients")
    for client in others:
        client.process.kill()
    for client in others:
        client.process.wait()
    left = {"objects": objects, "descriptors": objects}

    def settled() -> bool:
        left["objects"] = observer.call(f"{__name__}:left_over")
        left["descriptors"] = descriptors_of(broker) - descriptors
        return all(count <= 0 for count in left.values())

    if not wait_for(settled, 10.0):
        report("the broker has not released everything within 10 s")
    yield at_most("objects left after kill -9 of all clients", left["objects"], 0, "left")
    yield at_most("fds of the broker left after kill -9 of all clients", left["descriptors"], 0, "left")


def _throughput(workers: list[Worker]) -> float:
    # All workers begin at the same time of the machine's clock, after all have received the task.
    begin = time.monotonic() + 0.05 + 0.005 * len(workers)
    for client in workers:
        client.start(f"{__name__}:open_until", begin, begin + _WINDOW)
    return sum(int(client.finish()) for client in workers) / _WINDOW


# Tasks of the processes.


def open_some(names: list[str], count: int, seed: int) -> list[int]:
    """Client: return the nanoseconds of each of `count` opens."""
    times = []
    for name in random.Random(seed).choices(names, k=count):
        start = time.perf_counter_ns()
        memory = extmem.open(name)
        times.append(time.perf_counter_ns() - start)
        memory.close()
    return times


def prepare(names: list[str], seed: int) -> None:
    """Client: draw the names to open. There are so many that one client alone repeats them as rarely as all do."""
    _drawn.clear()
    _drawn.extend(random.Random(seed).choices(names, k=4096))


def open_until(begin: float, end: float) -> int:
    """Client: return the number of opens between two times."""
    names = itertools.cycle(_drawn)
    opened = 0
    time.sleep(max(0.0, begin - time.monotonic()))
    while time.monotonic() < end:
        extmem.open(next(names)).close()
        opened += 1
    return opened


def left_over() -> int:
    """Observer: return the number of payloads. As a client it keeps the broker running."""
    from extmem.manager import manager

    return len(manager().snapshot())
