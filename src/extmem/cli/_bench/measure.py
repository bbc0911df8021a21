"""Measured times and figures: interleaved rounds, medians, ratios, bounds. Pure except for the clock.

How this works. The steps to compare run in turns in one process, so that other load of the machine affects all of them
equally. The order within a round is random (and the same in every run), so that a step does not always follow the same
other step. If a step empties the caches, by copying for example, a turn consists of several rounds of the same step, so
that each step finds its own caches. Garbage collection is off in the meantime. A figure is the ratio of medians of at
least 200 rounds.
"""

from __future__ import annotations

import gc
import random
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from extmem.errors import ExtmemError

__all__ = [
    "TURNS",
    "Pairs",
    "extend_pairs",
    "interleaved_pairs",
    "Figure",
    "at_least",
    "at_most",
    "interleaved",
    "measured_parts",
    "microseconds",
    "percentile",
    "ratio",
    "ratio_in_turns",
    "size_text",
    "unbounded",
]

Pairs: TypeAlias = list[tuple[list[int], list[int]]]
"""Nanoseconds of two steps that are compared, for each payload."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value with its bound, if it has one."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    direction: Literal["at most", "at least", ""] = ""

    @property
    def ok(self) -> bool:
        """Whether the bound holds. A figure without a bound is always ok."""
        if self.bound is None:
            return True
        return self.value <= self.bound if self.direction == "at most" else self.value >= self.bound

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as plain data."""
        return {"name": self.name, "value": self.value, "unit": self.unit, "bound": self.bound, "ok": self.ok}


def at_most(name: str, value: float, bound: float, unit: str = "ratio") -> Figure:
    """Return a figure that must not be larger than its bound."""
    return Figure(name, _rounded(value), unit, bound, "at most")


def at_least(name: str, value: float, bound: float, unit: str = "ratio") -> Figure:
    """Return a figure that must not be smaller than its bound."""
    return Figure(name, _rounded(value), unit, bound, "at least")


def unbounded(name: str, value: float, unit: str) -> Figure:
    """Return a figure without a bound."""
    return Figure(name, _rounded(value), unit)


def _rounded(value: float) -> float:
    """Round to four digits, which is more than the precision of a measurement. Whole numbers are not changed."""
    return value if value == int(value) else float(f"{value:.4g}")


def size_text(size: int) -> str:
    """Return a number of bytes in words: "4 GiB", "62 MiB"."""
    return f"{size / (1 << 30):g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):g} MiB"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that `share` (0 to 1) of all values do not exceed, by nearest rank."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the median of the first divided by the median of the second."""
    return statistics.median(first) / statistics.median(second)


def microseconds(name: str, nanoseconds: Sequence[float]) -> Figure:
    """Return the figure of the median of measured times. It has no bound."""
    return unbounded(name, statistics.median(nanoseconds) / 1000, "µs")


TURNS = 100
"""Number of turns for `ratio_in_turns` if a bound is close: single turns scatter by a tenth to a third."""


def ratio_in_turns(first: Sequence[float], second: Sequence[float], turn: int) -> float:
    """Return the median of the ratios of all turns. A turn has `turn` rounds.

    Use it for steps that take so long that the speed of the machine changes in between: the two sides of one turn run
    at the same speed.
    """
    starts = range(0, min(len(first), len(second)), turn)
    return statistics.median(ratio(first[at : at + turn], second[at : at + turn]) for at in starts)


def interleaved(rounds: int, *steps: Callable[[], int], warm_up: int = 10, turn: int = 1) -> list[list[int]]:
    """Run the steps in turns of `turn` rounds. A step returns its nanoseconds. Return the times of each step."""
    times: list[list[int]] = [[] for _ in steps]
    order, draw = list(range(len(steps))), random.Random(len(steps))
    for _ in range(warm_up):
        for step in steps:
            step()
    gc.collect()
    gc.disable()
    try:
        for _ in range(-(-rounds // turn)):
            draw.shuffle(order)
            for index in order:
                for _ in range(turn):
                    times[index].append(steps[index]())
    finally:
        gc.enable()
    return times


def interleaved_pairs(rounds: int, steps: Sequence[Callable[[], int]]) -> Pairs:
    """Run the steps in turns. Return the times of each step at an even place with those of the step after it."""
    times = interleaved(rounds, *steps)
    return list(zip(times[::2], times[1::2], strict=True))


def extend_pairs(times: Pairs, more: Pairs) -> None:
    """Add the times of another run of the same steps."""
    for (first, second), (more_first, more_second) in zip(times, more, strict=True):
        first += more_first
        second += more_second


def measured_parts(
    parts: Mapping[str, Callable[[], Iterator[Figure]]], report: Callable[[str], None]
) -> Iterator[Figure]:
    """Measure each part. One that fails is one figure that is not ok; the others are still measured."""
    for part, measure in parts.items():
        try:
            yield from measure()
        except (ExtmemError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            report(f"{part} failed: {error}")
            yield at_most(f"{part}: could not be measured", 1, 0, "failed")
