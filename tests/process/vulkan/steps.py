"""The steps by which tests of the Vulkan device read and write. Peers import this module, too.

GPUs share memory that is not visible to the host, or only on request. So the device itself copies the bytes, and what
needs a mapping requests a memory type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.devices.host import HAS_FDS
from tests.behaviours.steps import FD, W32

SHARED = W32 | FD if HAS_FDS else W32
"""The handle types that can be exported together on this system."""
USAGE = (
    vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST | vk.BufferUsageFlagBits.STORAGE_BUFFER
)
"""The usage of buffers of the high-level API."""
GENERAL, UNDEFINED = vk.ImageLayout.GENERAL, vk.ImageLayout.UNDEFINED


def visible_type(device: Device, types: int = SHARED) -> int | None:
    """Return the first host-visible memory type, of those for buffers shared as `types` (0: not shared); or None."""
    external = vk.ExternalMemoryBufferCreateInfo(vk.ExternalMemoryHandleTypeFlagBits(types)) if types else None
    with device.create_buffer(vk.BufferCreateInfo(size=4096, usage=USAGE, p_next=external)) as buffer:
        bits = buffer.requirements.memory_type_bits
    kinds = enumerate(device.memory_properties.memory_types)
    seen = (n for n, kind in kinds if kind.property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE and bits >> n & 1)
    return next(seen, None)


def unshared(device: Device, size: int = 4096) -> DeviceMemory:
    """Allocate host-visible memory that is not shared, which every device has."""
    kind = visible_type(device, 0)
    assert kind is not None
    return device.allocate_memory(vk.MemoryAllocateInfo(size, kind))


@contextmanager
def _staged(device: Device, size: int) -> Iterator[tuple[Buffer, DeviceMemory]]:
    with device.create_buffer(vk.BufferCreateInfo(size=size, usage=USAGE)) as buffer:
        needs = buffer.requirements
        kind = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
        with device.allocate_memory(vk.MemoryAllocateInfo(needs.size, kind)) as memory:
            device.bind_buffer_memory(buffer, memory)
            yield buffer, memory


def put_texels(device: Device, image: Image, data: bytes, *, fresh: bool = False) -> None:
    """Write a whole image by the queue, and release it. fresh: it was never used; otherwise it is acquired first."""
    with _staged(device, len(data)) as (buffer, memory):
        memory.write(data)
        with device.commands() as commands:
            if fresh:
                commands.change_layout(image, UNDEFINED, GENERAL)
            else:
                commands.acquire(image)
            commands.copy_buffer_to_image(buffer, image)
            commands.release(image)


def get_texels(device: Device, image: Image, size: int) -> bytes:
    """Acquire an image, read all of it by the queue, and release it."""
    with _staged(device, size) as (buffer, memory):
        with device.commands() as commands:
            commands.acquire(image)
            commands.copy_image_to_buffer(image, buffer)
            commands.release(image)
        return bytes(memory.read_bytes(0, size))
