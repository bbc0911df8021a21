"""What the processes of every benchmark do with a name: share payloads under it, open it, import it."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import extmem
from extmem import vk

__all__ = ["attached", "import_by_name", "opening", "share"]

_kept: list[Any] = []


def share(payloads: list[tuple[str, int]]) -> None:
    """Exporter: share these names and sizes until the process ends."""
    device = extmem.open_device(kind="host")
    _kept.extend(device.allocate(size, name=name) for name, size in payloads)


def opening(name: str) -> Callable[[], int]:
    """A step that opens by name and maps, and gives both back: the nanoseconds of the first two."""

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
    """A step that attaches to a block of `multiprocessing.shared_memory`, and detaches: nanoseconds of the first."""
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
    """vkAllocateMemory with VkImportMemoryWin32HandleInfoKHR::name: always a memory object of its own."""
    opaque = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
    return device.allocate_memory(
        vk.MemoryAllocateInfo(size, memory_type, vk.ImportMemoryWin32HandleInfoKHR(opaque, None, name))
    )
