"""The output of the soak: figures of each part, and counts over all parts, each of which must be 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Figure: TypeAlias = dict[str, Any]
"""A dict with `name`, `value`, `unit`, `bound`, and whether the value is within the bound (`ok`)."""
Report: TypeAlias = Callable[[str], None]
"""Prints a progress message."""

CRASHES_BY_THREADS: Final = "crashes by threads"
CRASHES: Final = "crashes of other workers"
FAILED: Final = "workers that failed or hung"
WRONG: Final = "wrong bytes"
ESCAPED: Final = "errors that no call may raise"
LOST: Final = "lost"
DOUBLE: Final = "double closes"
ESCALATIONS: Final = "escalations"
DEATHS: Final = "deaths of processes by arbitrary calls"
MESSAGES: Final = "layer messages"
ENDED: Final = "broker ended"
STUCK: Final = "waiters stuck"
WRONG_VALUES: Final = "wrong values"
LEFT: Final = "left after kills"
TORN: Final = "torn reads that were accepted"
ZEROS: Final = {
    CRASHES_BY_THREADS: "processes",
    CRASHES: "processes",
    FAILED: "processes",
    WRONG: "findings",
    ESCAPED: "errors",
    LOST: "findings",
    DOUBLE: "findings",
    ESCALATIONS: "attempts",
    DEATHS: "processes",
    MESSAGES: "programs",
    STUCK: "waits",
    WRONG_VALUES: "findings",
    LEFT: "things",
    TORN: "reads",
    ENDED: "times",
}
"""The counts over all parts with their units, in the order of printing."""


class Totals:
    """The counts over all parts. A part that runs adds to its counts, also if it finds nothing."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.interrupts = 0
        """The number of interrupts in which `LOST` was counted."""

    def add(self, name: str, count: int = 0) -> None:
        """Add to a count of `ZEROS`; 0 records that the part ran. Errors: KeyError for another name."""
        if name not in ZEROS:
            raise KeyError(name)
        self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def figures(self) -> list[Figure]:
        """Return a figure for each count to which a part has added."""
        found = []
        for name, unit in ZEROS.items():
            if name in self._counts:
                title = f"{name} after {self.interrupts} interrupts" if name == LOST else name
                found.append(figure(title, self._counts[name], unit, 0, self._counts[name] == 0))
        return found


def figure(name: str, value: float | None, unit: str, bound: float, ok: bool) -> Figure:
    """Return one entry of the JSON list. value: None for a part that did not run."""
    return {"name": name, "value": value, "unit": unit, "bound": bound, "ok": ok}


def add_counts(totals: Totals, counts: Mapping[str, int], names: Mapping[str, str]) -> None:
    """Add the counts of a worker. names: from the worker's names to those in `ZEROS`."""
    for word, name in names.items():
        totals.add(name, counts.get(word, 0))
