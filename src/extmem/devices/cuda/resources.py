"""Buffers on the CUDA device. A buffer is a part of the memory that it is bound to. Images are Vulkan's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.cuda.capabilities import DEVICE_TYPE, no_images
from extmem.devices.cuda.memory import CudaAllocation, ours
from extmem.devices.resources import NativeResource, Requirements
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.vk.value_text import flags_text

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.vmm import Vmm

__all__ = ["CudaResource", "Resources", "place_of"]


class CudaResource(NativeResource):
    """A buffer, and where it is."""

    allocation: CudaAllocation | None = None
    offset: int = 0

    def destroy(self) -> None:
        """Forget where it is bound."""
        self.allocation = None


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
        """See `Backend`."""
        self._device.check_open()
        return CudaResource("buffer", self.buffer_requirements(info), size=int(info.size), create_info=info)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """Raise UnsupportedError."""
        raise no_images(self._device.name)

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """See `Backend`. The resource keeps where it is."""
        memory, size = ours(allocation), resource.requirements.size
        if offset < 0 or offset + min(size, resource.size or size) > memory.size:
            raise DriverError(
                f"vkBindMemory: {size} bytes from offset {offset} reach past the allocation of {memory.size} bytes; "
                "allocate what the requirements say",
                result=int(vk.Result.ERROR_UNKNOWN),
                command="vkBindMemory",
                devices=[self._device.name],
            )
        if isinstance(resource, CudaResource):
            resource.allocation, resource.offset, resource.bound = memory, offset, True


def place_of(resource: NativeResource) -> int:
    """The device pointer to a buffer's first byte. Errors: HandleStateError for a buffer that is not bound."""
    if not isinstance(resource, CudaResource) or resource.allocation is None:
        raise HandleStateError(f"this {resource.kind} is not bound to memory; bind it first")
    return resource.allocation.live + resource.offset
