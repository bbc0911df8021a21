"""`extmem bench imports`: importing copies nothing, and closing leaves nothing."""

from __future__ import annotations

import gc
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import extmem
from extmem.cli._bench.measure import Figure, at_most, told

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and host device; there is none to measure here")

from extmem.cli._bench.house import House
from extmem.cli._bench.machine import allow_descriptors, broker_of, descriptors_of
from extmem.cli._bench.sharing import import_by_name

__all__ = ["figures"]

_HERE = __name__
_SIZE = 256 << 20


def figures(house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure with 1,000 imports at once and 4,096 one after the other; fewer when quick."""
    allow_descriptors()
    live, churned, repeats = (50, 200, 2) if quick else (1_000, 4_096, 5)
    exporter, importer = house.worker("exporter"), house.worker("importer")
    name = house.name("imports")
    exporter.call("extmem.cli._bench.sharing:share", [(name, _SIZE)])
    say(f"importing 256 MiB {live} times at once, {repeats} times over")
    grown, blocks, descriptors = importer.call(f"{_HERE}:import_at_once", name, live, repeats)
    # Other processes move the machine's counter by some pages; a copy would move it by 256 MiB each.
    yield at_most(f"shared memory of the machine after {live} imports", statistics.median(grown), 1.0, "MiB more")
    yield at_most(f"blocks of the payload's file after {live} imports", blocks, 0, "more")
    yield told(f"descriptors of {live} imports", descriptors, "more")
    say(f"importing and closing {churned} times")
    broker = broker_of(house.directory)
    before = descriptors_of(broker)
    left = importer.call(f"{_HERE}:import_and_close", name, churned)
    for what, count in left.items():
        yield at_most(f"{what} left after {churned} imports and closes", count, 0, "left")
    yield at_most(
        f"descriptors of the broker left after {churned} imports and closes", descriptors_of(broker) - before, 0, "left"
    )


# What the processes do.


def import_at_once(name: str, count: int, repeats: int) -> tuple[list[float], int, int]:
    """Importer: growth of the machine's shared memory in MiB per repeat, of the file's blocks, and of descriptors."""
    grown, blocks, descriptors = [], 0, 0
    with extmem.open_device(kind="host") as device, extmem.open(name, device=device) as first:
        size, kind, path = (
            first.allocation_size,
            first.memory_type_index,
            f"/proc/self/fd/{first.holding.allocation.fd}",
        )
        for _ in range(repeats):
            shared, held, opened = _shmem_kib(), os.stat(path).st_blocks, descriptors_of(os.getpid())
            memories = [import_by_name(device, name, size, kind) for _ in range(count)]
            for memory in memories:
                memory.map()[0]
            grown.append((_shmem_kib() - shared) / 1024)
            blocks = max(blocks, os.stat(path).st_blocks - held)
            descriptors = max(descriptors, descriptors_of(os.getpid()) - opened)
            for memory in memories:
                memory.close()
    return grown, blocks, descriptors


def import_and_close(name: str, count: int) -> dict[str, int]:
    """Importer: what is left of this process's descriptors, mappings and memory objects, compared with before."""
    with extmem.open_device(kind="host") as device:
        with extmem.open(name, device=device) as first:
            size, kind = first.allocation_size, first.memory_type_index
        before = _holdings()
        for _ in range(count):
            memory = import_by_name(device, name, size, kind)
            memory.map()[0]
            memory.close()
        gc.collect()
        return {what: amount - before[what] for what, amount in _holdings().items()}


def _holdings() -> dict[str, int]:
    from extmem.manager import manager

    rows = manager().snapshot()
    mine = [holder for row in rows for holder in row.holders if holder.pid == os.getpid()]
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    return {
        "descriptors": descriptors_of(os.getpid()),
        "mappings": sum("/memfd:" in line for line in maps),
        "payloads": len(rows),
        "memory objects": sum(holder.references for holder in mine),
        "handles": sum(len(holder.handles) for holder in mine),
    }


def _shmem_kib() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1])
    raise OSError("/proc/meminfo has no Shmem line")
