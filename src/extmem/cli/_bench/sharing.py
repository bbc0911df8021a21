"""Tasks of the processes of all benchmarks: share payloads by name, open them, import them."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import extmem
from extmem import vk

__all__ = ["SHARE", "attached", "import_by_name", "opening", "share", "timed"]

SHARE = f"{__name__}:share"
"""The task `share`, for a worker."""
_kept: list[Any] = []


def share(payloads: list[tuple[str, int]], kind: str = "host") -> None:
    """Exporter: share payloads with these names and sizes, on a device of that kind, until the process ends."""
    device = extmem.open_device(kind=kind)
    _kept.extend([device, *(device.allocate(size, name=name) for name, size in payloads)])


def timed(make: Callable[[], extmem.DeviceMemory]) -> Callable[[], int]:
    """Return a step that calls a function, which returns memory, and closes it. It returns the time of the call."""

    def step() -> int:
        start = time.perf_counter_ns()
        memory = make()
        spent = time.perf_counter_ns() - start
        memory.close()
        return spent

    return step


def opening(name: str) -> Callable[[], int]:
    """Return a step that opens by name, maps and closes. It returns the nanoseconds of open and map."""

    def step() -> int:
        start = time.perf_counter_ns()
        memory = extmem.open(name)
        view = memory.map()
        spent = time.perf_counter_ns() - start
        del view
        memory.close()
        return spent

    return step


@contextlib.contextmanager
def attached(size: int) -> Iterator[Callable[[], int]]:
    """Return a step that attaches to a block of shared memory and detaches. It returns the time to attach."""
    block = SharedMemory(create=True, size=size, name=f"extmem-{secrets.token_hex(4)}")

    def step() -> int:
        start = time.perf_counter_ns()
        other = SharedMemory(name=block.name)
        spent = time.perf_counter_ns() - start
        other.close()
        return spent

    try:
        yield step
    finally:
        block.close()
        block.unlink()


def import_by_name(device: extmem.Device, name: str, size: int, memory_type: int) -> extmem.DeviceMemory:
    """Import with VkImportMemoryWin32HandleInfoKHR::name, which always makes a new memory object."""
    imported = vk.ImportMemoryWin32HandleInfoKHR(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32, None, name)
    return device.allocate_memory(vk.MemoryAllocateInfo(size, memory_type, imported))
