"""`Backend`: what the layers above need of any device, in the specification's words.

A driver allocates, exports, imports and maps, and answers capability queries. It knows nothing of names, NT handles,
the object manager or rules: whoever calls it has checked the call. It still validates enough of a stranger's fd or
pointer that the result cannot crash this process, as vkAllocateMemory must. What some devices can besides is in
`abilities`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from extmem.devices.types import (
    DeviceIdentity,
    FdFacts,
    ImageRegion,
    Offer,
    Origin,
    QueueFacts,
)

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.owning import OwnedFd, Uses
    from extmem.sharing.kinds import Backing
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms

__all__ = [
    "Allocation",
    "Answers",
    "DeviceIdentity",
    "Backend",
    "FdFacts",
    "ImageRegion",
    "Mapping",
    "Offer",
    "Origin",
    "QueueFacts",
    "Recorder",
]


class Answers(Protocol):
    """What can be asked of a device that is not open. See `Backend` for each."""

    @property
    def min_imported_host_pointer_alignment(self) -> int:
        """VkPhysicalDeviceExternalMemoryHostPropertiesEXT::minImportedHostPointerAlignment in bytes."""

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """vkGetPhysicalDeviceMemoryProperties."""

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """vkGetPhysicalDeviceExternalBufferProperties."""

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """vkGetPhysicalDeviceImageFormatProperties2."""


class Recorder(Protocol):
    """Commands of one submission, in the order in which the device is to do them.

    Each transfer and each change of layout sees what the ones before it wrote. Offsets and sizes in bytes.
    """

    def fill_buffer(self, buffer: NativeResource, offset: int, size: int, word: int) -> None:
        """vkCmdFillBuffer: 32-bit words, offset and size multiples of 4."""

    def copy_buffer(self, source: NativeResource, start: int, target: NativeResource, at: int, size: int) -> None:
        """vkCmdCopyBuffer."""

    def copy_buffer_to_image(
        self, buffer: NativeResource, image: NativeResource, layout: int, region: ImageRegion
    ) -> None:
        """vkCmdCopyBufferToImage, texel rows tightly packed. `layout` is the image's now."""

    def copy_image_to_buffer(
        self, image: NativeResource, layout: int, buffer: NativeResource, region: ImageRegion
    ) -> None:
        """vkCmdCopyImageToBuffer, texel rows tightly packed."""

    def clear_color_image(self, image: NativeResource, layout: int, color: Sequence[float]) -> None:
        """vkCmdClearColorImage of all levels and layers. `color`: four floats."""

    def pipeline_barrier(
        self,
        src_stage_mask: int,
        dst_stage_mask: int,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
    ) -> None:
        """vkCmdPipelineBarrier."""


class Allocation(Protocol):
    """A payload, or a view of one, as the device holds it. Made by a driver, which owns it until `close()`."""

    @property
    def size(self) -> int:
        """VkMemoryAllocateInfo::allocationSize in bytes."""

    @property
    def memory_type_index(self) -> int:
        """VkMemoryAllocateInfo::memoryTypeIndex."""

    @property
    def fd(self) -> int | None:
        """The payload's file descriptor, borrowed, valid until `close()`. None where no file is behind it.

        On Windows the HANDLE of its section.

        Errors: HandleStateError once closed.
        """

    @property
    def identity(self) -> tuple[int, int] | None:
        """(st_dev, st_ino) of the payload's file, equal for all descriptors of one payload. None without a file."""

    @property
    def stated_identity(self) -> int:
        """What tells this payload from others whose files the kernel does not tell apart; 0 where it does."""

    @property
    def writable(self) -> bool:
        """Whether the payload came with the right to write."""

    @property
    def closed(self) -> bool:
        """True after `close()`."""

    @property
    def mapped(self) -> bool:
        """Whether the host has it mapped: `map` was called and its mapping lives, or it is the host's memory anyway."""

    def close(self) -> None:
        """Give it back. Safe to call twice, and again after an exception. Whoever looks at a mapping lets go before."""

    def map(self, writable: bool = True) -> Mapping:
        """vkMapMemory of the whole allocation: one mapping, however often it is asked for.

        Errors: UnsupportedError for memory that the host cannot see; AccessDeniedError for a writable mapping of a
        payload that came without that right; OutOfMemoryError; HandleStateError once closed.
        """


