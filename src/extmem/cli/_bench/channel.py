"""`extmem bench channel`: frames from one writer to many readers, against what programs use without extmem.

How this works. Each part has a module, whose docstring tells what is compared:

1. `channel_hops`: one hop between two processes that wait for each other, of 8 bytes and of 8 MiB.
2. `channel_fan`: 500 frames a second to 1, 4 and 8 readers.
3. `channel_calls`: single calls; what opening and closing leaves.
4. `channel_gpu`: the time of the host for a frame on a GPU.
5. `channel_deaths`: a killed writer, and the slot of a killed reader.
6. `channel_storm`: whole frames, and nothing left, while processes are killed at any moment.

The libraries are optional: iceoryx2, pyzmq. Where one is not installed, or cannot be imported, each figure that needs
it has the unit "not measured" and a name that ends with the reason; it has no bound. `channel_bounds` has all bounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from extmem.cli._bench.measure import Figure, measured_parts

if sys.platform != "linux":
    raise ImportError("this benchmark measures channels on Linux")

from extmem.cli._bench import channel_calls, channel_deaths, channel_fan, channel_gpu, channel_hops, channel_storm
from extmem.cli._bench.channel_peers import lacking, remove_iceoryx
from extmem.cli._bench.environment import Environment

__all__ = ["figures", "missing"]

_RUNS = 5
_KILLS, _READS = 60, 10_000


def figures(
    env: Environment,
    rounds: int,
    report: Callable[[str], None],
    *,
    quick: bool = False,
    kills: int | None = None,
    parts: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """Measure `rounds` of what is short in each run.

    kills: how many processes are killed, by each part that kills. parts: which; all without.
    """
    worker = env.worker("probe")
    absent: dict[str, str] = worker.call(f"{__name__}:missing")
    env.dismiss(worker)
    for reason in dict.fromkeys(absent.values()):
        report(f"{reason}: it is not compared")
    runs = 2 if quick else _RUNS
    killed = kills or (4 if quick else _KILLS)
    measured: dict[str, Callable[[], Iterator[Figure]]] = {
        "hops": lambda: channel_hops.figures(env, absent, runs, rounds, report),
        "fan-out": lambda: channel_fan.figures(env, absent, runs, rounds // 2, report),
        "calls": lambda: channel_calls.calls(env, absent, rounds, report),
        "opens": lambda: channel_calls.opens(env, rounds, report),
        "gpu": lambda: channel_gpu.figures(env, rounds, report),
        "deaths": lambda: channel_deaths.deaths(env, killed, report),
        "holders": lambda: channel_deaths.holders(env, killed, report),
        "storm": lambda: channel_storm.figures(env, absent, killed, 200 if quick else _READS, report),
    }
    try:
        yield from measured_parts({part: how for part, how in measured.items() if not parts or part in parts}, report)
    finally:  # an interrupt may have come in the middle of a part
        for worker in list(env.workers):
            env.dismiss(worker)
        remove_iceoryx(str(env.directory))


# Task of the processes.


def missing() -> dict[str, str]:
    """Probe: return the ways that cannot be measured on this machine, with the reason."""
    from extmem.cli._bench.channel_ends import WAYS

    return {way: reason for way in WAYS if (reason := lacking(way))}
