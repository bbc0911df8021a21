"""`DeviceMemory.access`: orders a stream and a queue by waiting at the beginning and at the end of a block.

How this works. Without timelines, only the host can order the work of CUDA streams and of the Vulkan queue. At the
beginning of a block for a stream, the Vulkan device of this process releases the payload, and its work on the payload
is waited for. At the end of the block, the stream is waited for. A block for the queue begins with an acquire from
VK_QUEUE_FAMILY_EXTERNAL and ends with a release to it; each is submitted and waited for.

With timelines (`wait`, `signal`), the stream or queue waits and signals, and the host does not wait: a stream by an
import of the timeline into CUDA, a queue by the submissions of the acquire and the release. What was released before is
not released again for a stream. Memory that a stream uses after the block is held until the stream is done with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from extmem.api.commands import Commands
from extmem.core import memory_buffer, shared_devices, sync_operations
from extmem.core.device_state import DeviceState
from extmem.core.memory_object import MemoryObject
from extmem.core.memory_record import MemoryRecord
from extmem.core.resources import BufferObject
from extmem.devices.optional_protocols import FinishesLater, ReleasesOwnership
from extmem.errors import UnsupportedError
from extmem.interop import DeviceArray, gpu_arrays
from extmem.interop.streams import stream_address
from extmem.owning import Uses

__all__ = ["on_queue", "on_stream"]


def waiter(memory: MemoryObject, stream: object) -> Callable[[], None] | None:
    """Return a function that waits for the work of a stream, and of the device, on the memory; None if the host alone
    uses it.
    """
    if memory.device.kind == "host":
        return None
    address = stream_address(stream)

    def finish() -> None:
        with memory.use() as record:
            if record.companion is not None or record.device.descriptor_importer is not None:
                pointer = gpu_arrays.device_pointer(record)
                if pointer is not None:
                    pointer.wait(address)
            backend = record.device.backend
            if isinstance(backend, FinishesLater):
                backend.finish_submitted()

    return finish


@contextlib.contextmanager
def on_stream(memory: MemoryObject, stream: object, wait: object, signal: object) -> Iterator[DeviceArray]:
    """Yield the memory as a GPU array, for work on that stream."""
    address = stream_address(stream)
    with memory.use() as record, Uses() as uses:
        waits = signals = None
        if wait is not None or signal is not None:
            pairs = sync_operations.order_pairs.pairs
            waits, signals = pairs(wait, uses, "wait"), pairs(signal, uses, "signal")
        array = gpu_arrays.device_array(memory)
        if array is None:
            raise gpu_arrays.no_gpu_error(memory.what(), memory.device)
        pointer = gpu_arrays.device_pointer(record)
        if record.deferred is None:  # else no queue of this process has used it yet
            backend = record.device.backend
            if isinstance(backend, ReleasesOwnership) and (waits is None or backend.owns(record.allocation)):
                backend.release_ownership(record.allocation)
        cuda = _cuda_device(record) if waits is not None else None
        if waits and cuda is not None:
            sync_operations.stream_order.stream_wait(cuda, address, waits, uses)
        try:
            yield array
        except BaseException:
            # The work may be incomplete: what waits for it is not told that it is done.
            del array
            if pointer is not None:
                pointer.wait(address)
            raise
        del array
        if signals and cuda is not None:
            # CUDA's memory, and not the record: so the memory can be closed, and its device too.
            used = record.allocation if cuda is record.device else record.companion
            if used is not None:
                sync_operations.stream_order.hold_until_done(cuda, address, used)
            sync_operations.stream_order.stream_signal(cuda, address, signals, uses)
        elif pointer is not None:
            pointer.wait(address)


def _cuda_device(record: MemoryRecord) -> DeviceState:
    """Return the device of CUDA whose streams use the memory."""
    device = record.device
    if device.descriptor_importer is not None:
        return device
    found = shared_devices.cuda_device(device.uuid)
    if found is None:
        raise UnsupportedError(
            f"{device.name} is not a GPU that CUDA finds, so no stream can wait for a timeline there; use "
            "access(queue=True)",
            requires_one_of=["a GPU that CUDA supports"],
        )
    return found


@contextlib.contextmanager
def on_queue(memory: MemoryObject, wait: object, signal: object) -> Iterator[BufferObject]:
    """Yield the memory as a buffer that is owned by the Vulkan queue of this process."""
    device = memory.device
    if device.backend.queue_facts is None:
        instead = (
            "call wait() and signal() of the timelines around the access"
            if device.kind == "host"
            else "use access(stream=...)"
        )
        raise UnsupportedError(
            f"{device.name} ({device.kind}) has no queues; {instead}, or use a Vulkan device",
            requires_one_of=["a Vulkan device"],
        )
    with memory.use(), Uses() as uses:
        buffer = memory_buffer.buffer_over(memory)
        if signal is not None:  # what is wrong with it is reported before the block
            sync_operations.submitting.order_of(device, None, signal, None, uses)
        with Commands(device, wait=wait, returns_early=wait is not None or signal is not None) as commands:
            commands.acquire(buffer)
        try:
            yield buffer
        except BaseException:
            # The work may be incomplete: what waits for it is not told that it is done.
            with Commands(device) as commands:
                commands.release(buffer)
            raise
        with Commands(device, signal=signal) as commands:
            commands.release(buffer)
