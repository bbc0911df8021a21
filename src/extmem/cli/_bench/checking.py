"""`extmem bench checks`: the cost of checking a call, and the modules that `import extmem` loads."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import extmem
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.measure import Figure, at_most, interleaved, microseconds, ratio, unbounded
from extmem.cli._bench.sharing import SHARE, import_by_name

__all__ = ["figures"]

_HERE = __name__
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
    checked, unchecked = importer.call(f"{_HERE}:compare", name, rounds)
    yield at_most("a checked import against an unchecked one", ratio(checked, unchecked), 1.5)
    yield microseconds("an unchecked import", unchecked)
    yield unbounded("checking it", (statistics.median(checked) - statistics.median(unchecked)) / 1000, "µs")
    report("counting the modules that import extmem loads")
    paths = os.pathsep.join([p for p in sys.path if p])
    loaded = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={**os.environ, "PYTHONPATH": paths},
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

        def importing(device: extmem.Device) -> Callable[[], int]:
            def step() -> int:
                start = time.perf_counter_ns()
                memory = import_by_name(device, name, size, memory_type)
                spent = time.perf_counter_ns() - start
                memory.close()
                return spent

            return step

        return interleaved(rounds, importing(checked), importing(unchecked))
