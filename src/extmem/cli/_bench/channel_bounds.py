"""The bounds of `extmem bench channel`, in one table, and the figures that are made with it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from extmem.cli._bench.measure import Figure, at_least, at_most

__all__ = ["BOUNDS", "Bound", "bounded"]


class Bound(NamedTuple):
    """The bound of a figure, and its unit."""

    direction: Literal["at most", "at least"]
    value: float
    unit: str = "ratio"


BOUNDS = {
    "one hop, p50, against iceoryx2": Bound("at most", 1.15),
    "one hop, p90, against iceoryx2": Bound("at most", 1.4),
    "one hop of 8 MiB, times as fast as pyzmq": Bound("at least", 100),
    "one hop of 8 MiB, times as fast as multiprocessing.Pipe": Bound("at least", 1500),
    "async for, longer than read()": Bound("at most", 15, "µs"),
    "500 frames a second, against iceoryx2": Bound("at most", 1.15),
    "write() alone": Bound("at most", 8, "µs"),
    "read() of a ready frame": Bound("at most", 6, "µs"),
    "kill -9 of the writer to WriterGoneError, p50": Bound("at most", 5, "ms"),
    "kill -9 of the writer to WriterGoneError, max": Bound("at most", 50, "ms"),
    "writes without the slot of a killed holder": Bound("at most", 0, "writes"),
    "host time to write a frame of a GPU": Bound("at most", 20, "µs"),
    "host time to read a frame of a GPU": Bound("at most", 20, "µs"),
    "torn frames": Bound("at most", 0, "torn"),
    "left after kill -9": Bound("at most", 0, "left"),
    "more after open and close": Bound("at most", 0, "more"),
}
"""What each kind of figure must be. The names of figures add sizes and counts."""


def bounded(kind: str, name: str, value: float) -> Figure:
    """Return a figure with the bound of its kind. Errors: KeyError for a kind without one."""
    bound = BOUNDS[kind]
    make = at_most if bound.direction == "at most" else at_least
    return make(name, value, bound.value, bound.unit)
