"""Parts of `extmem bench tensors`: PyTorch's own memory, shared where it is, against imports of the driver in C.

How this works.

1. *lent*: a tensor of 4 GiB of expandable segments, one of `extmem.torch.pool()`, and memory of that size that extmem
   allocated, in one process. Another process opens each by its name, in turns with a loop in C (`cuda_floor.c`) that
   imports and maps the same handles and lets the device read them. C has the handles already, and asks no object
   manager. The time of sharing and what the GPU has free before and after it show that no byte moves.
2. *rounds*: in each round a tensor is shared, a reader opens it, a third process that has a handle to it is killed
   with -9, the sharer frees the tensor, empties PyTorch's cache and fills a new one. Then the reader looks at every
   byte, and closes the memory. In some rounds the killed process has the tensor open on the GPU. Afterwards nothing may
   be left.
"""

from __future__ import annotations

import gc
import importlib
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import extmem
from extmem.cli._bench.floor import CudaFloor, compile_floor
from extmem.cli._bench.measure import Figure, at_most, interleaved, ratio_in_turns, size_text, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and fds of Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import allow_descriptors, broker_of, descriptors_at_rest, descriptors_of
from extmem.cli._bench.waiting import wait_for
from extmem.cli._worker import Worker
from extmem.manager import Reference, manager

__all__ = ["figures", "imports_in_turns", "rounds"]

_BIG, _QUICK = 4 << 30, 256 << 20
_SHARES = 10
_OPENS = 20
_ROUND = 24 << 20
"""Bytes of the tensor of one round: more than one allocation of PyTorch."""
_ON_THE_GPU = 50
"""Each round of this number, the killed process has the tensor open."""
_PAGE_TABLES = 64 << 20
"""Bytes that the driver may keep for its own use when large memory is mapped."""
_WAYS = {
    "expandable segments": ("against C's imports of as many allocations", 1.5),
    "pool()": ("against C's import of one allocation", 1.05),
    "memory that extmem allocated": ("against C's import of one allocation", None),
}
"""How the tensor was allocated, and the bound of opening it."""
_at: dict[str, Any] = {}


def figures(env: Environment, uuid: bytes, report: Callable[[str], None], *, quick: bool) -> Iterator[Figure]:
    """Measure with tensors of 4 GiB; smaller ones with `quick`, and if the GPU has too little memory."""
    allow_descriptors()
    library = compile_floor(env.directory, "cuda_floor.c")
    lender, reader = env.worker("lender"), env.worker("reader")
    size, why = lender.call(f"{__name__}:begin", uuid, _QUICK if quick else _BIG)
    label = size_text(size)
    if why:
        report(f"expandable segments cannot be shared here: {why}")
        yield unbounded(f"expandable segments: {why}", 0, "not measured")
    report(f"sharing and opening {label} of PyTorch's memory")
    reader.call(f"{__name__}:begin_reading", uuid, library)
    opened: dict[str, list[int]] = {}
    for way, (against, bound) in _WAYS.items():
        if way == "expandable segments" and why:
            continue
        name = env.name(way)
        shared, copied, taken, count = lender.call(f"{__name__}:lend", way, name, size, deadline=300.0)
        ours, by_c, used = reader.call(f"{__name__}:open_in_turns", name, size, 5 if quick else _OPENS, deadline=300.0)
        lender.call(f"{__name__}:take_back")
        opened[way] = ours
        what = f"{label} of {way}"
        yield unbounded(f"{what}: allocations of the driver", count, "allocations")
        if shared:
            yield at_most(f"share {what}: copies", copied, 0, "copies")
            yield at_most(
                f"share and open {what}: device memory", max(taken, used) / (1 << 20), _PAGE_TABLES >> 20, "MiB"
            )
            times = statistics.median(shared) / 1e6
            yield at_most(f"share {what}, p50", times, 20.0, "ms")
            yield unbounded(f"share {what}, the first time", shared[0] / 1e6, "ms")
        value = ratio_in_turns(ours, by_c, 1)
        name = f"open {what}, {against}"
        yield unbounded(name, value, "ratio") if bound is None else at_most(name, value, bound)
        yield unbounded(f"open {what}, p50", statistics.median(ours) / 1e6, "ms")
        yield unbounded(f"the same by C, {what}, p50", statistics.median(by_c) / 1e6, "ms")
    mine, plain = (statistics.median(opened[way]) for way in ("pool()", "memory that extmem allocated"))
    yield at_most(f"open {label} of pool(), against opening memory that extmem allocated", mine / plain, 1.05)
    for worker in (reader, lender):
        env.dismiss(worker)


