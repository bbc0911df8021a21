"""Capabilities of the CUDA device, in Vulkan's terms: what it can export, import and allocate.

On Linux its memory is shared by POSIX descriptors, and NT handles and KMT numbers are the object manager's, as on the
host device; so both have the same capabilities. On Windows it is shared only by NT handle, and imported by every handle
type that the drivers there export. Only Vulkan devices have images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.cuda.handle_types import WIN32_IS_NATIVE
from extmem.devices.host import capabilities as host
from extmem.errors import UnsupportedError
from extmem.vk.handle_types import FROM_D3D, HOST_ALLOCATION, OPAQUE_WIN32, OPAQUE_WIN32_KMT, MemoryHandleType

if TYPE_CHECKING:
    from extmem.devices.cuda.physical import Gpu

__all__ = ["DEVICE_TYPE", "EXPORTED", "HOST_TYPE", "Answers", "no_images"]

_Property = vk.MemoryPropertyFlagBits
DEVICE_TYPE, HOST_TYPE = 0, 1
"""Memory types: the GPU's own, which the host does not see; and the host's, which is only imported."""
_FLAGS = (
    _Property.DEVICE_LOCAL,
    _Property.HOST_VISIBLE | _Property.HOST_COHERENT | _Property.HOST_CACHED,
)
_PAGE = 4096
HandleType = vk.ExternalMemoryHandleTypeFlagBits
Feature = vk.ExternalMemoryFeatureFlagBits
_IMPORTED = (OPAQUE_WIN32, OPAQUE_WIN32_KMT, HOST_ALLOCATION, *FROM_D3D)
"""Handle types that are imported on Windows."""
EXPORTED = OPAQUE_WIN32 if WIN32_IS_NATIVE else host.OPAQUE
"""Handle types that CUDA's own memory is exported as, if the GPU exports any."""


class Answers:
    """A GPU as `Answers`."""

    min_imported_host_pointer_alignment = _PAGE

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """Two types, each with a heap of its own. The second has the GPU's size too: nothing is allocated there."""
        size = self._gpu.total_memory
        return vk.PhysicalDeviceMemoryProperties(
            memory_types=tuple(vk.MemoryType(flags, heap) for heap, flags in enumerate(_FLAGS)),
            memory_heaps=(
                vk.MemoryHeap(size, vk.MemoryHeapFlagBits.DEVICE_LOCAL),
                vk.MemoryHeap(size, vk.MemoryHeapFlagBits(0)),
            ),
        )

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        handle_type = MemoryHandleType(int(info.handle_type))
        if WIN32_IS_NATIVE:
            return vk.ExternalBufferProperties(_native(handle_type, int(info.flags), shares=self._gpu.shares))
        if not self._gpu.shares and handle_type & host.OPAQUE:
            return vk.ExternalBufferProperties()
        return vk.ExternalBufferProperties(host.buffer_properties(handle_type, info.flags))

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """Raise UnsupportedError."""
        raise no_images(self._gpu.name)


def _native(handle_type: MemoryHandleType, flags: int, *, shares: bool) -> vk.ExternalMemoryProperties:
    """The properties of a buffer on Windows: NT handles of its memory are exported, and many types imported.

    No type is compatible with another one, and imported memory is not exported again: CUDA has no call for that.
    """
    features = Feature(0)
    if not flags and handle_type in _IMPORTED:
        features = Feature.IMPORTABLE
        if handle_type == OPAQUE_WIN32 and shares:
            features |= Feature.EXPORTABLE
    return vk.ExternalMemoryProperties(features, HandleType(0), HandleType(handle_type))


def no_images(name: str) -> UnsupportedError:
    """What to raise for an image that is to be created."""
    return UnsupportedError(
        f"VK_ERROR_FORMAT_NOT_SUPPORTED: {name} by CUDA makes no images; make the image on its Vulkan device and open "
        "it here, where it becomes a mipmapped array",
        requires_one_of=["a Vulkan device"],
    )
