"""`extmem bench imports`: an import does not copy memory, and a close leaves nothing behind."""

from __future__ import annotations

import gc
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import extmem
from extmem.cli._bench.measure import Figure, at_most, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and the host device of Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import (
    allow_descriptors,
    broker_of,
    descriptors_at_rest,
    descriptors_of,
    holdings,
    kib_of,
)
from extmem.cli._bench.sharing import SHARE, import_by_name

__all__ = ["figures"]

_SIZE = 256 << 20


def figures(env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure with 1,000 imports at once and 4,096 one after the other; fewer with `quick`."""
    allow_descriptors()
    live, churned, repeats = (50, 200, 2) if quick else (1_000, 4_096, 5)
    exporter, importer = env.worker("exporter"), env.worker("importer")
    name = env.name("imports")
    exporter.call(SHARE, [(name, _SIZE)])
    report(f"importing 256 MiB {live} times at once, {repeats} times in a row")
    grown, blocks, descriptors = importer.call(f"{__name__}:import_at_once", name, live, repeats)
    # Other processes change the machine's counter by some pages; each copy would change it by 256 MiB.
    yield at_most(f"shared memory of the machine after {live} imports", statistics.median(grown), 1.0, "MiB more")
    yield at_most(f"blocks of the payload's file after {live} imports", blocks, 0, "more")
    yield unbounded(f"fds of {live} imports", descriptors, "more")
    report(f"importing and closing {churned} times")
    broker = broker_of(env.directory)
    before = descriptors_at_rest(broker)
    for what, count in importer.call(f"{__name__}:import_and_close", name, churned).items():
        yield at_most(f"{what} left after {churned} imports and closes", count, 0, "left")
    yield at_most(
        f"fds of the broker left after {churned} imports and closes", descriptors_at_rest(broker) - before, 0, "left"
    )


# Tasks of the processes.


def import_at_once(name: str, count: int, repeats: int) -> tuple[list[float], int, int]:
    """Importer: return the growth of the machine's shared memory in MiB per repeat, of the file's blocks, of fds."""
    grown, blocks, descriptors = [], 0, 0
    with extmem.open_device(kind="host") as device, extmem.open(name, device=device) as first:
        size, memory_type = first.allocation_size, first.memory_type_index
        path = f"/proc/self/fd/{first.record.allocation.fd}"
        for _ in range(repeats):
            shared, held, opened = (
                kib_of("/proc/meminfo", "Shmem"),
                os.stat(path).st_blocks,
                descriptors_of(os.getpid()),
            )
            memories = [import_by_name(device, name, size, memory_type) for _ in range(count)]
            for memory in memories:
                memory.map()[0]
            grown.append((kib_of("/proc/meminfo", "Shmem") - shared) / 1024)
            blocks = max(blocks, os.stat(path).st_blocks - held)
            descriptors = max(descriptors, descriptors_of(os.getpid()) - opened)
            for memory in memories:
                memory.close()
    return grown, blocks, descriptors


def import_and_close(name: str, count: int) -> dict[str, int]:
    """Importer: return how many more fds, mappings and memory objects this process has afterwards."""
    with extmem.open_device(kind="host") as device:
        with extmem.open(name, device=device) as first:
            size, memory_type = first.allocation_size, first.memory_type_index
        before = _holdings()
        for _ in range(count):
            memory = import_by_name(device, name, size, memory_type)
            memory.map()[0]
            memory.close()
        gc.collect()
        return {what: amount - before[what] for what, amount in _holdings().items()}


def _holdings() -> dict[str, int]:
    from extmem.manager import manager

    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return {**holdings(), "mappings": maps.count("/memfd:"), "payloads": len(manager().snapshot())}
