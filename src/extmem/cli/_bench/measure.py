"""How times become figures: interleaved rounds, medians, ratios, bounds. Pure but for the clock.

How this works. Things to compare are done in turns, in one process, so that whatever else the machine does meets all
alike. Each round has an order of its own (drawn, the same in every run), so that none always follows the same other.
Where one leaves the caches in ruins (by copying), a turn is several rounds of the same, so that each meets its own
caches. Garbage collection waits meanwhile. What is compared are medians of at least 200 rounds; what is reported is
their ratio.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["TURNS", "Figure", "at_least", "at_most", "interleaved", "percentile", "ratio", "ratio_in_turns", "told"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value and what it must be: `value` on the right side of `bound`, or no bound."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    direction: Literal["at most", "at least", ""] = ""

    @property
    def ok(self) -> bool:
        """Whether the bound holds; figures without one are always fine."""
        if self.bound is None:
            return True
        return self.value <= self.bound if self.direction == "at most" else self.value >= self.bound

    def to_dict(self) -> dict[str, Any]:
        """Plain values under fixed keys."""
        return {"name": self.name, "value": self.value, "unit": self.unit, "bound": self.bound, "ok": self.ok}


def at_most(name: str, value: float, bound: float, unit: str = "ratio") -> Figure:
    """A figure that must not be larger than its bound."""
    return Figure(name, _rounded(value), unit, bound, "at most")


def at_least(name: str, value: float, bound: float, unit: str = "ratio") -> Figure:
    """A figure that must not be smaller than its bound."""
    return Figure(name, _rounded(value), unit, bound, "at least")


def told(name: str, value: float, unit: str) -> Figure:
    """A figure without a bound."""
    return Figure(name, _rounded(value), unit)


def _rounded(value: float) -> float:
    """Four digits are more than a measurement has; whole numbers stay whole."""
    return value if value == int(value) else float(f"{value:.4g}")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all values do not exceed, by nearest rank."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Median of the first over median of the second."""
    return statistics.median(first) / statistics.median(second)


TURNS = 100
"""So many pairs of turns `ratio_in_turns` wants where a bound is close: single ones scatter by a tenth to a third."""


def ratio_in_turns(first: Sequence[float], second: Sequence[float], turn: int) -> float:
    """The median over all turns of `turn` rounds of what `ratio` gives for each.

    For what takes long enough that the machine's speed changes meanwhile: neighbours met the same speed.
    """
    starts = range(0, min(len(first), len(second)), turn)
    return statistics.median(ratio(first[at : at + turn], second[at : at + turn]) for at in starts)


def interleaved(rounds: int, *steps: Callable[[], int], warm_up: int = 10, turn: int = 1) -> list[list[int]]:
    """Run the steps in turns of `turn` rounds; each returns the nanoseconds that count. Their times, in their order."""
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
