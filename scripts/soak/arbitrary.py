"""Arbitrary programs of the public API on the Vulkan device (`tests.arbitrary`), under the Khronos validation layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scripts.soak import workers
from scripts.soak.figures import DEATHS, ESCAPED, MESSAGES, Figure, Report, Totals, add_counts, figure
from tests.arbitrary.__main__ import LEAST
from tests.layer import collector

_BESIDE: Final = 600.0
"""Seconds that the program may take in addition, among others to reduce what it found."""
_PROGRAMS_PER_SECOND: Final = 5.0
"""A program that is slower than this hangs."""


def run_programs(count: int, seed: int, devices: Sequence[str], totals: Totals, report: Report) -> list[Figure]:
    """Run `count` programs. This requires a Vulkan driver and the layer."""
    if "vulkan" not in devices or not collector.installed():
        report(
            "arbitrary programs: this part did not run; it requires a Vulkan driver and the Khronos validation layer"
        )
        return [figure("arbitrary programs: did not run, needs the validation layer", None, "programs", 0, True)]
    command = ["tests.arbitrary", "--programs", str(count), "--seed", str(seed)]
    report(" ".join(command))
    done = workers.run(command, count / _PROGRAMS_PER_SECOND + _BESIDE, totals, report)
    names = {"deaths": DEATHS, "layer messages": MESSAGES, "errors that escaped": ESCAPED}
    add_counts(totals, done.counts, names)
    made, share = done.counts.get("programs", 0), done.counts.get("smallest share", 0)
    return [
        figure("arbitrary programs", made, "programs", count, made >= count),
        figure("arbitrary programs: smallest share of a kind of call on the driver", share, "", LEAST, share >= LEAST),
    ]
