"""Buffers on the CUDA device. A buffer is a part of the memory that it is bound to. Images are Vulkan's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices import placed_resources
from extmem.devices.cuda.capabilities import DEVICE_TYPE, no_images
from extmem.devices.cuda.memory import native_allocation
from extmem.devices.placed_resources import PlacedResource
from extmem.devices.resources import NativeResource, Requirements
from extmem.errors import UnsupportedError
from extmem.vk.value_text import flags_text

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.vmm import Vmm

__all__ = ["Resources"]


class Resources:
    """The buffers of one device."""

    def __init__(self, device: LogicalDevice, vmm: Vmm) -> None:
        self._device = device
        self._vmm = vmm

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """See `Backend`. Whole granules, so that importers see the size that CUDA allocated."""
        if info.flags:
            raise UnsupportedError(
                f"buffers with create flags {flags_text(info.flags, vk.BufferCreateFlagBits)} are Vulkan's; create it "
                "with flags 0, or on a Vulkan device",
                requires_one_of=["flags 0", "a Vulkan device"],
            )
        if info.size <= 0:
            raise UnsupportedError(f"a buffer of {info.size} bytes cannot be made; its size must be at least 1")
        granule = self._vmm.granularity
        return Requirements(self._vmm.whole(int(info.size)), granule, 1 << DEVICE_TYPE)

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """Raise UnsupportedError."""
        raise no_images(self._device.name)

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """Raise UnsupportedError."""
        raise no_images(self._device.name)

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        self._device.check_open()
        return PlacedResource("buffer", self.buffer_requirements(info), size=int(info.size), create_info=info)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """Raise UnsupportedError."""
        raise no_images(self._device.name)

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """See `Backend`. The resource keeps where it is."""
        size = resource.requirements.size
        placed_resources.bind(
            resource, native_allocation(allocation), offset, min(size, resource.size or size), self._device.name
        )
