"""What a GPU really did: every copy and every kernel, as CUPTI reports to PyTorch's profiler, and the memory in use.

How this works. `watched` runs some work under the profiler and reads from its trace what the GPU executed in this
process: copies (in any direction, with their bytes) and kernels. A trace without a single kernel comes from a machine
where CUPTI reports nothing (it is not installed, or lacks rights), so it proves nothing: NotWatchingError.
`moved_nothing` is the check; test_moves_nothing.py plants the faults that it must find.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import extmem
from extmem.api import Device
from extmem.handles import FdHandle

__all__ = ["NotWatchingError", "Watched", "moved_nothing", "passed", "passed_elsewhere", "watched"]

_COPIES, _KERNELS = ("gpu_memcpy",), ("kernel",)


class NotWatchingError(AssertionError):
    """The profiler reported no kernel where there was one, so an absent copy would prove nothing."""


@dataclass(frozen=True)
class Watched:
    """What some work made the GPU do. All sizes are in bytes."""

    copies: list[tuple[str, int]]
    """The name, such as "Memcpy DtoD (Device -> Device)", and the size of each copy."""
    kernels: int
    taken: int
    """Device memory that was in use in the middle of the work and not before it."""
    allocated: int
    """The peak of what PyTorch's allocator held."""

    @property
    def copied(self) -> int:
        """The bytes of all copies."""
        return sum(size for _, size in self.copies)


def watched(torch: Any, work: Callable[[Callable[[], None]], None]) -> Watched:
    """Run `work`, which calls its argument once it holds everything that it needs. Errors: NotWatchingError."""
    free = 0

    def measure() -> None:
        nonlocal free
        torch.cuda.synchronize()
        free = torch.cuda.mem_get_info()[0]

    torch.zeros(1, device="cuda").add_(1)  # kernels are loaded before anything is counted
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, held = torch.cuda.mem_get_info()[0], torch.cuda.memory_allocated()
    activities = torch.profiler.ProfilerActivity
    # (acc_events: otherwise a second profile in one process warns that the first one's events are lost.)
    with torch.profiler.profile(activities=[activities.CPU, activities.CUDA], acc_events=True) as profiler:
        work(measure)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        profiler.export_chrome_trace(path)
        with open(path, encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
    kernels = sum(event.get("cat") in _KERNELS for event in events)
    if not kernels:
        raise NotWatchingError(
            "the profiler's trace has no kernel, though one ran: CUPTI reports nothing (is libcupti installed, and may "
            f"this user profile the GPU?); it has {sorted({str(event.get('cat')) for event in events})}"
        )
    if not free:
        raise NotWatchingError("the work did not call its argument when it held everything that it needs")
    copies = [(event["name"], int(event["args"]["bytes"])) for event in events if event.get("cat") in _COPIES]
    return Watched(copies, kernels, before - free, torch.cuda.max_memory_allocated() - held)


def moved_nothing(seen: Watched, room: int) -> None:
    """Raise AssertionError if bytes were copied, or more than `room` bytes of device memory taken (for page tables)."""
    assert not seen.copied, f"copied: {seen.copies}"
    assert seen.taken < room, f"{seen.taken} more bytes of device memory are in use"
    assert not seen.allocated, f"PyTorch allocated {seen.allocated} bytes"


def passed(torch: Any, source: str | FdHandle, *, device: Device | None = None, copying: bool = False) -> Watched:
    """Open a payload of bytes as a tensor, add one to each by a kernel, and close it, under the profiler.

    device: where it is opened; None leaves that to `extmem.open`. copying: plants a fault: the tensor is cloned.
    """

    def work(look: Callable[[], None]) -> None:
        with extmem.open(source, device=device) as memory:
            tensor = memory.torch()
            if copying:
                tensor = tensor.clone()
            tensor += 1
            look()
            del tensor

    return watched(torch, work)


def passed_elsewhere(name: str, copying: bool) -> tuple[list[tuple[str, int]], int, int, int]:
    """Run `passed` by name in another process, which imports the memory of this one."""
    import torch

    extmem.open(name).close()  # what a device makes at its first use exists already
    seen = passed(torch, name, copying=copying)
    return seen.copies, seen.kernels, seen.taken, seen.allocated
