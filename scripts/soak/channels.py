"""Frames of a channel that are checked while its writers, and readers that hold frames, are killed with -9.

The work is that of a part of `extmem bench channel` (`extmem.cli._bench.channel_storm`), for much longer.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import Final

from extmem.cli._bench.channel_storm import Result, storm
from extmem.cli._bench.environment import Environment
from extmem.errors import ExtmemError
from scripts.soak.figures import CRASHES, LEFT, TORN, Figure, Report, Totals, figure

__all__ = ["READS_FOR_EACH_KILL", "channel_rounds"]

READS_FOR_EACH_KILL: Final = 170
_LEAST_KILLS: Final = 4


def channel_rounds(reads: int, seed: int, totals: Totals, report: Report) -> list[Figure]:
    """Check `reads` frames. Return the figures, and count torn frames, and what is left at the end."""
    for name in (TORN, CRASHES, LEFT):
        totals.add(name)
    kills = max(_LEAST_KILLS, -(-reads // READS_FOR_EACH_KILL))
    started, found = time.monotonic(), Result()
    try:
        with contextlib.closing(Environment()) as env:
            found = storm(env, kills, reads, random.Random(seed), report)
    except (ExtmemError, OSError) as error:  # the error of a process that failed has the words of its own
        report(f"BROKEN channels: {error}")
        totals.add(CRASHES, 1)
    totals.add(TORN, found.torn)
    totals.add(LEFT, found.payloads + found.descriptors + found.files)
    report(
        f"{found.reads} of {reads} frames of channels took {time.monotonic() - started:.0f} s; "
        f"{found.writers} writers and {found.holders} holders were killed"
    )
    killed = found.writers + found.holders
    return [
        figure("channels: frames checked", found.reads, "frames", reads, found.reads >= reads),
        figure("channels: processes killed", killed, "processes", kills, killed >= kills),
    ]
