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

from extmem.cli._bench.house import House, allow_descriptors, descriptors_of, resident_kib, wait_for
from extmem.cli._worker import Worker

__all__ = ["figures"]

_HERE = __name__
_BATCH = 100
_WINDOW = 0.5
_kept: list[Any] = []


def figures(house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure; `rounds` opens of one client in each turn."""
    allow_descriptors()
    objects, clients, turns = (200, 8, 2) if quick else (10_000, 64, 20)
    observer = house.worker("observer")
    observer.call(f"{_HERE}:left_over")
    broker = house.broker()
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
        say(f"one client opens, the others idle: {turns} turns")
        few: list[int] = []
        many: list[int] = []
        ratios = []
        for turn in range(turns):
            one = lone.call(f"{_HERE}:open_some", ["bench 0.0"], rounds, turn)
            all_of_them = crowd[0].call(f"{_HERE}:open_some", names, rounds, turn)
            # Turn by turn: what other programs do to the machine for a moment is in one turn and not in the median.
            ratios.append(percentile(all_of_them, 0.99) / statistics.median(one))
            few += one
            many += all_of_them
    yield at_most(
        f"p99 of opening, {objects} objects and {clients} clients, against p50 of one and one",
        statistics.median(ratios),
        5.0,
    )
    yield told("p50 of opening, one object and one client", statistics.median(few) / 1000, "µs")
    yield told("p99 of opening, one object and one client", percentile(few, 0.99) / 1000, "µs")
    yield told(f"p50 of opening, {objects} objects and {clients} clients", statistics.median(many) / 1000, "µs")
    yield told(f"p99 of opening, {objects} objects and {clients} clients", percentile(many, 0.99) / 1000, "µs")

    say(f"all {clients} open at once, in turns with one alone")
    single: list[float] = []
    together: list[float] = []
    for turn in range(max(2, turns // 2)):
        order = ((single, crowd[:1]), (together, crowd))
        for found, who in order if turn % 2 else reversed(order):
            found.append(_throughput(who, names, turn))
    yield at_least(
        f"opens per second of {clients} at once, against one alone",
        statistics.median(together) / statistics.median(single),
        0.8,
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


def _throughput(who: list[Worker], names: list[str], turn: int) -> float:
    # Everybody begins at the same moment of the machine's clock, once all have been told.
    begin = time.monotonic() + 0.05 + 0.008 * len(who)
    for number, client in enumerate(who):
        client.start(f"{_HERE}:open_until", names, begin, begin + _WINDOW, turn * 1000 + number)
    return sum(int(client.finish()) for client in who) / _WINDOW


# What the processes do.


def share(number: int, count: int) -> None:
    """A client: share so many objects of a page each until the process ends."""
    device = extmem.open_device()
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


def open_until(names: list[str], begin: float, end: float, seed: int) -> int:
    """A client: how many opens fit between two moments."""
    # Enough that one client alone does not come round to the same names sooner than many together do.
    chosen = itertools.cycle(random.Random(seed).choices(names, k=4096))
    opened = 0
    time.sleep(max(0.0, begin - time.monotonic()))
    while time.monotonic() < end:
        extmem.open(next(chosen)).close()
        opened += 1
    return opened


def left_over() -> int:
    """The observer: how many payloads there are. It keeps the broker from leaving."""
    from extmem.manager import manager

    return len(manager().snapshot())
