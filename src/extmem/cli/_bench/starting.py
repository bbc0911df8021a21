"""`extmem bench start`: what importing extmem and opening the host device take in a new interpreter.

Each round starts three interpreters, one that does nothing, one that imports extmem, and one that opens the host device
as well. What is compared is the time from start to end of each; so the first is part of both others. Compiled modules
are in Python's cache: the first rounds, which do not count, write what is missing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from extmem.cli._bench.house import House
from extmem.cli._bench.measure import Figure, at_most, interleaved, ratio, told

__all__ = ["figures"]

_CODES = ("pass", "import extmem", "import extmem; extmem.open_device(kind='host')")


def figures(house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure `rounds` new interpreters of each kind."""
    environment = {**os.environ, **house.environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    say(f"starting {rounds} interpreters that do nothing, import extmem, and open the host device")
    empty, importing, opening = interleaved(
        rounds, *(_starting(code, environment) for code in _CODES), warm_up=1 if quick else 3
    )
    yield at_most("open the host device in a new interpreter, against an empty one", ratio(opening, empty), 9)
    yield at_most("import extmem in a new interpreter, against an empty one", ratio(importing, empty), 1.6)
    yield told("an empty interpreter", _median(empty), "ms")
    yield told("import extmem, beyond that", _median(importing) - _median(empty), "ms")
    yield told("open the host device in a new interpreter", _median(opening), "ms")


def _median(nanoseconds: list[int]) -> float:
    """In milliseconds."""
    return statistics.median(nanoseconds) / 1e6


def _starting(code: str, environment: dict[str, str]) -> Callable[[], int]:
    """What runs the code in a new interpreter and returns the nanoseconds that it took."""

    def step() -> int:
        start = time.perf_counter_ns()
        subprocess.run([sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60)
        return time.perf_counter_ns() - start

    return step
