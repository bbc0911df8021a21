"""What the CUDA device answers to Vulkan's questions: what it can export, import and allocate.

On Linux its memory is shared by POSIX descriptors, on which the object manager's NT handles and KMT numbers stand, as
on the host device; so the two give the same answers. On Windows it is shared by NT handle alone, and imported by
whatever the drivers there share by. Images are Vulkan's alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.cuda import WIN32_IS_NATIVE
from extmem.devices.host import capabilities as host
from extmem.errors import UnsupportedError
from extmem.vk.handle_types import FROM_D3D

if TYPE_CHECKING:
    from extmem.devices.cuda.physical import Gpu

__all__ = ["DEVICE_TYPE", "EXPORTED", "HOST_TYPE", "Answers", "no_images"]

_Property = vk.MemoryPropertyFlagBits
DEVICE_TYPE, HOST_TYPE = 0, 1
"""Memory types: the GPU's own, which the host does not see; and the host's, which comes in by import alone."""
_FLAGS = (
    _Property.DEVICE_LOCAL,
    _Property.HOST_VISIBLE | _Property.HOST_COHERENT | _Property.HOST_CACHED,
)
_PAGE = 4096
HandleType = vk.ExternalMemoryHandleTypeFlagBits
Feature = vk.ExternalMemoryFeatureFlagBits
_IMPORTED = (HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT, HandleType.HOST_ALLOCATION, *FROM_D3D)
"""On Windows."""
EXPORTED = int(HandleType.OPAQUE_WIN32 if WIN32_IS_NATIVE else host.OPAQUE)
"""Types that CUDA's own memory is shared by, where the GPU exports any."""


class Answers:
    """A GPU's answers in the words of `base.Answers`."""

    min_imported_host_pointer_alignment = _PAGE

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """Two types, each with a heap of its own; the second has the GPU's size too, since nobody allocates there."""
        size = self._gpu.total_memory
        return vk.PhysicalDeviceMemoryProperties(
            memory_types=tuple(vk.MemoryType(flags, heap) for heap, flags in enumerate(_FLAGS)),
            memory_heaps=(
                vk.MemoryHeap(size, vk.MemoryHeapFlagBits.DEVICE_LOCAL),
                vk.MemoryHeap(size, vk.MemoryHeapFlagBits(0)),
            ),
        )

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """See `Backend`."""
        if WIN32_IS_NATIVE:
            return vk.ExternalBufferProperties(_native(int(info.handle_type), int(info.flags), shares=self._gpu.shares))
        if not self._gpu.shares and info.handle_type & host.OPAQUE:
            return vk.ExternalBufferProperties()
        return vk.ExternalBufferProperties(host.buffer_properties(info.handle_type, info.flags))

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """UnsupportedError."""
        raise no_images(self._gpu.name)


def _native(handle_type: int, flags: int, *, shares: bool) -> vk.ExternalMemoryProperties:
    """For a buffer on Windows, where handles are the drivers' own: NT handles of its memory, and much that it imports.

    No type goes with another, and what was imported is not exported again: CUDA has no call for that.
    """
    kind = HandleType(handle_type)
    features = Feature(0)
    if not flags and kind in _IMPORTED:
        features = Feature.IMPORTABLE
        if kind == HandleType.OPAQUE_WIN32 and shares:
            features |= Feature.EXPORTABLE
    return vk.ExternalMemoryProperties(features, HandleType(0), kind)


def no_images(name: str) -> UnsupportedError:
    """What to raise where an image is to be made."""
    return UnsupportedError(
        f"VK_ERROR_FORMAT_NOT_SUPPORTED: {name} by CUDA makes no images; make the image on its Vulkan device and open "
        "it here, where it becomes a mipmapped array",
        requires_one_of=["a Vulkan device"],
    )
