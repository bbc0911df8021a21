"""Part of `extmem bench tensors`: 300 tensors on a GPU handed to another process by name, and by a queue of PyTorch.

How this works. One process has the tensors (62 MiB, of cudaMalloc, as PyTorch makes them) and has shared them once. It
starts a second one by `torch.multiprocessing` ("spawn"), and both ways use the same two queues, in turns: in a round of
PyTorch the queue carries the tensors, in one of extmem it carries the name. A round ends when the second process has
touched every tensor, has waited for the GPU, and has replied. It opens the name with the default right, to read, and
closes it at the end of each round, so each round imports the payload anew. Touching is the same function for both: the
sum of each tensor, one call for each. PyTorch's tensors are plain ones, and those of extmem refuse writes, which takes
time in each operation. So there are two figures: of the whole, and of the whole without the touch of each side. The
first touch in a process is told apart: PyTorch imports modules of its own when it meets the first tensor that refuses
writes. So is opening what the second process has open already.

Device memory is what is free in the first process before it shares the tensors a second time, and when the second
process has opened and touched them.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import extmem
from extmem.cli._bench.measure import (
    Figure,
    at_least,
    at_most,
    interleaved,
    ratio,
    unbounded,
)

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and opaque fds of Linux")

from extmem.cli._bench.environment import Environment

__all__ = ["figures", "make_state", "pass_state", "touch"]

_PATIENCE = 60.0
_WARM_UP = 5
_SHAPES = (((300, 512), "float32"), ((17, 512), "float32"), ((512,), "bfloat16"))
"""One layer. 100 of them have 62 MiB."""
_LAYERS = 100


def figures(env: Environment, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Hand the tensors over `rounds` times in each way."""
    report(f"handing over 300 tensors {rounds} times, in turns with torch.multiprocessing")
    worker, name = env.worker("sender"), env.name("state")
    times, used = worker.call(f"{__name__}:pass_state", name, rounds, deadline=600.0)
    env.dismiss(worker)
    ours, theirs = times["by name"], times["by queue"]
    what = "300 tensors (62 MiB) on the GPU"
    queue = "a torch.multiprocessing queue"
    mine = [whole - touched for whole, touched in zip(ours, times["touch by name"], strict=True)]
    untouched = [whole - touched for whole, touched in zip(theirs, times["touch by queue"], strict=True)]
    yield at_least(f"{what}, by name and touched: times as fast as {queue}", ratio(theirs, ours), 8)
    yield at_least(f"{what}, by name, the touch told apart: times as fast as {queue}", ratio(untouched, mine), 8)
    yield at_least(
        f"{what}, opening alone: times as fast as {queue} without the touch", ratio(untouched, times["open"]), 100
    )
    yield at_most(f"{what}: device memory, against the bytes of the tensors", used, 1.05)
    for label, spent in times.items():
        yield unbounded(f"{what}: {label}, p50", statistics.median(spent) / 1e6, "ms")


# Tasks of the processes.


def make_state(torch: Any) -> dict[str, Any]:
    """Return 300 tensors on the current GPU, 62 MiB together."""
    return {
        f"layers.{layer}.{number}": torch.full(shape, layer + number, dtype=getattr(torch, dtype), device="cuda")
        for layer in range(_LAYERS)
        for number, (shape, dtype) in enumerate(_SHAPES)
    }


def touch(torch: Any, tensors: Iterable[Any]) -> int:
    """Read each tensor by a kernel, and wait for the GPU. Return the nanoseconds."""
    begin = time.perf_counter_ns()
    for tensor in tensors:
        tensor.sum()
    torch.cuda.synchronize()
    return time.perf_counter_ns() - begin


def receive(requests: Any, answers: Any) -> None:
    """Second process: take names and tensors, touch what they are, and reply with the times, until it gets None."""
    torch = importlib.import_module("torch")
    torch.zeros(1, device="cuda").sum()
    torch.cuda.synchronize()
    # As in the first process, a collection in the middle of a round would be measured with it.
    importlib.import_module("gc").disable()
    kept = None
    while (found := requests.get()) is not None:
        if isinstance(found, tuple):
            kept = keep(torch, *found)
            answers.put(len(kept))
        else:
            answers.put(_received(torch, found))
        del found


def _received(torch: Any, found: Any) -> tuple[int, int, int]:
    """Return the nanoseconds of opening, of making the views, and of touching them."""
    if not isinstance(found, str):
        return 0, 0, touch(torch, found.values())
    begin = time.perf_counter_ns()
    memory = extmem.open(found)
    opened = time.perf_counter_ns()
    state = dict(memory.torch())
    made = time.perf_counter_ns()
    spent = touch(torch, state.values())
    del state
    memory.close()
    return opened - begin, made - opened, spent


def keep(torch: Any, name: str) -> dict[str, Any]:
    """Second process: open and touch what has this name, and return the tensors, which keep it open."""
    state = dict(extmem.open(name).torch())
    touch(torch, state.values())
    return state


def pass_state(name: str, rounds: int) -> tuple[dict[str, list[int]], float]:
    """First process: return the nanoseconds of each round and of its parts, and the device memory as a ratio."""
    torch = importlib.import_module("torch")
    processes = importlib.import_module("torch.multiprocessing").get_context("spawn")
    requests, answers = processes.Queue(), processes.Queue()
    child = processes.Process(target=receive, args=(requests, answers), daemon=True)
    child.start()
    parts: dict[str, list[int]] = {label: [] for label in ("open", "views", "touch by name", "touch by queue")}
    try:
        state = make_state(torch)
        torch.cuda.synchronize()
        sharing, size = [], sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        for number in range(5):
            begin = time.perf_counter_ns()
            with extmem.share(state, f"{name} {number}"):
                sharing.append(time.perf_counter_ns() - begin)

        def by_queue() -> int:
            start = time.perf_counter_ns()
            requests.put(state)
            answer = answers.get(timeout=_PATIENCE)
            spent = time.perf_counter_ns() - start
            parts["touch by queue"].append(answer[2])
            return spent

        def by_name() -> int:
            start = time.perf_counter_ns()
            requests.put(name)
            answer = answers.get(timeout=_PATIENCE)
            spent = time.perf_counter_ns() - start
            for label, part in zip(("open", "views", "touch by name"), answer, strict=True):
                parts[label].append(part)
            return spent

        with extmem.share(state, name):
            ours, theirs = interleaved(rounds, by_name, by_queue, warm_up=_WARM_UP)
        torch.cuda.synchronize()
        before = torch.cuda.mem_get_info()[0]
        with extmem.share(state, f"{name} again"):
            requests.put((f"{name} again",))  # the second process keeps it open
            answers.get(timeout=_PATIENCE)
            used = (before - torch.cuda.mem_get_info()[0]) / size
            again = []
            for _ in range(rounds):
                start = time.perf_counter_ns()
                requests.put(f"{name} again")
                answers.get(timeout=_PATIENCE)
                again.append(time.perf_counter_ns() - start)
    finally:
        requests.put(None)
        child.join(_PATIENCE)
        if child.is_alive():
            child.kill()
    times = {
        "by name": ours,
        "by name, open already": again,
        "by queue": theirs,
        "the first touch by name in a process": parts["touch by name"][:1],
        "sharing, which copies the tensors": sharing,
    }
    return {**times, **{label: spent[_WARM_UP:] for label, spent in parts.items()}}, used
