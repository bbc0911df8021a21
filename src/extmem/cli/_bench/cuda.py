"""`extmem bench cuda`: a CUDA device's imports against C that makes the same calls, and handing over against PyTorch.

How this works. A small C file (`cuda_floor.c`) is compiled and loaded into a worker process; it declares what it needs
of CUDA itself. What is compared takes turns, and each figure is a ratio of medians (`cuda_rounds` has the rounds):

1. *importing*: the first import and map of a payload of the Vulkan device, by fd handle; told beside it, by name.
2. *handing over*: an already known payload as a tensor in another process, against `torch.multiprocessing`.
3. *leaving nothing*: a thousand imports, and what is left of them on the device and in the process.

A part that fails is one figure that is not ok; the others are measured all the same.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem.cli._bench.floor import compile_floor
from extmem.cli._bench.measure import TURNS, Figure, at_least, at_most, ratio, ratio_in_turns, told

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and opaque fds; there is none to measure here")

from extmem.cli._bench.cuda_rounds import TURN
from extmem.cli._bench.house import House

__all__ = ["figures"]

_ROUNDS = "extmem.cli._bench.cuda_rounds"
_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "256 MiB": 256 << 20, "4 GiB": 4 << 30, "32 GiB": 32 << 30}
_BOUNDS = {"4 KiB": 1.5, "256 MiB": 1.05, "4 GiB": 1.05, "32 GiB": 1.05}
_BIG, _FEW = 4 << 30, 50
_FASTER = 5.0
_CHURNED = 1_000
_DEADLINE = 600.0


def figures(house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure; `rounds` of everything that is compared. Errors: UnsupportedError without CUDA, Vulkan or a compiler."""
    with extmem.open_device(kind="cuda") as device:
        uuid, room = device.uuid, device.memory_properties.memory_heaps[0].size
        say(device.name)
    sizes = dict(list((label, size) for label, size in _SIZES.items() if size <= room // 4)[: 2 if quick else None])
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "importing": lambda: _importing(house, uuid, sizes, rounds if quick else max(rounds, TURNS * TURN), say),
        "handing over": lambda: _handing(house, uuid, sizes, rounds, say),
        "leaving nothing": lambda: _leaving(house, uuid, 50 if quick else _CHURNED, say),
    }
    for part, measure in parts.items():
        try:
            yield from measure()
        except (extmem.ExtmemError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            say(f"{part} failed: {error}")
            yield at_most(f"{part}: could not be measured", 1, 0, "failed")


def _importing(
    house: House, uuid: bytes, sizes: dict[str, int], rounds: int, say: Callable[[str], None]
) -> Iterator[Figure]:
    library = compile_floor(house.directory, "cuda_floor.c")
    worker = house.worker("cuda imports")
    for label, size in sizes.items():
        say(f"importing {label}")
        count = min(rounds, _FEW) if size >= _BIG else rounds
        c, ours, named = worker.call(f"{_ROUNDS}:importing", library, uuid, size, count, deadline=_DEADLINE)
        yield told(f"import and map {label}: by C", statistics.median(c) / 1000, "microseconds")
        name = f"import and map {label}: by fd against C"
        bound = _BOUNDS.get(label)
        times = ratio_in_turns(ours, c, TURN)
        yield at_most(name, times, bound) if bound is not None else told(name, times, "ratio")
        yield told(f"import and map {label}: by name against C", ratio_in_turns(named, c, TURN), "ratio")
    house.dismiss(worker)


def _handing(
    house: House, uuid: bytes, sizes: dict[str, int], rounds: int, say: Callable[[str], None]
) -> Iterator[Figure]:
    for number, (label, size) in enumerate(sizes.items()):
        say(f"handing over {label}")
        address = os.fspath(house.directory / f"handing {number}.sock")
        giver, taker = house.worker("giver"), house.worker("taker")
        taker.start(f"{_ROUNDS}:take", address)
        ours, torch, bare = giver.call(f"{_ROUNDS}:handing", address, uuid, size, rounds, deadline=_DEADLINE)
        taker.finish()
        house.dismiss(giver)
        house.dismiss(taker)
        for what, times in (("by name", ours), ("by torch.multiprocessing", torch), ("the socket alone", bare)):
            yield told(f"hand a tensor of {label} over: {what}", statistics.median(times) / 1000, "microseconds")
        yield at_least(
            f"hand a tensor of {label} over: times as fast as torch.multiprocessing", ratio(torch, ours), _FASTER
        )


def _leaving(house: House, uuid: bytes, times: int, say: Callable[[str], None]) -> Iterator[Figure]:
    say(f"{times} imports")
    worker = house.worker("cuda churn")
    grown: dict[str, Any] = worker.call(f"{_ROUNDS}:churn", uuid, times, deadline=_DEADLINE)
    house.dismiss(worker)
    yield at_most(f"{times} imports: bytes of device memory left", grown["bytes"], 0, "bytes")
    yield at_most(f"{times} imports: descriptors left", grown["descriptors"], 0, "descriptors")
