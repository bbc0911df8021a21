"""`Backend`: what the layers above need of any device, in the specification's terms.

A backend allocates, exports, imports and maps memory, and answers capability queries. It has no part in names, NT
handles, the object manager or rules: its callers have checked each call. It still checks an fd or a host pointer enough
that the result cannot crash this process, as vkAllocateMemory must. What only some devices can do is in
`optional_protocols`.

The host, Vulkan and CUDA implement it with the same file names: one subject has one file name in all three, and a
subject that a device lacks has no file there.

Everything here is about memory. Semaphores and fences will have a protocol of their own beside this one, in
`devices/sync.py`, which a device implements where it can, in a file `sync` of its own; `Backend` will not grow by them.
What both share (identity, `examine_fd`, the owners of handles) is used by both.

Implementers carry no docstring for a member that does what is written here. Theirs have what they add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from extmem.vk.handle_types import NO_TYPES, OPAQUE_FD, MemoryHandleType

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.devices.types import DeviceIdentity, ExaminedFd, ImageRegion, ImportRequest, QueueFacts
    from extmem.owning import OwnedFd, Uses
    from extmem.sharing.kinds import Backing
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms

__all__ = ["Allocation", "Answers", "Backend", "Mapping", "Offer", "Recorder"]


class Answers(Protocol):
    """The capability queries, which can also be made of a device that is not open."""

    @property
    def min_imported_host_pointer_alignment(self) -> int:
        """VkPhysicalDeviceExternalMemoryHostPropertiesEXT::minImportedHostPointerAlignment in bytes."""

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """vkGetPhysicalDeviceMemoryProperties."""

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """vkGetPhysicalDeviceExternalBufferProperties. What is not supported has no feature bits; never an error."""

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """vkGetPhysicalDeviceImageFormatProperties2, external properties chained when `info` contains a handle type.

        Errors: UnsupportedError for VK_ERROR_FORMAT_NOT_SUPPORTED, with the reason.
        """


class Offer(msgspec.Struct, frozen=True):
    """A device that could be opened. Opening takes what the device takes; finding it does not."""

    kind: str
    """`"host"`, `"vulkan"` or `"cuda"`."""
    identity: DeviceIdentity
    rank: int
    """Better devices have lower ranks: GPUs, then the host device, then processors that pose as GPUs."""
    open: Callable[[], Backend]
    answers: Callable[[], Answers] | None = None
    """Returns what answers the capability queries while the device is not open; None if it has to be opened."""


class Recorder(Protocol):
    """Commands of one submission, in the order in which the device does them.

    Each transfer and each change of layout sees what the ones before it wrote. Offsets and sizes in bytes.
    """

    def fill_buffer(self, buffer: NativeResource, offset: int, size: int, word: int) -> None:
        """vkCmdFillBuffer: 32-bit words, offset and size multiples of 4."""

    def copy_buffer(self, source: NativeResource, start: int, target: NativeResource, at: int, size: int) -> None:
        """vkCmdCopyBuffer."""

    def copy_buffer_to_image(
        self, buffer: NativeResource, image: NativeResource, layout: int, region: ImageRegion
    ) -> None:
        """vkCmdCopyBufferToImage, texel rows tightly packed. layout: the image's layout then."""

    def copy_image_to_buffer(
        self, image: NativeResource, layout: int, buffer: NativeResource, region: ImageRegion
    ) -> None:
        """vkCmdCopyImageToBuffer, texel rows tightly packed. layout: the image's layout then."""

    def clear_color_image(self, image: NativeResource, layout: int, color: Sequence[float]) -> None:
        """vkCmdClearColorImage of all levels and layers. color: four floats."""

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
    """A payload, or a view of one, as the device holds it. Made by a backend. Ownership: until `close()`."""

    @property
    def size(self) -> int:
        """VkMemoryAllocateInfo::allocationSize in bytes."""

    @property
    def memory_type_index(self) -> int:
        """VkMemoryAllocateInfo::memoryTypeIndex."""

    @property
    def fd(self) -> int | None:
        """The payload's file descriptor, borrowed, valid until `close()`. None if no file is behind the payload.

        On Windows the HANDLE of its section.

        Errors: HandleStateError once closed.
        """

    @property
    def identity(self) -> tuple[int, int] | None:
        """(st_dev, st_ino) of the payload's file, equal for all descriptors of one payload. None without a file."""

    @property
    def stated_identity(self) -> int:
        """Distinguishes payloads whose files the kernel does not; 0 where the kernel does."""

    @property
    def writable(self) -> bool:
        """Whether the payload was opened with the right to write."""

    @property
    def closed(self) -> bool:
        """True after `close()`."""

    @property
    def mapped(self) -> bool:
        """Whether the host has it mapped: by `map`, or because it is the host's memory."""

    def close(self) -> None:
        """Release it. Safe to call twice, and again after an exception. No mapping of it is used any more."""

    def map(self, writable: bool = True) -> Mapping:
        """vkMapMemory of the whole allocation. There is one mapping, however often this is called.

        Errors: UnsupportedError for memory that the host cannot see; AccessDeniedError for a writable mapping of a
        payload that was opened without that right; OutOfMemoryError; HandleStateError once closed.
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
        """Whether the pages may be written; writing to others ends the process (SIGSEGV)."""


class Backend(Answers, Protocol):
    """One device. Closing it does not close its allocations."""

    @property
    def kind(self) -> str:
        """`"host"`, `"vulkan"` or `"cuda"`."""

    @property
    def identity(self) -> DeviceIdentity:
        """UUIDs, LUID and names."""

    @property
    def payload_backing(self) -> Backing:
        """What the descriptors of its payloads are to the object manager."""

    @property
    def allocates_zeroed(self) -> bool:
        """Whether new payloads contain zeros."""

    @property
    def max_memory_allocation_count(self) -> int:
        """VkPhysicalDeviceLimits::maxMemoryAllocationCount; 0 if the device has no such limit."""

    @property
    def enabled_features(self) -> frozenset[str] | None:
        """Names of the enabled features, as in `rules.DeviceFacts.features`; None if they are not known."""

    @property
    def max_framebuffer(self) -> tuple[int, int] | None:
        """VkPhysicalDeviceLimits::maxFramebufferWidth and maxFramebufferHeight; None for a device without images."""

    @property
    def queue_facts(self) -> QueueFacts | None:
        """What the barrier rules need; None for a device without queues."""

    # What can be imported; `Answers` has the other capabilities.

    def host_pointer_memory_type_bits(self, handle_type: MemoryHandleType, address: int) -> int:
        """vkGetMemoryHostPointerPropertiesEXT: the memory types that the pointer may be imported to.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; UnsupportedError for a type it cannot import.
        """

    def host_range_mapped(self, address: int, size: int) -> bool:
        """Whether every byte of [address, address + size) is mapped in this process, readable and writable."""

    def fd_memory_type_bits(self, handle_type: MemoryHandleType, fd: int) -> int:
        """vkGetMemoryFdPropertiesKHR: the memory types that a non-opaque fd may be imported to.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; UnsupportedError for a type it cannot import.
        """

    def handle_memory_type_bits(self, handle_type: MemoryHandleType, handle: int) -> int:
        """vkGetMemoryWin32HandlePropertiesKHR: the memory types that a handle made outside Vulkan may be imported to.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; UnsupportedError for a type it cannot import.
        """

    # Buffers and images.

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """What a buffer created from `info` requires. Errors: UnsupportedError if no such buffer can be created."""

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """What an image created from `info` requires. Errors: UnsupportedError if no such image can be created."""

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """vkGetImageSubresourceLayout, in bytes.

        Errors: UnsupportedError for optimal tiling; ValueError for a level, layer or aspect that the image lacks.
        """

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """vkCreateBuffer. Errors: UnsupportedError if no such buffer can be created; OutOfMemoryError."""

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """vkCreateImage. Errors: UnsupportedError if no such image can be created; OutOfMemoryError."""

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """vkBindBufferMemory2, vkBindImageMemory2. DriverError if the resource would reach past the allocation."""

    # Memory.

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: MemoryHandleType = NO_TYPES,
        dedicated: NativeResource | None = None,
        terms: ShareTerms | None = None,
    ) -> Allocation:
        """Allocate a new payload of `size` bytes that carries `descriptor` (empty for none, at most DESCRIPTOR_LIMIT).

        handle_types: what it may be exported as (VkExportMemoryAllocateInfo). Zeroed if `allocates_zeroed`.
        terms: how it is shared from the start, for systems where the payload itself is named (Windows); None if not.
        Errors: OutOfMemoryError; the object manager's refusals of the terms.
        """

    def examine_fd(self, fd: int, handle_type: MemoryHandleType, *, trusted: bool = False) -> ExaminedFd:
        """Return what a file descriptor is, and whether it can be imported as that type: the one look at it.

        handle_type: OPAQUE_FD, or DMA_BUF. trusted: this library exported the descriptor for this user, so that its
        name in /proc is not read, and no proof is made at its import. What it is, is examined at each import.

        Never raises for what it finds. Errors: OutOfMemoryError, DriverError (a lost device) where the look itself
        fails, whatever the descriptor is.
        """

    def import_fd(self, request: ImportRequest[ExaminedFd]) -> Allocation:
        """Import the payload behind a descriptor that was examined (`request.source`).

        The descriptor is borrowed: the allocation has a copy. A descriptor that is not trusted is proved first, where a
        device cannot tell a payload by looking at it.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE and what the descriptor is instead; OutOfMemoryError,
        with VK_ERROR_TOO_MANY_OBJECTS if there is no room for the copy.
        """

    def import_payload(self, request: ImportRequest[PayloadFd]) -> Allocation:
        """Import a payload of the object manager (`request.source`), which was examined when it was shared.

        Ownership: on success the allocation owns the payload, and closes it with itself. Errors: as `import_fd`.
        """

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> Allocation:
        """Import memory that the caller owns and keeps mapped (VK_EXT_external_memory_host).

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE if it is not all mapped and writable.
        """

    def export_fd(
        self, allocation: Allocation, *, read_only: bool = False, handle_type: MemoryHandleType = OPAQUE_FD
    ) -> OwnedFd:
        """Return a new descriptor of the payload (vkGetMemoryFdKHR), owned by the caller, close-on-exec.

        handle_type: OPAQUE_FD, or DMA_BUF.
        read_only: one that the kernel refuses to map for writing. An allocation that is not writable has no other.
        Errors: OutOfMemoryError with VK_ERROR_TOO_MANY_OBJECTS; UnsupportedError if no file is behind the payload.
        """

    # Bytes.

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """vkFlushMappedMemoryRanges: make what the host wrote visible to the device. Bytes; the memory is mapped."""

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """vkInvalidateMappedMemoryRanges: make what the device wrote visible to the host. Bytes."""

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        """Copy bytes (contiguous, format "B") into the payload at `offset`, by the device if it has its own memory.

        Returns when it is done. Ownership of the payload is acquired from its other users before, and released after.
        Errors: ValueError outside the allocation; DriverError; OutOfMemoryError; UnsupportedError for memory that no
        buffer can be bound to.
        """

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """Copy as many bytes of the payload as `into` (contiguous, writable, format "B") has. As `write`."""

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """Set every byte to `value` (0 to 255). As `write`."""

    # Commands.

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        """Record commands, submit them and wait until they are done. An exception of `record` abandons them.

        uses: what the commands use. It is not released before they are done, also if an exception ends the wait.
        owners: the allocations whose payloads the commands acquire for this device (True) or release (False), in their
        order. It is so from the submission on, also if an exception ends the wait.

        Errors: DriverError; OutOfMemoryError; UnsupportedError for a command that the device lacks.
        """

    def close(self) -> None:
        """Release the device. Safe to call twice."""
