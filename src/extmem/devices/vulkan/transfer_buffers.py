"""Buffers that bytes are moved through: one over all of an allocation, or the buffer that it is dedicated to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.vulkan.handle_types import HandleType
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.memory import VulkanAllocation
    from extmem.devices.vulkan.resources import Resources

__all__ = ["TransferBuffers"]

_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST


class TransferBuffers:
    """The transfer buffers of a device's allocations. Each is created at the first use, and kept by its allocation."""

    def __init__(self, device: LogicalDevice, resources: Resources) -> None:
        self._device = device
        self._resources = resources

    def buffer_of(self, allocation: VulkanAllocation) -> NativeResource:
        """Return a buffer over the whole allocation, or the one that it is dedicated to (see `obstacle`).

        Errors: UnsupportedError for memory that is dedicated to an image.
        """
        alone = allocation.dedicated
        if alone is not None:
            if alone.kind != "buffer":
                raise UnsupportedError(
                    "this memory is dedicated to an image, so no buffer can be bound to it; copy the image with "
                    "Device.commands()",
                    requires_one_of=["memory that is not dedicated to an image"],
                )
            if alone.private:
                with self._device.making:
                    self._resources.bind(allocation, 0, alone)
            return alone
        with self._device.making:
            if allocation.transfer is None:
                allocation.transfer = self._bound(allocation, self._whole(allocation))
            return allocation.transfer

    def too_small(self, allocation: VulkanAllocation) -> str:
        """Why memory that is not dedicated has no room for a buffer of its size, and what to do; empty if it has."""
        if allocation.dedicated is not None or allocation.transfer is not None:
            return ""
        with self._device.making:
            buffer = self._whole(allocation)
            needed = buffer.requirements.size
            if needed <= allocation.size:
                allocation.transfer = self._bound(allocation, buffer)
                return ""
            buffer.destroy()
        return f"has {allocation.size} bytes, and a buffer of as many takes {needed} on this device; allocate {needed}"

    def obstacle(self, allocation: VulkanAllocation, usage: int = 0, end: int = 0) -> str:
        """Why `buffer_of` cannot be used with this usage up to byte `end`, and what to do; empty if it can.

        Memory that is dedicated to a buffer is bound only to that. If the buffer is the caller's, the caller binds it.
        """
        alone = allocation.dedicated
        if alone is None or alone.kind != "buffer":
            return ""
        info = alone.create_info
        if not alone.raw:
            return "which is destroyed; keep it as long as its memory"
        if not alone.private and not (alone.bound and alone.memory in (0, allocation.raw)):
            return "which is not bound to it; bind it first, with Device.bind_buffer_memory"
        if isinstance(info, vk.BufferCreateInfo) and int(info.usage) & usage != usage:
            return (
                f"which was created without {vk.BufferUsageFlagBits(usage & ~int(info.usage)).name}; create the buffer "
                "with that usage"
            )
        if end > alone.size:
            return f"which has {alone.size} bytes, and {end} are to be reached; use no more, or create a larger buffer"
        return ""

    def _whole(self, allocation: VulkanAllocation) -> NativeResource:
        info = vk.BufferCreateInfo(size=allocation.size, usage=_USAGE)
        if allocation.handle_types:
            info.p_next = vk.ExternalMemoryBufferCreateInfo(HandleType(allocation.handle_types))
        return self._resources.create_buffer(info)

    def _bound(self, allocation: VulkanAllocation, buffer: NativeResource) -> NativeResource:
        """Return the buffer, bound. It is destroyed if that fails."""
        try:
            self._resources.bind(allocation, 0, buffer)
        except BaseException:
            buffer.destroy()
            raise
        return buffer
