"""The steps of the driver's tests."""

from __future__ import annotations

import os

from extmem import vk
from extmem.devices.host import HAS_FDS
from extmem.devices.resources import Requirements
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.memory import VulkanAllocation
from tests.unit.devices.importing import import_fd

HandleType = vk.ExternalMemoryHandleTypeFlagBits
FD, W32, KMT = HandleType.OPAQUE_FD, HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT
DMA_BUF, HOST = HandleType.DMA_BUF, HandleType.HOST_ALLOCATION
SHARED = FD if HAS_FDS else W32
"""The handle types that drivers of this system share."""
TRANSFER = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
SIZE = 65_536


def buffer_info(size: int = SIZE, types: int = 0) -> vk.BufferCreateInfo:
    """Return the create info of a transfer buffer."""
    chain = vk.ExternalMemoryBufferCreateInfo(HandleType(types)) if types else None
    return vk.BufferCreateInfo(size=size, usage=TRANSFER, p_next=chain)


def image_info(
    tiling: vk.ImageTiling = vk.ImageTiling.OPTIMAL, types: int = 0, **changes: object
) -> vk.ImageCreateInfo:
    """Return the create info of an image of 64 × 64 texels."""
    values: dict[str, object] = {
        "image_type": vk.ImageType.TYPE_2D,
        "format": vk.Format.R8G8B8A8_UNORM,
        "extent": vk.Extent3D(64, 64, 1),
        "mip_levels": 1,
        "array_layers": 1,
        "samples": vk.SampleCountFlagBits.COUNT_1,
        "tiling": tiling,
        "usage": vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
        "p_next": vk.ExternalMemoryImageCreateInfo(HandleType(types)) if types else None,
    }
    return vk.ImageCreateInfo(**{**values, **changes})  # type: ignore[arg-type]  # the names of its fields


def lowest(needs: Requirements) -> int:
    """Return the first allowed memory type."""
    return (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1


def allocate(backend: VulkanBackend, size: int = SIZE, types: int = SHARED) -> VulkanAllocation:
    """Allocate memory of the first type that a transfer buffer allows."""
    needs = backend.buffer_requirements(buffer_info(size, types))
    return backend.allocate(max(size, needs.size), lowest(needs), b"", handle_types=types)


def mappable(backend: VulkanBackend, size: int = SIZE) -> VulkanAllocation:
    """Allocate host-visible memory that is not shared: GPUs have such, though what they share may not be visible."""
    needs = backend.buffer_requirements(buffer_info(size, 0))
    visible = backend.device.host_visible
    index = next(index for index in range(32) if needs.memory_type_bits >> index & 1 and visible[index])
    return backend.allocate(max(size, needs.size), index, b"")


def read(backend: VulkanBackend, allocation: VulkanAllocation, offset: int, size: int) -> bytes:
    """Return bytes of the payload, copied by the device."""
    into = bytearray(size)
    backend.read(allocation, offset, memoryview(into))
    return bytes(into)


def still_works(backend: VulkanBackend) -> bool:
    """Return whether the device allocates, writes, reads and exports as before."""
    memory = allocate(backend)
    backend.write(memory, 0, memoryview(b"fine"))
    if not HAS_FDS:
        try:
            return read(backend, memory, 0, 4) == b"fine" and memory.fd is not None
        finally:
            memory.close()
    fd = backend.export_fd(memory).take()
    copy = import_fd(backend, fd, memory.size, memory.memory_type_index)
    try:
        return read(backend, copy, 0, 4) == b"fine"
    finally:
        copy.close()
        os.close(fd)
        memory.close()
