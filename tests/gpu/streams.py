"""Streams of CUDA's own for the tests, and work on them: what the tests need of CUDA besides extmem."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from extmem.api import Device, DeviceMemory
from extmem.api.commands import Commands
from extmem.testing.waiting import wait_until

__all__ = ["fill", "new_stream", "record_copy", "record_fill", "synchronize"]

_NON_BLOCKING = 1
_NOT_READY = 600


@contextlib.contextmanager
def new_stream(cuda: Device) -> Iterator[int]:
    """A stream that does not wait for the default stream, as those of PyTorch."""
    backend: Any = cuda.backend
    module = backend.device.module
    with backend.device.gpu.current:
        result, stream = module.cuStreamCreate(_NON_BLOCKING)
        assert not result
    try:
        yield int(stream)
    finally:
        synchronize(cuda, int(stream))
        with backend.device.gpu.current:
            module.cuStreamDestroy(stream)
        backend.finish_submitted()


def synchronize(cuda: Device, stream: int) -> None:
    """Wait until the stream has done everything. A wait that nobody satisfies fails the test, and does not block it."""
    backend: Any = cuda.backend

    def done() -> bool:
        with backend.device.gpu.current:
            return int(backend.device.module.cuStreamQuery(stream)[0]) != _NOT_READY

    wait_until(done, lambda: f"stream {stream:#x} to do everything")
    with backend.device.gpu.current:
        assert not backend.device.module.cuStreamSynchronize(stream)[0]


def fill(cuda: Device, memory: DeviceMemory, value: int, stream: int) -> None:
    """Fill memory that is open on the CUDA device, in the order of the stream. Returns at once."""
    backend: Any = cuda.backend
    with memory.use() as record, backend.device.gpu.current:
        pointer = record.allocation.live
        assert not backend.device.module.cuMemsetD8Async(pointer, value, memory.size, stream)[0]


def record_fill(commands: Commands, memory: DeviceMemory, word: int) -> None:
    """Record a fill on the Vulkan queue, which acquires the memory from its other users and releases it to them."""
    buffer = memory.buffer()
    commands.acquire(buffer)
    commands.fill_buffer(buffer, word)
    commands.release(buffer)


def record_copy(commands: Commands, source: DeviceMemory, target: DeviceMemory) -> None:
    """Record a copy; as `record_fill`."""
    for buffer in (source.buffer(), target.buffer()):
        commands.acquire(buffer)
    commands.copy_buffer(source.buffer(), target.buffer())
    for buffer in (source.buffer(), target.buffer()):
        commands.release(buffer)
