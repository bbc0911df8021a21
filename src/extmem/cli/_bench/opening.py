"""`extmem bench open`: opening by name, opening again, handing over; against what anybody else would do."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import extmem
from extmem.cli._bench.house import House
from extmem.cli._bench.measure import Figure, at_most, interleaved, ratio, told
from extmem.cli._bench.sharing import attached, opening

if sys.platform == "win32":
    from extmem.cli._bench import opening_win32 as system
else:
    from extmem.cli._bench import opening_linux as system

__all__ = ["figures"]

_HERE = __name__
_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20, "1 GiB": 1 << 30}
_HANDED = 8 << 20
_clock = time.perf_counter_ns


def figures(house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure; `rounds` of everything that is compared."""
    sizes = dict(list(_SIZES.items())[: 2 if quick else None])
    exporter = house.worker("exporter")
    say(f"sharing payloads of {', '.join(sizes)}")
    names = {label: house.name(label) for label in sizes}
    exporter.call("extmem.cli._bench.sharing:share", [(names[label], size) for label, size in sizes.items()])
    yield from system.figures(house, names, sizes, rounds, say, quick=quick)

    say(f"opening again {rounds} times, in turns with multiprocessing.shared_memory")
    opener = house.worker("opener")
    again, first, attach = opener.call(f"{_HERE}:compare_shared_memory", names["1 MiB"], sizes["1 MiB"], rounds)
    yield at_most("open again in the same process, against a shared_memory attach", ratio(again, attach), 0.5)
    yield told("open for the first time, against a shared_memory attach", ratio(first, attach), "ratio")

    say(f"handing over 8 MiB {rounds} times, in turns with pickling it")
    ways = system.ways(house)
    exporter.start(f"{_HERE}:send", *ways, _HANDED, rounds)
    opener = house.worker("opener")
    opener.start(f"{_HERE}:receive", *ways)
    handed, pickled = exporter.finish()
    opener.finish()
    yield system.handed("hand over 8 MiB, times as fast as pickling it", ratio(pickled, handed))
    yield told("hand over 8 MiB and map it", statistics.median(handed) / 1000, "µs")
    yield told("pickle 8 MiB", statistics.median(pickled) / 1000, "µs")


# What the processes do.


def compare_shared_memory(name: str, size: int, rounds: int) -> list[list[int]]:
    """Opener: opening again, opening first, and attaching to a block of shared memory."""
    with attached(size) as attach:
        first, one = interleaved(rounds, opening(name), attach)
        with extmem.open(name):
            again, two = interleaved(rounds, opening(name), attach)
    return [again, first, one + two]


def send(there: str, back: str, size: int, rounds: int) -> list[list[int]]:
    """Sender: nanoseconds from sending to having it, of shared memory and of as many pickled bytes."""
    with (
        system.give_and_take(there, back) as (out, answers),
        extmem.open_device(kind="host") as device,
        device.allocate(size) as memory,
    ):

        def sent(what: object) -> Callable[[], int]:
            def step() -> int:
                start = _clock()
                out.send(what)
                # Both processes read the same clock.
                arrived: int = answers.recv()
                return arrived - start

            return step

        times = interleaved(rounds, sent(memory), sent(b"\xa5" * size), turn=10)
        out.send(None)
    return times


def receive(there: str, back: str) -> None:
    """Receiver: say when each thing had arrived, and in the case of memory was mapped; once it is gone again here."""
    with system.take_and_give(there, back) as (come, answers):
        while (what := come.recv()) is not None:
            if isinstance(what, bytes):
                now = _clock()
            else:
                view = what.map()
                now = _clock()
                del view
                what.close()
            # What one round leaves behind must not be cleared away within the next one's time.
            del what
            answers.send(now)
