"""The door to what only drivers of Windows do: VK_KHR_external_memory_win32 of the driver's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from extmem.broker.descriptors import Win32Payload
    from extmem.devices.base import NativeResource
    from extmem.devices.vulkan.allocation import VulkanAllocation
    from extmem.devices.vulkan.driver import VulkanDriver
    from extmem.manager import ShareTerms

__all__ = ["Native", "native_sharing"]


class Native(Protocol):
    """Sharing by the driver itself."""

    def allocate(
        self, size: int, memory_type_index: int, types: int, dedicated: NativeResource | None, terms: ShareTerms | None
    ) -> VulkanAllocation:
        """vkAllocateMemory for export as `types`, with the name, rights and security of `terms`."""

    def get_handle(self, raw: int, handle_type: int) -> int:
        """vkGetMemoryWin32HandleKHR: an NT handle that the caller closes, or a KMT number that owns nothing."""

    def import_payload(
        self, payload: Win32Payload, size: int, memory_type_index: int, dedicated: NativeResource | None
    ) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryWin32HandleInfoKHR. On success the allocation owns `payload`."""

    def memory_type_bits(self, handle_type: int, handle: int) -> int:
        """vkGetMemoryWin32HandlePropertiesKHR."""


if sys.platform == "win32":

    def native_sharing(driver: VulkanDriver) -> Native | None:
        """What shares that device's memory."""
        from extmem.devices.vulkan.win32 import Win32Sharing

        return Win32Sharing(driver)

else:

    def native_sharing(driver: VulkanDriver) -> Native | None:
        """None: on this system sharing is the object manager's, over the driver's fds."""
        return None
