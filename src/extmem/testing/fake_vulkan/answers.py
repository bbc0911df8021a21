"""Commands that ask what can be shared: the GPU's own words, and the host device's for what images there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.host import image_layouts
from extmem.errors import UnsupportedError
from extmem.testing.fake_vulkan._system import dma_buf_size
from extmem.testing.fake_vulkan.instances import out_chain
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.modifiers import as_linear
from extmem.testing.fake_vulkan.things import Device, Physical
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


def _tell(into: Any, told: External | None) -> None:
    features = told.features if told is not None else 0
    if told is not None and told.dedicated == "required":
        features |= int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)
    into.externalMemoryFeatures = features
    into.exportFromImportedHandleTypes = told.export_from_imported if told is not None else 0
    into.compatibleHandleTypes = told.compatible if told is not None else 0


def vkGetPhysicalDeviceExternalBufferProperties(fake: FakeVulkan, handle: Any, asked: Any, out: Any) -> None:
    """What the GPU says of buffers. Sparse and protected ones cannot be shared."""
    gpu = fake.get(handle, Physical).gpu
    kind = int(asked.handleType)
    if kind.bit_count() != 1:
        raise fake.wrong(f"handleType {kind:#x} is not one type")
    _tell(out.externalMemoryProperties, gpu.says("buffer", kind) if not asked.flags else None)


def vkGetPhysicalDeviceImageFormatProperties2(fake: FakeVulkan, handle: Any, asked: Any, out: Any) -> int:
    """The host device's images; shared as the GPU says."""
    gpu = fake.get(handle, Physical).gpu
    info = from_c(vk.PhysicalDeviceImageFormatInfo2, asked)
    external = vk.find(info, vk.PhysicalDeviceExternalImageFormatInfo)
    kind = int(external.handle_type) if external is not None else 0
    told = gpu.says("image", kind) if kind else None
    if kind and told is None:
        raise Refusal(_NO_FORMAT)
    named = vk.find(info, vk.PhysicalDeviceImageDrmFormatModifierInfoEXT)
    if (named is not None) != (info.tiling == vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT):
        raise fake.wrong("the tiling DRM_FORMAT_MODIFIER and its struct do not come together")
    if named is not None and fake.manners.any_modifier:
        info.tiling = vk.ImageTiling.LINEAR
    elif named is not None:
        as_linear(gpu, info, int(named.drm_format_modifier), kind)
    info.p_next = None
    if fake.manners.takes_sparse:
        info.flags = vk.ImageCreateFlagBits(0)
    try:
        found = image_layouts.format_properties(info, gpu.heaps[0])
    except UnsupportedError:
        raise Refusal(_NO_FORMAT) from None
    memory = to_c(found)
    if named is not None:
        memory.cdata.imageFormatProperties.maxMipLevels = memory.cdata.imageFormatProperties.maxArrayLayers = 1
    ffi.memmove(ffi.addressof(out.imageFormatProperties), ffi.addressof(memory.cdata.imageFormatProperties), _SIZE)
    chain = out_chain(out)
    if kind and _EXTERNAL_FORMAT in chain:
        answer = ffi.cast("VkExternalImageFormatProperties *", chain[_EXTERNAL_FORMAT])
        _tell(answer.externalMemoryProperties, told)
    return 0


_SIZE = ffi.sizeof("VkImageFormatProperties")


def vkGetMemoryHostPointerPropertiesEXT(fake: FakeVulkan, handle: Any, kind: int, pointer: Any, out: Any) -> int:
    """Every memory type that the host sees takes host memory."""
    device = fake.get(handle, Device)
    if kind != int(HandleType.HOST_ALLOCATION):
        raise fake.wrong(f"handleType {kind:#x} is no host pointer")
    if int(ffi.cast("uintptr_t", pointer)) % device.gpu.host_pointer_alignment:
        raise fake.wrong(f"{pointer} is not aligned to {device.gpu.host_pointer_alignment}", _BAD_HANDLE)
    out.memoryTypeBits = sum(1 << i for i, t in enumerate(device.gpu.memory_types) if t.flags & _VISIBLE)
    return 0


def vkGetMemoryFdPropertiesKHR(fake: FakeVulkan, handle: Any, kind: int, fd: int, out: Any) -> int:
    """A dma-buf is seen as memory types that the host sees. The fake takes no other fds that others made."""
    device = fake.get(handle, Device)
    if kind == int(HandleType.OPAQUE_FD):
        raise fake.wrong("vkGetMemoryFdPropertiesKHR must not be asked of an opaque fd")
    if kind != int(HandleType.DMA_BUF) or dma_buf_size(fd) is None:
        raise Refusal(_BAD_HANDLE)
    out.memoryTypeBits = sum(1 << i for i, t in enumerate(device.gpu.memory_types) if t.flags & _VISIBLE)
    return 0