class Mapping(Protocol):
    """An allocation's bytes in this process's address space, at least until the allocation is closed."""

    @property
    def address(self) -> int:
        """Address of the first byte."""

    @property
    def size(self) -> int:
        """Bytes mapped: the allocation's size."""

    @property
    def writable(self) -> bool:
        """Whether the pages may be written; writing to others kills the process (SIGSEGV)."""


class Backend(Protocol):
    """One device. Closing it does not touch its allocations."""

    @property
    def kind(self) -> str:
        """`"host"`, `"vulkan"`, …"""

    @property
    def identity(self) -> DeviceIdentity:
        """Who it is."""

    @property
    def payload_backing(self) -> Backing:
        """What its payloads' descriptors are to the object manager."""

    @property
    def allocates_zeroed(self) -> bool:
        """Whether new payloads are zeroed already."""

    @property
    def min_imported_host_pointer_alignment(self) -> int:
        """VkPhysicalDeviceExternalMemoryHostPropertiesEXT::minImportedHostPointerAlignment in bytes."""

    @property
    def max_memory_allocation_count(self) -> int:
        """VkPhysicalDeviceLimits::maxMemoryAllocationCount; 0 for no limit of the device's own."""

    @property
    def enabled_features(self) -> frozenset[str] | None:
        """Names of the enabled features, as `rules.DeviceFacts.features` has them; None where they are not known."""

    @property
    def max_framebuffer(self) -> tuple[int, int] | None:
        """VkPhysicalDeviceLimits::maxFramebufferWidth and maxFramebufferHeight; None for a device without images."""

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """vkGetPhysicalDeviceMemoryProperties."""

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """vkGetPhysicalDeviceExternalBufferProperties. What is not supported has no feature bits; never an error."""

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """vkGetPhysicalDeviceImageFormatProperties2, external properties chained when `info` asks for a type.

        Errors: UnsupportedError for VK_ERROR_FORMAT_NOT_SUPPORTED, with the reason.
        """

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """What a buffer made from `info` requires. UnsupportedError where no such buffer can be made."""

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """What an image made from `info` requires. UnsupportedError where no such image can be made."""

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """vkGetImageSubresourceLayout, in bytes.

        Errors: UnsupportedError for optimal tiling; ValueError for a level, layer or aspect that the image lacks.
        """

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """vkCreateBuffer. Errors: UnsupportedError where no such buffer can be made; OutOfMemoryError."""

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """vkCreateImage. Errors: UnsupportedError where no such image can be made; OutOfMemoryError."""

    def destroy(self, resource: NativeResource) -> None:
        """vkDestroyBuffer, vkDestroyImage. Safe to call twice."""

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: int = 0,
        dedicated: NativeResource | None = None,
        terms: ShareTerms | None = None,
    ) -> Allocation:
        """A new payload of `size` bytes that carries `descriptor` (empty for none, at most DESCRIPTOR_LIMIT).

        handle_types: what it may be exported as (VkExportMemoryAllocateInfo). Zeroed where `allocates_zeroed`.
        terms: how it is shared from the start, for systems where the payload itself is named (Windows); None for not.
        Errors: OutOfMemoryError; what the object manager refuses of the terms.
        """

    def import_fd(
        self,
        fd: int,
        size: int,
        memory_type_index: int,
        *,
        handle_type: int = 1,
        dedicated: NativeResource | None = None,
        known: bool = False,
    ) -> Allocation:
        """A view of the payload behind a stranger's fd, which is examined first.

        handle_type: OPAQUE_FD (1), or DMA_BUF. known: this library exported the fd itself and has inspected it as such,
            so that it needs neither another look nor a proof.
        `fd` is borrowed: the allocation has a copy. Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE that says
        what the fd is instead; OutOfMemoryError, with VK_ERROR_TOO_MANY_OBJECTS where there is no room for the copy.
        """

    def import_payload(
        self,
        payload: PayloadFd,
        size: int,
        memory_type_index: int,
        capacity: int,
        *,
        identity: int = 0,
        dedicated: NativeResource | None = None,
    ) -> Allocation:
        """A view of a payload that was examined when it was shared: its fd is known to be of this kind of device.

        identity: the `stated_identity` of the allocation that was shared.

        capacity: bytes of its file, which is sealed; 0 where the kernel does not say.
        Ownership: on success the allocation owns `payload`, and closes it with itself. Errors: as `import_fd`.
        """

    def inspect_fd(self, fd: int, handle_type: int, *, known: bool = False) -> FdFacts:
        """What an fd is, and whether it can be imported as that type. Never raises for what it finds.

        known: this library exported it, so that a look at what kind of file it is may suffice.
        Errors: OutOfMemoryError, DriverError (a lost device) where the look itself fails, whatever the fd is.
        """

    def export_fd(self, allocation: Allocation, *, read_only: bool = False, handle_type: int = 1) -> OwnedFd:
        """A new descriptor of the payload (vkGetMemoryFdKHR), owned by the caller, close-on-exec.

        handle_type: OPAQUE_FD (1), or DMA_BUF.
        read_only: one that the kernel refuses to map for writing. An allocation that is not writable gives no other.
        Errors: OutOfMemoryError with VK_ERROR_TOO_MANY_OBJECTS; UnsupportedError where there is no file behind it.
        """

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> Allocation:
        """A view of memory that the caller owns and keeps alive (VK_EXT_external_memory_host).

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE where it is not all mapped and writable.
        """

    def host_pointer_memory_type_bits(self, handle_type: int, address: int) -> int:
        """vkGetMemoryHostPointerPropertiesEXT: the memory types that the pointer may be imported to.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; UnsupportedError for a type it cannot import.
        """

    def host_range_mapped(self, address: int, size: int) -> bool:
        """Whether every byte of [address, address + size) is mapped in this process, readable and writable."""

    def fd_memory_type_bits(self, handle_type: int, fd: int) -> int:
        """vkGetMemoryFdPropertiesKHR: the memory types that a non-opaque fd may be imported to.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; UnsupportedError for a type it cannot import.
        """

    def handle_memory_type_bits(self, handle_type: int, handle: int) -> int:
        """vkGetMemoryWin32HandlePropertiesKHR: the memory types that a handle made outside Vulkan may be imported to.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; UnsupportedError for a type it cannot import.
        """

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """vkBindBufferMemory2, vkBindImageMemory2. DriverError where the resource would reach past the allocation."""

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """vkFlushMappedMemoryRanges: make what the host wrote visible to the device. Bytes; the memory is mapped."""

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """vkInvalidateMappedMemoryRanges: make what the device wrote visible to the host. Bytes."""

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        """Copy bytes (contiguous, format "B") into the payload at `offset`, by the device where it has its own memory.

        Returns when it is done; ownership of the payload is acquired from and released to other users around it.
        Errors: ValueError outside the allocation; DriverError; OutOfMemoryError; UnsupportedError for memory that no
        buffer can be bound to.
        """

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """Copy as many bytes of the payload as `into` (contiguous, writable, format "B") has. As `write`."""

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """Set every byte to `value` (0 to 255). As `write`."""

    @property
    def queue_facts(self) -> QueueFacts | None:
        """What the barrier rules need; None for a device without queues."""

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        """Record commands, submit them and wait until they are done. What `record` raises abandons them.

        uses: what the commands use; it is not given back before they are done, also where an exception ends the wait.
        owners: whose payloads the commands acquire for this device (True) or release (False), in their order. It is so
            from the submission on, also where an exception ends the wait.

        Errors: DriverError; OutOfMemoryError; UnsupportedError for a command that the device lacks.
        """

    def free(self, allocation: Allocation) -> None:
        """vkFreeMemory: `allocation.close()`."""

    def close(self) -> None:
        """Let go of the device. Safe to call twice."""
