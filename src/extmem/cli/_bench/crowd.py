"""`extmem bench broker`: many objects and many clients, against one object and one client in the same run.

Two brokers live side by side: a quiet one with one object and one client, and a crowded one with 10,000 objects spread
over 64 client processes. The same loop runs in a client of each, in turns.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem.cli._bench.measure import Figure, at_least, at_most, percentile, told

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and host device; there is none to measure here")

from extmem.cli._bench.house import House
from extmem.cli._bench.machine import (
    allow_descriptors,
    broker_of,
    descriptors_of,
    on_processor,
    processors,
    resident_kib,
    waited_ns,
)
from extmem.cli._bench.waiting import wait_for
from extmem.cli._worker import Worker

__all__ = ["figures"]

_HERE = __name__
_BATCH = 100
_WINDOW = 0.5
_kept: list[Any] = []
_drawn: list[str] = []


def figures(house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure; `rounds` opens of one client in each turn."""
    allow_descriptors()
    objects, clients, turns = (200, 8, 2) if quick else (10_000, 64, 20)
    observer = house.worker("observer")
    observer.call(f"{_HERE}:left_over")
    broker = broker_of(house.directory)
    descriptors = descriptors_of(broker)
    say(f"starting {clients} clients")
    crowd = [house.worker(f"client {number}") for number in range(clients)]
    share = [objects // clients + (number < objects % clients) for number in range(clients)]
    _all(
        crowd,
        [(f"{_HERE}:share", number, share[number]) for number in range(clients)],
        say,
        f"sharing {objects} objects",
    )
    with House() as quiet:
        alone = quiet.worker("client")
        alone.call(f"{_HERE}:share", 0, 1)
        lone = quiet.worker("opener")
        # One client of the crowd opens what the others share.
        names = [f"bench {number}.{index}" for number in range(1, clients) for index in range(share[number])]
        say(f"one client opens, the others idle: {2 * turns} turns")
        turned: list[tuple[int, list[int], list[int]]] = []
        first, *_, last = 2 * processors()
        brokers, openers = (broker, broker_of(quiet.directory)), (crowd[0].pid, lone.pid)
        with on_processor(first, *brokers), on_processor(last, *openers):
            for turn in range(2 * turns):
                delayed = waited_ns(broker) + waited_ns(crowd[0].pid)
                one = lone.call(f"{_HERE}:open_some", ["bench 0.0"], rounds, turn)
                all_of_them = crowd[0].call(f"{_HERE}:open_some", names, rounds, turn)
                delayed = waited_ns(broker) + waited_ns(crowd[0].pid) - delayed
                turned.append((delayed, one, all_of_them))
    # Tails tell what other programs do to the machine. The half of the turns in which the two processes had to wait the
    # least for a processor counts, and of these the median; idle clients that were not idle would show in every turn.
    turned.sort(key=lambda turn: turn[0])
    kept = turned[:turns]
    ratios = [percentile(crowded, 0.99) / statistics.median(one) for _, one, crowded in kept]
    few = [spent for _, one, _ in kept for spent in one]
    many = [spent for _, _, crowded in kept for spent in crowded]
    yield at_most(
        f"p99 of opening, {objects} objects and {clients} clients, against p50 of one and one",
        statistics.median(ratios),
        8.0,
    )
    yield told("p50 of opening, one object and one client", statistics.median(few) / 1000, "µs")
    yield told("p99 of opening, one object and one client", percentile(few, 0.99) / 1000, "µs")
    yield told(f"p50 of opening, {objects} objects and {clients} clients", statistics.median(many) / 1000, "µs")
    yield told(f"p99 of opening, {objects} objects and {clients} clients", percentile(many, 0.99) / 1000, "µs")

    say(f"all {clients} open at once, in turns with one alone")
    for number, client in enumerate(crowd):
        client.call(f"{_HERE}:prepare", names, number)
    single: list[float] = []
    together: list[float] = []
    for turn in range(max(2, turns // 2)):
        order = ((single, crowd[:1]), (together, crowd))
        for found, who in order if turn % 2 else reversed(order):
            found.append(_throughput(who))
    # The machine's speed changes from second to second; the two of one turn met the same.
    yield at_least(
        f"opens per second of {clients} at once, against one alone",
        statistics.median(all_of_them / one for one, all_of_them in zip(single, together, strict=True)),
        0.5,
    )
    yield told("opens per second of one alone", statistics.median(single), "per second")
    yield at_most("memory of the broker (VmRSS)", resident_kib(broker) / 1024, 100, "MiB")

    say("killing all clients")
    for client in crowd:
        client.process.kill()
    for client in crowd:
        client.process.wait()
    left = {"objects": objects, "descriptors": objects}

    def settled() -> bool:
        left["objects"] = observer.call(f"{_HERE}:left_over")
        left["descriptors"] = descriptors_of(broker) - descriptors
        return not any(left.values())

    try:
        wait_for(settled, 10.0)
    except TimeoutError:
        say("the broker has not let go of everything within 10 s")
    yield at_most("objects left after kill -9 of all clients", left["objects"], 0, "left")
    yield at_most("descriptors of the broker left after kill -9 of all clients", left["descriptors"], 0, "left")


def _all(crowd: list[Worker], tasks: list[tuple[object, ...]], say: Callable[[str], None], what: str) -> list[Any]:
    say(what)
    for client, (task, *arguments) in zip(crowd, tasks, strict=True):
        client.start(str(task), *arguments)
    return [client.finish() for client in crowd]


def _throughput(who: list[Worker]) -> float:
    # Everybody begins at the same moment of the machine's clock, once all have been told.
    begin = time.monotonic() + 0.05 + 0.005 * len(who)
    for client in who:
        client.start(f"{_HERE}:open_until", begin, begin + _WINDOW)
    return sum(int(client.finish()) for client in who) / _WINDOW


# What the processes do.


def share(number: int, count: int) -> None:
    """A client: share so many objects of a page each until the process ends."""
    device = extmem.open_device(kind="host")
    _kept.extend(device.allocate(4096, name=f"bench {number}.{index}") for index in range(count))


def open_some(names: list[str], count: int, seed: int) -> list[int]:
    """A client: nanoseconds of each of so many opens."""
    times = []
    for name in random.Random(seed).choices(names, k=count):
        start = time.perf_counter_ns()
        memory = extmem.open(name)
        times.append(time.perf_counter_ns() - start)
        memory.close()
    return times


def prepare(names: list[str], seed: int) -> None:
    """A client: draw the names to open, so many that one client alone does not meet them again sooner than all do."""
    _drawn.clear()
    _drawn.extend(random.Random(seed).choices(names, k=4096))


def open_until(begin: float, end: float) -> int:
    """A client: how many opens fit between two moments."""
    names = itertools.cycle(_drawn)
    opened = 0
    time.sleep(max(0.0, begin - time.monotonic()))
    while time.monotonic() < end:
        extmem.open(next(names)).close()
        opened += 1
    return opened


def left_over() -> int:
    """The observer: how many payloads there are. It keeps the broker from leaving."""
    from extmem.manager import manager

    return len(manager().snapshot())
