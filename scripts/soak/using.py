"""Threads, interrupts and other users: programs of tests/, run as workers on each available kind of device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from extmem.testing.children import Child
from scripts.soak import workers
from scripts.soak.figures import (
    CRASHES_BY_THREADS,
    DOUBLE,
    ENDED,
    ESCALATIONS,
    ESCAPED,
    LOST,
    WRONG,
    Figure,
    Report,
    Totals,
    add_counts,
    figure,
)

THREADS: Final = (2, 4, 16)
PROGRAMS: Final = (
    *(("names", "--threads", str(count)) for count in THREADS),
    ("races",),
    ("closing", "--rounds", "0"),
)
"""The programs of tests/threads with their options. Each runs for the same time."""
_BESIDE: Final = 180.0
"""Seconds that a program may take in addition to its own time: to start, to finish its current work, to end."""
_INTERRUPTS_PER_SECOND: Final = 2.0
"""A program that is slower than this hangs."""
_ATTEMPTS_PER_SECOND: Final = 0.5
_OPENS = (
    "import sys, extmem\ntry: extmem.open_device(kind=sys.argv[1]).close()\nexcept extmem.UnsupportedError: sys.exit(3)"
)


def kinds() -> list[str]:
    """Return the kinds of device on which the programs run: host, and vulkan if there is such a device."""
    found = ["host"]
    with Child.python(_OPENS, "vulkan") as child:
        if child.wait(expect=None) != 3:
            found.append("vulkan")
    return found


def use_in_threads(minutes: float, seed: int, devices: Sequence[str], totals: Totals, report: Report) -> list[Figure]:
    """Run each of `PROGRAMS` on each device, for `minutes` over all. Each byte that is read is checked."""
    seconds = minutes * 60 / (len(PROGRAMS) * len(devices))
    rounds, idle = 0, 0
    for kind in devices:
        for program in PROGRAMS:
            command = ["tests.threads", *program, "--kind", kind, "--seconds", f"{seconds:g}", "--seed", str(seed)]
            report(" ".join(command))
            done = workers.run(command, seconds + _BESIDE, totals, report, crashes=CRASHES_BY_THREADS)
            add_counts(
                totals, done.counts, {"wrong bytes": WRONG, "errors that escaped": ESCAPED, "broker ended": ENDED}
            )
            made = done.counts.get("rounds", 0)
            report(f"{made} rounds")
            rounds += made
            idle += not made
    return [
        figure("threads: rounds", rounds, "rounds", 1, rounds >= 1),
        figure("threads: programs that did nothing", idle, "programs", 0, not idle),
    ]


def interrupt(count: int, seed: int, devices: Sequence[str], totals: Totals, report: Report) -> Figure:
    """Interrupt public methods `count` times on each device."""
    # A reference in flight of an interrupted pickle ends after this time.
    environment = {"EXTMEM_TICKET_SECONDS": "1"}
    for kind in devices:
        command = ["tests.interrupts", "--kind", kind, "--interrupts", str(count), "--seed", str(seed)]
        report(" ".join(command))
        limit = count / _INTERRUPTS_PER_SECOND + _BESIDE
        done = workers.run(command, limit, totals, report, environment=environment)
        totals.interrupts += done.counts.get("interrupts", 0)
        names = {
            "lost": LOST,
            "closed twice": DOUBLE,
            "wrong bytes": WRONG,
            "errors that escaped": ESCAPED,
            "broker ended": ENDED,
        }
        add_counts(totals, done.counts, names)
        report(f"{totals.interrupts} interrupts")
    asked = count * len(devices)
    return figure("interrupts", totals.interrupts, "interrupts", asked, totals.interrupts >= asked)


def try_as_others(count: int, seed: int, totals: Totals, report: Report) -> Figure:
    """Let other users try `count` times to get more rights than they were granted. This requires root."""
    if os.geteuid():
        report("other users: this part did not run; it requires root to become another user")
        return figure("attempts of other users: did not run, needs root", None, "attempts", 0, True)
    command = ["tests.users", "--attempts", str(count), "--seed", str(seed)]
    report(" ".join(command))
    done = workers.run(command, count / _ATTEMPTS_PER_SECOND + _BESIDE, totals, report)
    add_counts(totals, done.counts, {"escalations": ESCALATIONS, "wrong": ESCAPED, "broker ended": ENDED})
    made = done.counts.get("attempts", 0)
    report(f"{made} attempts of other users")
    return figure("attempts of other users", made, "attempts", count, made >= count)
