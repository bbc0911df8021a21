"""Part of `extmem bench tensors`: long copies between ordinary memory of the host and a GPU, against PyTorch's.

How this works. In one process, steps of extmem, of PyTorch and of pinned memory copy the same number of bytes, in
turns. Each step ends when the copy is done. The first write, which pins the ring, is told apart. The rates of pinned
memory are those of PyTorch's copies from and to a pinned tensor: no way can be faster, and a copy from ordinary memory
reads it once more. With fewer than four processors the ratios have no bounds, because threads that copy gain nothing
there.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem.cli._bench.measure import Figure, at_least, at_most, interleaved, ratio, size_text, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark counts the processors that Linux allows")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import processors

__all__ = ["figures", "steps_of"]

_SIZE, _QUICK = 1 << 30, 64 << 20
_TURNS = 7
_PROCESSORS = 4
_PAIRS = (
    ("write()", 'tensor.to("cuda")', 2.5),
    ("read()", "tensor.cpu()", 3.0),
    ("read(out=)", "out.copy_(tensor)", 2.0),
)
"""What is compared, and by how much it is faster at least."""
_PINNED = {
    "write()": "copy from pinned memory",
    "read()": "copy to pinned memory",
    "read(out=)": "copy to pinned memory",
}


def figures(env: Environment, uuid: bytes, report: Callable[[str], None], *, quick: bool) -> Iterator[Figure]:
    """Copy 1 GiB in turns; 64 MiB with `quick`."""
    size = _QUICK if quick else _SIZE
    label, turns = size_text(size), 2 if quick else _TURNS
    report(f"copying {label} to and from the GPU, {turns} times in each way")
    worker = env.worker("copier")
    times, first, wrong = worker.call(f"{__name__}:copy_in_turns", uuid, size, turns, deadline=600.0)
    env.dismiss(worker)
    count = len(processors())
    if count < _PROCESSORS:
        report(f"there are {count} processors: the ratios of copies have no bounds with fewer than {_PROCESSORS}")
    for ours, theirs, bound in _PAIRS:
        name = f"{ours} of {label}: times as fast as {theirs}"
        value = ratio(times[theirs], times[ours])
        yield at_least(name, value, bound) if count >= _PROCESSORS else unbounded(name, value, "times")
        name = f"{ours} of {label}: part of the rate of pinned memory"
        yield unbounded(name, ratio(times[_PINNED[ours]], times[ours]), "ratio")
    for step, spent in times.items():
        yield unbounded(f"{step} of {label}", size / statistics.median(spent), "GB/s")
    yield unbounded(f"the first write() of {label}, which pins the ring", first / 1e6, "ms")
    yield at_most(f"copies of {label} with other contents", wrong, 0, "left")
    yield unbounded("processors for the copies", count, "processors")


# Task of the process.


def copy_in_turns(uuid: bytes, size: int, turns: int) -> tuple[dict[str, list[int]], int, int]:
    """Return the nanoseconds of each step, those of the first write, and how many copies had other contents."""
    torch = importlib.import_module("torch")
    torch.zeros(1, device="cuda")
    with extmem.open_device(kind="cuda", uuid=uuid) as device, device.allocate(size // 4, "int32") as memory:
        data = torch.randint(1 << 30, (size // 4,), dtype=torch.int32)
        begin = time.perf_counter_ns()
        memory.write(data)
        first = time.perf_counter_ns() - begin
        steps = steps_of(torch, memory, data, "cuda")
        times = dict(zip(steps, interleaved(turns, *(_timed(step) for step in steps.values()), warm_up=1), strict=True))
        out = torch.empty_like(data)
        memory.fill(0)
        memory.write(data)
        memory.read(out.numpy())
        wrong = int(not torch.equal(out, data)) + int(not torch.equal(torch.from_numpy(memory.read()), data))
    return times, first, wrong


def steps_of(torch: Any, memory: extmem.DeviceMemory, data: Any, place: str) -> dict[str, Callable[[], object]]:
    """Return the steps by their names. data: a tensor of the host. place: PyTorch's name of the GPU."""
    pinned = torch.empty_like(data, pin_memory=place != "cpu")
    pinned.copy_(data)
    on_gpu, back, out = data.to(place), torch.empty_like(data), torch.empty_like(data)
    array = out.numpy()

    def waited(work: Callable[[], object]) -> Callable[[], object]:
        def step() -> object:
            result = work()
            torch.cuda.synchronize()
            return result

        return step

    wait = waited if place != "cpu" else lambda work: work
    return {
        "write()": functools.partial(memory.write, data),
        'tensor.to("cuda")': wait(lambda: data.to(place)),
        "read()": memory.read,
        "tensor.cpu()": on_gpu.cpu,
        "read(out=)": functools.partial(memory.read, array),
        "out.copy_(tensor)": wait(lambda: back.copy_(on_gpu)),
        "copy from pinned memory": wait(lambda: on_gpu.copy_(pinned)),
        "copy to pinned memory": wait(lambda: pinned.copy_(on_gpu)),
    }


def _timed(work: Callable[[], object]) -> Callable[[], int]:
    def step() -> int:
        begin = time.perf_counter_ns()
        result = work()
        spent = time.perf_counter_ns() - begin
        del result
        return spent

    return step
