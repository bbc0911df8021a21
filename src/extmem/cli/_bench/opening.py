"""`extmem bench open`: opening by name, opening again, passing to another process; against common alternatives."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import extmem
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.measure import Figure, at_most, interleaved, microseconds, ratio, unbounded
from extmem.cli._bench.sharing import SHARE, attached, opening

if sys.platform == "win32":
    from extmem.cli._bench import opening_win32 as system
else:
    from extmem.cli._bench import opening_linux as system

__all__ = ["figures"]

_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20, "1 GiB": 1 << 30}
_PASSED = 8 << 20


def figures(env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure `rounds` of each comparison."""
    sizes = dict(list(_SIZES.items())[: 2 if quick else None])
    exporter = env.worker("exporter")
    report(f"sharing payloads of {', '.join(sizes)}")
    names = {label: env.name(label) for label in sizes}
    exporter.call(SHARE, [(names[label], size) for label, size in sizes.items()])
    yield from system.figures(env, names, sizes, rounds, report, quick=quick)

    report(f"opening again {rounds} times, in turns with multiprocessing.shared_memory")
    opener = env.worker("opener")
    again, first, attach = opener.call(f"{__name__}:compare_shared_memory", names["1 MiB"], sizes["1 MiB"], rounds)
    yield at_most("open again in the same process, against a shared_memory attach", ratio(again, attach), 0.5)
    yield unbounded("open for the first time, against a shared_memory attach", ratio(first, attach), "ratio")

    report(f"passing 8 MiB {rounds} times, in turns with pickling it")
    addresses = system.addresses(env)
    exporter.start(f"{__name__}:send", *addresses, _PASSED, rounds)
    opener = env.worker("opener")
    opener.start(f"{__name__}:receive", *addresses)
    passed, pickled = exporter.finish()
    opener.finish()
    yield system.passed("pass 8 MiB, times as fast as pickling it", ratio(pickled, passed))
    yield microseconds("pass 8 MiB and map it", passed)
    yield microseconds("pickle 8 MiB", pickled)


# Tasks of the processes.


def compare_shared_memory(name: str, size: int, rounds: int) -> list[list[int]]:
    """Opener: return the times of opening again, of the first open, and of attaching to a block of shared memory."""
    with attached(size) as attach:
        first, one = interleaved(rounds, opening(name), attach)
        with extmem.open(name):
            again, two = interleaved(rounds, opening(name), attach)
    return [again, first, one + two]


def send(there: str, back: str, size: int, rounds: int) -> list[list[int]]:
    """Sender: return the nanoseconds from send to receipt, of shared memory and of as many pickled bytes."""
    with (
        system.sender_end(there, back) as (out, answers),
        extmem.open_device(kind="host") as device,
        device.allocate(size) as memory,
    ):

        def sending(payload: object) -> Callable[[], int]:
            def step() -> int:
                start = time.perf_counter_ns()
                out.send(payload)
                return int(answers.recv()) - start  # both processes read the same clock

            return step

        times = interleaved(rounds, sending(memory), sending(b"\xa5" * size), turn=10)
        out.send(None)
    return times


def receive(there: str, back: str) -> None:
    """Receiver: send the time at which each object was received (and memory was mapped), after it was released."""
    with system.receiver_end(there, back) as (incoming, answers):
        while (received := incoming.recv()) is not None:
            if isinstance(received, bytes):
                now = time.perf_counter_ns()
            else:
                view = received.map()
                now = time.perf_counter_ns()
                del view
                received.close()
            # Objects of one round must not be deleted within the time of the next one.
            del received
            answers.send(now)