def rounds(env: Environment, count: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Share, kill, free and read `count` times."""
    allow_descriptors()
    report(f"freeing, emptying the cache and killing a process, {count} times")
    lender, reader = env.worker("lender"), env.worker("reader")
    why = lender.call(f"{__name__}:begin_rounds")
    if why:
        yield unbounded(f"rounds of empty_cache, free and kill: {why}", 0, "not measured")
        return
    reader.call(f"{__name__}:begin_reading", b"", "")
    for number in range(3):  # what stays after the first use exists from now on
        _round(env, lender, reader, env.worker("victim"), number, on_gpu=False)
    broker = broker_of(env.directory)
    before = (*lender.call(f"{__name__}:left"), *reader.call(f"{__name__}:left"), descriptors_at_rest(broker))
    ahead = max(2, min(4, os.cpu_count() or 2))
    ready: deque[Worker] = deque()
    wrong = killed = 0
    for number in range(count):
        while len(ready) < min(ahead, count - number):
            ready.append(env.worker("victim"))
            ready[-1].start(f"{__name__}:prepare")
        on_gpu = number % _ON_THE_GPU == 0
        killed += on_gpu
        victim = ready.popleft()
        victim.finish()
        wrong += not _round(env, lender, reader, victim, number + 3, on_gpu=on_gpu)
        if not (number + 1) % 50:
            report(f"{number + 1} rounds")
    after = list(before)

    def settled() -> bool:
        after[:] = [
            *lender.call(f"{__name__}:left"),
            *reader.call(f"{__name__}:left"),
            descriptors_of(broker),
        ]
        return all(now <= then for now, then in zip(after, before, strict=True))

    if not wait_for(settled, 20.0):
        report("not everything was released within 20 s")
    what = f"{count} rounds of empty_cache, free and kill -9"
    yield at_most(f"{what}: rounds with other contents", wrong, 0, "left")
    labels = ("payloads", "loans", "MiB of PyTorch's memory", "fds of the sharer", "", "", "", "fds of the reader")
    for label, then, now in zip((*labels, "fds of the broker"), before, after, strict=True):
        if label:
            yield at_most(f"{what}: {label} left", max(0, now - then), 0, "left")
    yield unbounded(f"{what}: killed processes that had the tensor open on the GPU", killed, "processes")
    for worker in (reader, lender):
        env.dismiss(worker)


def _round(env: Environment, lender: Worker, reader: Worker, victim: Worker, number: int, *, on_gpu: bool) -> bool:
    """Run one round. Return whether the reader saw what had been shared."""
    name, value = env.name(f"round {number}"), number % 251
    lender.call(f"{__name__}:lend_round", name, value)
    reader.call(f"{__name__}:open_round", name)
    victim.call(f"{__name__}:hold", name, on_gpu)
    lender.call(f"{__name__}:free_round")
    victim.kill()
    env.dismiss(victim)
    return bool(reader.call(f"{__name__}:check_round", value))


# Tasks of the process that shares.


def begin(uuid: bytes, size: int) -> tuple[int, str]:
    """Sharer: open the device. Return the bytes to share, and why expandable segments cannot be shared; else empty."""
    torch = importlib.import_module("torch")
    torch.zeros(1, device="cuda")
    _at["device"] = extmem.open_device(kind="cuda", uuid=uuid)
    while size > torch.cuda.mem_get_info()[0] // 4:
        size //= 2
    return size, _make_shareable()


def _make_shareable() -> str:
    """Switch expandable segments on. Return why new tensors of them cannot be shared; empty if they can."""
    try:
        left = extmem.torch.make_shareable()
    except extmem.UnsupportedError as error:
        return str(error)
    return next((one.reason for one in left if not one.address), "")


def lend(way: str, name: str, size: int) -> tuple[list[int], int, int, int]:
    """Sharer: share a tensor several times, the last time until `take_back`.

    Return the nanoseconds of each time, whether it was copied, the device memory that it took, and how many allocations
    of the driver it has. The memory that extmem allocated is not shared by this call.
    """
    torch = importlib.import_module("torch")
    if way == "memory that extmem allocated":
        device: extmem.Device = _at["device"]
        memory = device.allocate(size, name=name)
        memory.fill(7)
        _at["memory"] = memory
        return [], 0, 0, len(memory.descriptor.part_sizes) or 1
    if way == "pool()":
        with extmem.torch.pool():
            tensor = torch.full((size,), 7, dtype=torch.uint8, device="cuda")
    else:
        tensor = torch.full((size,), 7, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    free, times, copied = torch.cuda.mem_get_info()[0], [], 0
    for number in range(_SHARES):
        begin = time.perf_counter_ns()
        memory = extmem.share(tensor, name)
        times.append(time.perf_counter_ns() - begin)
        copied += memory.copied is not False
        if number < _SHARES - 1:
            memory.close()
    _at.update(memory=memory, tensor=tensor)
    return times, copied, free - torch.cuda.mem_get_info()[0], len(memory.descriptor.part_sizes) or 1


def take_back() -> None:
    """Sharer: close the memory and free the tensor, when nobody has it any more."""
    torch = importlib.import_module("torch")
    _at.pop("memory").close()
    _at.pop("tensor", None)
    wait_for(lambda: not _loans(), 10.0)
    torch.cuda.empty_cache()


def _loans() -> list[Any]:
    from extmem.devices.host import loans

    return loans.lent()


def begin_rounds() -> str:
    """Sharer: return why new tensors cannot be shared where they are; empty if they can."""
    importlib.import_module("torch").zeros(1, device="cuda")
    return _make_shareable()


def lend_round(name: str, value: int) -> None:
    """Sharer: share a new tensor that contains this value."""
    torch = importlib.import_module("torch")
    tensor = torch.full((_ROUND,), value, dtype=torch.uint8, device="cuda")
    _at.update(tensor=tensor, memory=extmem.share(tensor, name, copy=False))


def free_round() -> None:
    """Sharer: close the memory, free the tensor, empty the cache, and fill new memory, so that reused bytes change."""
    torch = importlib.import_module("torch")
    _at.pop("memory").close()
    del _at["tensor"]
    torch.cuda.empty_cache()
    torch.full((4 * _ROUND,), 255, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()


def left() -> tuple[int, int, int, int]:
    """Return the numbers of payloads, of loans, of MiB that PyTorch has reserved, and of fds of this process."""
    torch = importlib.import_module("torch")
    gc.collect()
    torch.cuda.empty_cache()
    reserved = torch.cuda.memory_reserved() >> 20
    return len(manager().snapshot()), len(_loans()), reserved, descriptors_of(os.getpid())


# Tasks of the processes that open.


def begin_reading(uuid: bytes, library: str) -> None:
    """Reader: have a context of the GPU, and the functions in C if there is a library."""
    importlib.import_module("torch").zeros(1, device="cuda")
    if library:
        _at["floor"] = CudaFloor(library, uuid)


def open_in_turns(name: str, size: int, times: int) -> tuple[list[int], list[int], int]:
    """Reader: return the nanoseconds of opening the memory, and of C's imports of the same handles.

    Also the bytes of device memory that it takes to have the memory open.
    """
    torch = importlib.import_module("torch")
    with extmem.open(name) as memory:
        ends = memory.torch("uint8", (size,))[:: size - 1].tolist()
    if ends != [7, 7]:
        raise RuntimeError(f"the reader of {name!r} has seen {ends} and not [7, 7]")
    ours, by_c = imports_in_turns(name, times, _at["floor"].imported_parts)
    free = torch.cuda.mem_get_info()[0]
    with extmem.open(name):
        used = free - torch.cuda.mem_get_info()[0]
    return ours, by_c, used


def imports_in_turns(name: str, times: int, by_c: Callable[[Sequence[int], Sequence[int]], int]) -> list[list[int]]:
    """Return the nanoseconds of opening the memory, and what `by_c` returns for its fds and their sizes, in turns."""
    owner = manager()
    held = owner.import_by_name(name, extmem.Access.READ, Reference(owner))
    described = extmem.Descriptor.parse(held.descriptor)
    sizes = described.part_sizes or (described.allocation_size,)
    fds = held.payload.fds[: len(sizes)]  # companion pages are behind them

    def ours() -> int:
        begin = time.perf_counter_ns()
        memory = extmem.open(name)
        spent = time.perf_counter_ns() - begin
        memory.close()
        return spent

    try:
        return interleaved(times, ours, lambda: by_c(fds, sizes), warm_up=2)
    finally:
        held.give_back()


def open_round(name: str) -> None:
    """Reader: open the tensor of a round."""
    _at["memory"] = extmem.open(name)


def check_round(value: int) -> bool:
    """Reader: return whether every byte has this value, and close the memory."""
    memory = _at.pop("memory")
    tensor = memory.torch()
    low, high = (int(one) for one in tensor.aminmax())
    del tensor
    memory.close()
    return low == high == value


def prepare() -> None:
    """Victim: have what it needs to open memory, before the round begins."""
    manager().snapshot()


def hold(name: str, on_gpu: bool) -> None:
    """Victim: have the tensor, by a handle or on the GPU, until the process is killed."""
    _at["held"] = extmem.open(name) if on_gpu else extmem.open_handle(name, extmem.Access.READ)
