"""`DeviceMemory.access`: one user after the other, by waiting for each at the edges of a block.

How this works. Until semaphores that both sides know come, the only order between CUDA's streams and Vulkan's queue is
the host's. A block for a stream begins when this process's Vulkan device has released the payload and is done with it,
and ends when the stream is. A block for the queue begins with the acquire from VK_QUEUE_FAMILY_EXTERNAL and ends with
the release to it, each submitted and waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from extmem.api.commands import Commands
from extmem.core import memory_buffer
from extmem.devices.optional_protocols import ReleasesOwnership
from extmem.errors import UnsupportedError
from extmem.interop import gpu_arrays

if TYPE_CHECKING:
    from extmem.core.memory_object import MemoryObject
    from extmem.core.resources import BufferObject
    from extmem.interop import DeviceArray

__all__ = ["on_queue", "on_stream", "stream_address"]


def stream_address(stream: object) -> int:
    """CUstream of a stream given as an address, or by PyTorch, CuPy, cuda-core or whoever has `__cuda_stream__`.

    None is the default stream. Errors: TypeError.
    """
    if stream is None:
        return 0
    if isinstance(stream, int):
        return stream
    protocol: Any = getattr(stream, "__cuda_stream__", None)
    found = protocol()[1] if callable(protocol) else getattr(stream, "cuda_stream", getattr(stream, "ptr", None))
    if not isinstance(found, int):
        raise TypeError(f"{stream!r} is no CUDA stream: pass its address, or a stream of PyTorch, CuPy or cuda-core")
    return found


@contextlib.contextmanager
def on_stream(memory: MemoryObject, stream: object) -> Iterator[DeviceArray]:
    """The memory as a GPU array, for work on that stream."""
    address = stream_address(stream)
    with memory.use() as record:
        array = gpu_arrays.device_array(memory)
        if array is None:
            raise gpu_arrays.no_gpu_error(memory.what(), memory.device)
        pointer = gpu_arrays.device_pointer(record)
        backend = record.device.backend
        if isinstance(backend, ReleasesOwnership):
            backend.release_ownership(record.allocation)
        try:
            yield array
        finally:
            del array
            if pointer is not None:
                pointer.wait(address)


@contextlib.contextmanager
def on_queue(memory: MemoryObject) -> Iterator[BufferObject]:
    """The memory as a buffer that this process's Vulkan queue owns."""
    device = memory.device
    if device.backend.queue_facts is None:
        raise UnsupportedError(
            f"{device.name} ({device.kind}) has no queues; use access(stream=...) there, or a Vulkan device",
            requires_one_of=["a Vulkan device"],
        )
    with memory.use():
        buffer = memory_buffer.buffer_over(memory)
        with Commands(device) as commands:
            commands.acquire(buffer)
        try:
            yield buffer
        finally:
            with Commands(device) as commands:
                commands.release(buffer)
