"""`extmem bench checks`: the cost of checking a call, and the modules that `import extmem` loads."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import extmem
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.measure import Figure, at_most, interleaved, microseconds, ratio, unbounded
from extmem.cli._bench.sharing import SHARE, import_by_name, timed

__all__ = ["figures"]

_FORBIDDEN = ("numpy", "click", "rich")
_PROBE = (
    "import sys, extmem, extmem.api, extmem.vk\n"
    f"sys.stdout.write(str(sum(name.partition('.')[0] in {_FORBIDDEN!r} for name in sys.modules)))"
)


def figures(env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure `rounds` imports with and without checks."""
    exporter, importer = env.worker("exporter"), env.worker("importer")
    name = env.name("checks")
    exporter.call(SHARE, [(name, 1 << 20)])
    report(f"importing {rounds} times checked, in turns with unchecked")
    checked, unchecked = importer.call(f"{__name__}:compare", name, rounds)
    yield at_most("a checked import against an unchecked one", ratio(checked, unchecked), 1.5)
    yield microseconds("an unchecked import", unchecked)
    yield unbounded("checking it", (statistics.median(checked) - statistics.median(unchecked)) / 1000, "µs")
    report("counting the modules that import extmem loads")
    loaded = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    yield at_most("modules of numpy, click and rich that import extmem loads", int(loaded.stdout), 0, "modules")


def compare(name: str, rounds: int) -> list[list[int]]:
    """Importer: return the nanoseconds of vkAllocateMemory with an import by name, with and without checks."""
    with (
        extmem.open_device(kind="host", check="raise") as checked,
        extmem.open_device(kind="host", check="off") as unchecked,
    ):
        with extmem.open(name, device=checked) as first:
            size, memory_type = first.allocation_size, first.memory_type_index

        steps = [timed(partial(import_by_name, device, name, size, memory_type)) for device in (checked, unchecked)]
        return interleaved(rounds, *steps)
