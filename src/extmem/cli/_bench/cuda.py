"""`extmem bench cuda`: imports of a CUDA device against C, and passing tensors against PyTorch.

How this works. A small C file (`cuda_floor.c`) makes the same calls as extmem. It is compiled and loaded into a worker
process; it contains its own declarations of CUDA. The two sides run in turns, and each figure is a ratio of medians
(`cuda_rounds` has the rounds):

1. *importing*: the first import and map of a payload of the Vulkan device, by fd handle; also by name, without a bound.
2. *passing*: a payload that is open already becomes a tensor in another process, against `torch.multiprocessing`.
3. *leaks*: a thousand imports, and what is left of them on the device and in the process.

A part that fails is one figure that is not ok; the other parts are still measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.floor import compile_floor
from extmem.cli._bench.measure import (
    TURNS,
    Figure,
    at_least,
    at_most,
    measured_parts,
    microseconds,
    ratio,
    ratio_in_turns,
    unbounded,
)

__all__ = ["figures"]

_ROUNDS = "extmem.cli._bench.cuda_rounds"
_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "256 MiB": 256 << 20, "4 GiB": 4 << 30, "32 GiB": 32 << 30}
_BOUNDS = {"4 KiB": 1.5, "256 MiB": 1.06, "4 GiB": 1.06, "32 GiB": 1.06}
_BIG, _FEW = 4 << 30, 50
_TURN = 10
"""Number of rounds of one side before the other's turn: a driver that maps much memory empties the caches."""
_FASTER = 5.0
_CHURNED = 1_000
_DEADLINE = 600.0


def figures(env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure `rounds` of each comparison. Errors: UnsupportedError without CUDA, Vulkan or a compiler."""
    with extmem.open_device(kind="cuda") as device:
        uuid, room = device.uuid, device.memory_properties.memory_heaps[0].size
        report(device.name)
    sizes = dict(list((label, size) for label, size in _SIZES.items() if size <= room // 4)[: 2 if quick else None])
    parts = {
        "importing": lambda: _importing(env, uuid, sizes, rounds if quick else max(rounds, TURNS * _TURN), report),
        "passing": lambda: _passing(env, uuid, sizes, rounds, report),
        "leaks": lambda: _leaks(env, uuid, 50 if quick else _CHURNED, report),
    }
    yield from measured_parts(parts, report)


def _importing(
    env: Environment, uuid: bytes, sizes: dict[str, int], rounds: int, report: Callable[[str], None]
) -> Iterator[Figure]:
    library = compile_floor(env.directory, "cuda_floor.c")
    worker = env.worker("cuda imports")
    for label, size in sizes.items():
        report(f"importing {label}")
        count = min(rounds, _FEW) if size >= _BIG else rounds
        c, ours, named = worker.call(f"{_ROUNDS}:importing", library, uuid, size, count, _TURN, deadline=_DEADLINE)
        yield microseconds(f"import and map {label}: by C", c)
        name, by_fd = f"import and map {label}: by fd against C", ratio_in_turns(ours, c, _TURN)
        yield at_most(name, by_fd, _BOUNDS[label]) if label in _BOUNDS else unbounded(name, by_fd, "ratio")
        yield unbounded(f"import and map {label}: by name against C", ratio_in_turns(named, c, _TURN), "ratio")
    env.dismiss(worker)


def _passing(
    env: Environment, uuid: bytes, sizes: dict[str, int], rounds: int, report: Callable[[str], None]
) -> Iterator[Figure]:
    for number, (label, size) in enumerate(sizes.items()):
        report(f"passing {label}")
        address = os.fspath(env.directory / f"passing {number}.sock")
        sender, receiver = env.worker("sender"), env.worker("receiver")
        receiver.start(f"{_ROUNDS}:receive", address)
        ours, torch, bare = sender.call(f"{_ROUNDS}:passing", address, uuid, size, rounds, deadline=_DEADLINE)
        receiver.finish()
        env.dismiss(sender)
        env.dismiss(receiver)
        for what, times in (("by name", ours), ("by torch.multiprocessing", torch), ("the socket alone", bare)):
            yield microseconds(f"pass a tensor of {label}: {what}", times)
        yield at_least(f"pass a tensor of {label}: times as fast as torch.multiprocessing", ratio(torch, ours), _FASTER)


def _leaks(env: Environment, uuid: bytes, times: int, report: Callable[[str], None]) -> Iterator[Figure]:
    report(f"{times} imports")
    worker = env.worker("cuda churn")
    grown: dict[str, Any] = worker.call(f"{_ROUNDS}:churn", uuid, times, deadline=_DEADLINE)
    env.dismiss(worker)
    yield at_most(f"{times} imports: bytes of device memory left", grown["bytes"], 0, "bytes")
    yield at_most(f"{times} imports: fds left", grown["descriptors"], 0, "fds")
