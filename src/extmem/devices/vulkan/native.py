"""What only drivers of Windows do: VK_KHR_external_memory_win32 of the driver's own. The package picks who does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
    from extmem.devices.vulkan.memory import VulkanAllocation
    from extmem.owning import OwnedFd
    from extmem.sharing.payload import Win32Payload
    from extmem.sharing.terms import ShareTerms

__all__ = ["Native"]


class Native(Protocol):
    """Sharing by the driver itself."""

    def allocate(
        self, size: int, memory_type_index: int, types: int, dedicated: NativeResource | None, terms: ShareTerms | None
    ) -> VulkanAllocation:
        """vkAllocateMemory for export as `types`, with the name, rights and security of `terms`."""

    def get_handle(self, raw: int, handle_type: int) -> OwnedFd:
        """vkGetMemoryWin32HandleKHR: an NT handle that the caller closes."""

    def get_number(self, raw: int) -> int:
        """vkGetMemoryWin32HandleKHR: a KMT number, which owns nothing."""

    def import_payload(
        self, payload: Win32Payload, size: int, memory_type_index: int, dedicated: NativeResource | None
    ) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryWin32HandleInfoKHR. On success the allocation owns `payload`."""

    def memory_type_bits(self, handle_type: int, handle: int) -> int:
        """vkGetMemoryWin32HandlePropertiesKHR."""
