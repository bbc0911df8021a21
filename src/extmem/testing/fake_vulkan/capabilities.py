"""The commands that query what can be shared: as the `Gpu` states, with the host device's limits of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.host import image_layouts
from extmem.errors import UnsupportedError
from extmem.testing.fake_vulkan._system import dma_buf_size
from extmem.testing.fake_vulkan.instances import out_chain
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.modifiers import as_linear
from extmem.testing.fake_vulkan.objects import Device, Physical
from extmem.vk.abi import ffi, from_c, to_c

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.gpus import External
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_NO_FORMAT = int(vk.Result.ERROR_FORMAT_NOT_SUPPORTED)
_BAD_HANDLE = int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)
_EXTERNAL_FORMAT = int(vk.StructureType.EXTERNAL_IMAGE_FORMAT_PROPERTIES)
_VISIBLE = int(vk.MemoryPropertyFlagBits.HOST_VISIBLE)


def _fill(properties: Any, external: External | None) -> None:
    """Fill in VkExternalMemoryProperties; None for a handle type that the GPU does not support."""
    features = external.features if external is not None else 0
    if external is not None and external.dedicated == "required":
        features |= int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)
    properties.externalMemoryFeatures = features
    properties.exportFromImportedHandleTypes = external.export_from_imported if external is not None else 0
    properties.compatibleHandleTypes = external.compatible if external is not None else 0


def vkGetPhysicalDeviceExternalBufferProperties(fake: FakeVulkan, handle: Any, asked: Any, out: Any) -> None:
    """Answer as the `Gpu` states for buffers. Sparse and protected buffers cannot be shared."""
    gpu = fake.get(handle, Physical).gpu
    handle_type = int(asked.handleType)
    if handle_type.bit_count() != 1:
        raise fake.wrong(f"handleType {handle_type:#x} is not one type")
    _fill(out.externalMemoryProperties, gpu.says("buffer", handle_type) if not asked.flags else None)


def vkGetPhysicalDeviceImageFormatProperties2(fake: FakeVulkan, handle: Any, asked: Any, out: Any) -> int:
    """Answer with the host device's limits; images are shared as the `Gpu` states."""
    gpu = fake.get(handle, Physical).gpu
    info = from_c(vk.PhysicalDeviceImageFormatInfo2, asked)
    chained = vk.find(info, vk.PhysicalDeviceExternalImageFormatInfo)
    handle_type = int(chained.handle_type) if chained is not None else 0
    external = gpu.says("image", handle_type) if handle_type else None
    if handle_type and external is None:
        raise Refusal(_NO_FORMAT)
    modifier = vk.find(info, vk.PhysicalDeviceImageDrmFormatModifierInfoEXT)
    if (modifier is not None) != (info.tiling == vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT):
        raise fake.wrong("the tiling DRM_FORMAT_MODIFIER and its struct do not come together")
    if modifier is not None and fake.manners.any_modifier:
        info.tiling = vk.ImageTiling.LINEAR
    elif modifier is not None:
        as_linear(gpu, info, int(modifier.drm_format_modifier), handle_type)
    info.p_next = None
    if fake.manners.takes_sparse:
        info.flags = vk.ImageCreateFlagBits(0)
    try:
        properties = image_layouts.format_properties(info, gpu.heaps[0])
    except UnsupportedError:
        raise Refusal(_NO_FORMAT) from None
    memory = to_c(properties)
    if modifier is not None:
        memory.cdata.imageFormatProperties.maxMipLevels = memory.cdata.imageFormatProperties.maxArrayLayers = 1
    ffi.memmove(ffi.addressof(out.imageFormatProperties), ffi.addressof(memory.cdata.imageFormatProperties), _SIZE)
    chain = out_chain(out)
    if handle_type and _EXTERNAL_FORMAT in chain:
        answer = ffi.cast("VkExternalImageFormatProperties *", chain[_EXTERNAL_FORMAT])
        _fill(answer.externalMemoryProperties, external)
    return 0


_SIZE = ffi.sizeof("VkImageFormatProperties")


def vkGetMemoryHostPointerPropertiesEXT(fake: FakeVulkan, handle: Any, kind: int, pointer: Any, out: Any) -> int:
    """Answer with every memory type that is visible to the host."""
    device = fake.get(handle, Device)
    if kind != int(HandleType.HOST_ALLOCATION):
        raise fake.wrong(f"handleType {kind:#x} is not a host pointer")
    if int(ffi.cast("uintptr_t", pointer)) % device.gpu.host_pointer_alignment:
        raise fake.wrong(f"{pointer} is not aligned to {device.gpu.host_pointer_alignment}", _BAD_HANDLE)
    out.memoryTypeBits = sum(1 << i for i, t in enumerate(device.gpu.memory_types) if t.flags & _VISIBLE)
    return 0


def vkGetMemoryFdPropertiesKHR(fake: FakeVulkan, handle: Any, kind: int, fd: int, out: Any) -> int:
    """Answer for a dma-buf with every memory type that is visible to the host; other fds are refused."""
    device = fake.get(handle, Device)
    if kind == int(HandleType.OPAQUE_FD):
        raise fake.wrong("vkGetMemoryFdPropertiesKHR must not be called for an opaque fd")
    if kind != int(HandleType.DMA_BUF) or dma_buf_size(fd) is None:
        raise Refusal(_BAD_HANDLE)
    out.memoryTypeBits = sum(1 << i for i, t in enumerate(device.gpu.memory_types) if t.flags & _VISIBLE)
    return 0
