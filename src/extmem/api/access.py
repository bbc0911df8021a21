"""`DeviceMemory.access`: orders a stream and a queue by waiting at the beginning and at the end of a block.

How this works. Without shared semaphores, only the host can order the work of CUDA streams and of the Vulkan queue. At
the beginning of a block for a stream, the Vulkan device of this process releases the payload, and its work on the
payload is waited for. At the end of the block, the stream is waited for. A block for the queue begins with an acquire
from VK_QUEUE_FAMILY_EXTERNAL and ends with a release to it; each is submitted and waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from extmem.api.commands import Commands
from extmem.core import memory_buffer
from extmem.core.memory_object import MemoryObject
from extmem.core.resources import BufferObject
from extmem.devices.optional_protocols import ReleasesOwnership
from extmem.errors import UnsupportedError
from extmem.interop import DeviceArray, gpu_arrays
from extmem.interop.streams import stream_address

__all__ = ["on_queue", "on_stream"]


@contextlib.contextmanager
def on_stream(memory: MemoryObject, stream: object) -> Iterator[DeviceArray]:
    """Yield the memory as a GPU array, for work on that stream."""
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
    """Yield the memory as a buffer that is owned by the Vulkan queue of this process."""
    device = memory.device
    if device.backend.queue_facts is None:
        raise UnsupportedError(
            f"{device.name} ({device.kind}) has no queues; use access(stream=...) on it, or use a Vulkan device",
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
