"""Measures of long copies on a GPU: extmem's ring beside PyTorch, and beside the rate of pinned memory.

Run it as `python -m tests.gpu.ring_measures [GiB]`. It prints JSON: GB/s, the best of several rounds, for each way.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy

import extmem
from extmem.devices import copy_threads
from extmem.devices.cuda import pinned_ring

__all__ = ["measure", "rate"]

_ROUNDS = 5


def rate(work: Callable[[], object], size: int, rounds: int = _ROUNDS) -> float:
    """Return GB/s of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return size / best / 1e9


def measure(torch: Any, size: int) -> dict[str, Any]:
    """Return the rates of copies of `size` bytes, which are a multiple of 4."""
    with extmem.open_device(kind="cuda") as device, device.allocate(size // 4, "int32") as memory:
        found = _rates(torch, memory, size)
    for name, ours, other in (
        ("write / to", "write", "tensor.to(cuda)"),
        ("read / cpu", "read()", "tensor.cpu()"),
        ("read(out=) / copy_", "read(out=)", "out.copy_(tensor)"),
        ("write / pinned", "write", "on_gpu.copy_(pinned)"),
        ("read(out=) / pinned", "read(out=)", "pinned.copy_(on_gpu)"),
    ):
        found[name] = found[ours] / found[other]
    return found


def _rates(torch: Any, memory: extmem.DeviceMemory, size: int) -> dict[str, Any]:
    def waited(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            torch.cuda.synchronize()

        return run

    count = size // 4
    data = numpy.random.default_rng(0).integers(0, 1 << 30, count, "int32")
    theirs, on_gpu = torch.from_numpy(data), memory.torch()
    pinned, out = torch.empty(count, dtype=torch.int32, pin_memory=True), numpy.empty_like(data)
    warm = torch.empty_like(theirs)
    start = time.perf_counter()
    memory.write(data)
    first = time.perf_counter() - start
    found: dict[str, Any] = {
        "bytes": size,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "slots": pinned_ring.SLOTS,
        "slot bytes": pinned_ring.SLOT_SIZE,
        "threads at most": copy_threads._MOST,
        "first write, s": first,
        "write": rate(lambda: memory.write(data), size),
        "tensor.to(cuda)": rate(waited(lambda: theirs.to("cuda")), size),
        "write from pinned memory": rate(lambda: memory.write(pinned), size),
        "on_gpu.copy_(pinned)": rate(waited(lambda: on_gpu.copy_(pinned)), size),
        "read()": rate(memory.read, size),
        "tensor.cpu()": rate(on_gpu.cpu, size),
        "read(out=)": rate(lambda: memory.read(out), size),
        "out.copy_(tensor)": rate(waited(lambda: warm.copy_(on_gpu)), size),
        "pinned.copy_(on_gpu)": rate(waited(lambda: pinned.copy_(on_gpu)), size),
    }
    memory.write(data)
    found["contents"] = bool((memory.read() == data).all() and (memory.read(out) == data).all())
    return found


if __name__ == "__main__":
    import torch as _torch

    _size = int(float(sys.argv[1] if len(sys.argv) > 1 else 1) * (1 << 30))
    print(json.dumps(measure(_torch, _size), indent=1))
