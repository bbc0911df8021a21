"""`extmem bench start`: the time to import extmem and to open the host device in a new interpreter.

Each round starts three interpreters: one without code, one that imports extmem, and one that also opens the host
device. The times from start to end of each are compared, so the first is part of both others. Compiled modules are in
Python's cache: the first rounds, which do not count, write those that are missing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.measure import Figure, at_most, interleaved, ratio, unbounded

__all__ = ["figures"]

_QUICK = 5
"""The most rounds of a quick run: each starts three interpreters."""
_CODES = ("pass", "import extmem", "import extmem; extmem.open_device(kind='host')")


def figures(env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure `rounds` new interpreters of each of the three."""
    rounds = min(rounds, _QUICK) if quick else rounds
    environment = {**os.environ, **env.variables, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    report(f"starting {rounds} interpreters each: without code, to import extmem, to open the host device")
    empty, importing, opening = interleaved(
        rounds, *(_starting(code, environment) for code in _CODES), warm_up=1 if quick else 3
    )
    yield at_most("open the host device in a new interpreter, against an empty one", ratio(opening, empty), 9)
    yield at_most("import extmem in a new interpreter, against an empty one", ratio(importing, empty), 1.6)
    bare = statistics.median(empty)
    yield unbounded("an empty interpreter", bare / 1e6, "ms")
    yield unbounded("import extmem, beyond that", (statistics.median(importing) - bare) / 1e6, "ms")
    yield unbounded("open the host device in a new interpreter", statistics.median(opening) / 1e6, "ms")


def _starting(code: str, environment: dict[str, str]) -> Callable[[], int]:
    """Return a step that runs the code in a new interpreter and returns its nanoseconds."""

    def step() -> int:
        start = time.perf_counter_ns()
        subprocess.run([sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60)
        return time.perf_counter_ns() - start

    return step
