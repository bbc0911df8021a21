"""`VulkanBackend`: a VkDevice behind the `Backend` interface.

How this works. Calls that many imports make (allocate, import, bind, map) fill their structs straight in C memory;
the others go through `extmem.vk`. A VkDevice is destroyed when it was closed and nothing of it is left. What moves
bytes is in `moving`, what only Windows's drivers do in `native`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices import descriptor_shortage, host
from extmem.devices.backend import (
    Allocation,
    DeviceIdentity,
    ExaminedFd,
    ImportRequest,
)
from extmem.devices.vulkan import native_sharing
from extmem.devices.vulkan.capabilities import WIN32_EXTENSION, extension_of
from extmem.devices.vulkan.handle_types import to_driver
from extmem.devices.vulkan.imports import Imports
from extmem.devices.vulkan.measuring import Measuring
from extmem.devices.vulkan.memory import VulkanAllocation, ours
from extmem.devices.vulkan.moving import Moving
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.resources import Resources
from extmem.devices.vulkan.results import fail
from extmem.devices.vulkan.transfer import Transfer
from extmem.errors import UnsupportedError
from extmem.owning import OwnedFd
from extmem.sharing.kinds import Kind
from extmem.sharing.payload import Win32Payload
from extmem.vk.abi import ffi
from extmem.vk.words import types_text

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.devices.vulkan.physical import PhysicalDevice
    from extmem.owning import Making
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms

__all__ = ["VulkanBackend"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FD, _KMT = int(HandleType.OPAQUE_FD), int(HandleType.OPAQUE_WIN32_KMT)
_Property = vk.MemoryPropertyFlagBits
_S = vk.StructureType
_ALLOCATE, _DEDICATED = int(_S.MEMORY_ALLOCATE_INFO), int(_S.MEMORY_DEDICATED_ALLOCATE_INFO)
_EXPORT, _GET_FD = int(_S.EXPORT_MEMORY_ALLOCATE_INFO), int(_S.MEMORY_GET_FD_INFO_KHR)
_STAGING_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST


class VulkanBackend(Moving):
    """One VkDevice as a `Backend`."""

    def __init__(
        self, physical: PhysicalDevice, *, device: int | None = None, queue_family: int | None = None, queue: int = 0
    ) -> None:
        """See `LogicalDevice`."""
        super().__init__(physical, device=device, queue_family=queue_family, queue=queue)
        self._resources = Resources(self)
        self.bind = self._resources.bind
        """See `Backend`."""
        self._imports = Imports(self)
        self._measuring = Measuring(self)
        # Nobody else begins within reach of this, another process's device neither.
        self._identities = itertools.count(secrets.randbits(62) + 1)
        self._native = native_sharing(self)

    # Who it is.

    @property
    def kind(self) -> str:
        """`"vulkan"`."""
        return "vulkan"

    @property
    def identity(self) -> DeviceIdentity:
        """See `Backend`."""
        return self.physical.identity

    payload_kind = Kind.OPAQUE
    """The driver's own files, which the kernel does not tell apart."""

    @property
    def allocates_zeroed(self) -> bool:
        """False: Vulkan leaves that to the driver."""
        return False

    @property
    def min_imported_host_pointer_alignment(self) -> int:
        """Bytes."""
        return self.physical.min_imported_host_pointer_alignment

    @property
    def max_memory_allocation_count(self) -> int:
        """VkPhysicalDeviceLimits::maxMemoryAllocationCount."""
        return int(self.physical.properties.limits.max_memory_allocation_count)

    enabled_features: frozenset[str] = frozenset()
    """No feature is enabled on a VkDevice that is made here; of one that somebody else made, those that were stated."""

    @property
    def max_framebuffer(self) -> tuple[int, int]:
        """See `Backend`."""
        limits = self.physical.properties.limits
        return int(limits.max_framebuffer_width), int(limits.max_framebuffer_height)

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """See `Backend`."""
        return self.physical.memory_properties

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """See `Backend`."""
        return self.physical.external_buffer_properties(info)

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """See `Backend`."""
        return self.physical.image_format_properties(info)

    # Buffers and images.

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """See `Backend`. Drivers tell them of a buffer that exists, so one is made and destroyed."""
        made = self.create_buffer(info)
        self.destroy(made)
        return made.requirements

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """See `Backend`."""
        made = self.create_image(info)
        self.destroy(made)
        return made.requirements

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """See `Backend`."""
        return self._resources.subresource_layout(info, subresource)

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """See `Backend`."""
        self.alive()
        return self._resources.create_buffer(info)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """See `Backend`."""
        self.alive()
        return self._resources.create_image(info)

    def temporary(self, info: vk.BufferCreateInfo) -> contextlib.AbstractContextManager[NativeResource]:
        """A buffer for the time of the block."""
        return self._resources.temporary(info)

    def recreate(self, resource: NativeResource) -> NativeResource:
        """The identical buffer or image on this device."""
        return self._resources.recreate(resource)

    def destroy(self, resource: NativeResource) -> None:
        """See `Backend`."""
        self._resources.destroy(resource)

    def buffer_of(self, allocation: VulkanAllocation) -> NativeResource:
        """A buffer over the whole allocation: the one it is dedicated to, or one for moving bytes alone."""
        return self._resources.buffer_of(allocation)

    def too_small(self, allocation: VulkanAllocation) -> str:
        """See `Resources.too_small`."""
        return self._resources.too_small(allocation)

    def obstacle(self, allocation: VulkanAllocation, usage: int = 0, end: int = 0) -> str:
        """Why that buffer cannot be used so, and what to do; empty where it can be."""
        return self._resources.obstacle(allocation, usage, end)

    # Memory.

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: int = 0,
        dedicated: NativeResource | None = None,
        terms: ShareTerms | None = None,
    ) -> VulkanAllocation:
        """See `Backend`. The descriptor stays with the object manager: a driver's memory has no room for it.

        So do the terms on Linux; on Windows the driver names its memory.
        """
        self.alive()
        types = to_driver(handle_types)
        if types and self._native is not None:
            return self._native.allocate(size, memory_type_index, types, dedicated, terms)
        export = ffi.new("VkExportMemoryAllocateInfo *", (_EXPORT, ffi.NULL, types)) if types else ffi.NULL
        info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, export, size, memory_type_index))
        keep = self.dedicate(info, dedicated)
        memory = self.allocate_raw(info, size, memory_type_index, "allocating")
        del keep
        identity = next(self._identities) if types else 0
        return VulkanAllocation(self, memory, size, memory_type_index, types, dedicated, stated_identity=identity)

    def dedicate(self, info: Any, dedicated: NativeResource | None) -> Any:
        """Chain VkMemoryDedicatedAllocateInfo to a VkMemoryAllocateInfo. The result is kept until the call is made."""
        if dedicated is None:
            return None
        image, buffer = (dedicated.raw, 0) if dedicated.kind == "image" else (0, dedicated.raw)
        link = ffi.new("VkMemoryDedicatedAllocateInfo *", (_DEDICATED, info.pNext, image, buffer))
        info.pNext = link
        return link

    def make_memory(self, info: Any, consumes: OwnedFd | None = None) -> tuple[VkObject, Making]:
        """vkAllocateMemory. Return what owns the VkDeviceMemory, and the call with its VkResult.

        consumes: an fd that the driver owns from a success on.
        """
        made, commands = ffi.new("uint64_t *"), self.commands
        memory = VkObject(self.owner)
        arguments = (self.handle, info, ffi.NULL, made)
        return memory, memory.make(commands.vkAllocateMemory, arguments, made, commands.vkFreeMemory, consumes)

    def allocate_raw(self, info: Any, size: int, memory_type_index: int, what: str) -> VkObject:
        """`make_memory` that raises where there is none. what: a word for the error."""
        memory, making = self.make_memory(info)
        if making.result:
            tried = f"{what} {size} bytes of memory type {memory_type_index}"
            fail(making.result, "vkAllocateMemory", self.name, tried)
        if not memory.raw:  # some drivers call an allocation of nothing a success
            fail(
                int(vk.Result.ERROR_UNKNOWN), "vkAllocateMemory", self.name, f"{what} {size} bytes: there is no memory"
            )
        return memory

    def adopt_memory(
        self,
        raw: int,
        size: int,
        memory_type_index: int,
        handle_types: int,
        dedicated: NativeResource | None,
        *,
        imported: int = 0,
    ) -> VulkanAllocation:
        """See `AdoptsMemory`."""
        self.alive()
        types = to_driver(handle_types)
        made = VulkanAllocation(
            self,
            raw,
            size,
            memory_type_index,
            types | to_driver(imported),
            dedicated,
            stated_identity=next(self._identities) if types else 0,
            owner="held",
            exporting=bool(types),
        )
        try:
            self._imports.check_adopted(made)
            self._measuring.check(made)
        except BaseException:
            made.close()
            raise
        return made

    def adopt_resource(self, raw: int, info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> NativeResource:
        """See `AdoptsMemory`."""
        self.alive()
        return self._resources.adopt(raw, info)

    def examine_fd(self, fd: int, handle_type: int, *, trusted: bool = False) -> ExaminedFd:
        """See `Backend`, and `fd_check`."""
        return self._imports.fds.examine(fd, to_driver(handle_type), trusted=trusted)

    def import_fd(self, request: ImportRequest[ExaminedFd]) -> VulkanAllocation:
        """See `Backend`, and `fd_check`."""
        return self._imports.import_fd(request)

    def import_payload(self, request: ImportRequest[PayloadFd]) -> VulkanAllocation:
        """See `Backend`. A host payload is imported as host memory, of a type that takes it."""
        if self._native is not None and isinstance(request.source, Win32Payload):
            self.alive()
            return self._native.import_payload(request, request.source)
        return self._imports.import_payload(request)

    def import_unchecked(self, request: ImportRequest[ExaminedFd]) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryFdInfoKHR. The fd is borrowed. Nothing is checked first."""
        return self._imports.import_unchecked(request)

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> VulkanAllocation:
        """See `Backend`. The host's pages become the device's, where they are."""
        self.alive()
        return self._imports.from_host_pointer(address, size, memory_type_index)

    def fd_memory_type_bits(self, handle_type: int, fd: int) -> int:
        """See `Backend`. For dma-buf, where the device has it."""
        return self._imports.fd_memory_type_bits(handle_type, fd)

    def host_pointer_memory_type_bits(self, handle_type: int, address: int) -> int:
        """See `Backend`."""
        return self._imports.host_pointer_memory_type_bits(handle_type, address)

    def export_fd(self, allocation: Allocation, *, read_only: bool = False, handle_type: int = _FD) -> OwnedFd:
        """See `Backend`. A driver's fd can always be written through: `read_only` changes nothing here."""
        made = ours(allocation)
        return self.get_fd(made.raw or made.live, handle_type)

    def get_fd(self, raw: int, handle_type: int) -> OwnedFd:
        """vkGetMemoryFdKHR. Close-on-exec, which the specification leaves to the driver."""
        info = ffi.new("VkMemoryGetFdInfoKHR *", (_GET_FD, ffi.NULL, raw, handle_type))
        made = ffi.new("int *", -1)
        owned, result = OwnedFd.made_by(self.commands.vkGetMemoryFdKHR, (self.handle, info, made), made)
        if result:
            fail(result, "vkGetMemoryFdKHR", self.name)
        if owned.fd < 0:  # some drivers call that a success
            if descriptor_shortage.of_descriptors():
                fail(int(vk.Result.ERROR_TOO_MANY_OBJECTS), "vkGetMemoryFdKHR", self.name)
            raise UnsupportedError(
                f"{self.name} gave no fd: this memory was not allocated for export as {types_text(handle_type)}",
                requires_one_of=[f"VkExportMemoryAllocateInfo::handleTypes with {types_text(handle_type)}"],
            )
        os.set_inheritable(owned.fd, False)
        return owned.raised()

    def get_handle(self, raw: int, handle_type: int) -> OwnedFd:
        """vkGetMemoryFdKHR; on Windows vkGetMemoryWin32HandleKHR, of one of its NT types. Owned by the caller."""
        return self.get_fd(raw, handle_type) if self._native is None else self._native.get_handle(raw, handle_type)

    def get_number(self, raw: int) -> int:
        """vkGetMemoryWin32HandleKHR of a KMT number, which owns nothing. On Windows alone."""
        if self._native is None:
            raise self.unsupported_type(_KMT)
        return self._native.get_number(raw)

    @property
    def imports_handles(self) -> bool:
        """See `ImportsHandles`."""
        return self._native is not None and WIN32_EXTENSION in self.enabled

    def missing_for(self, handle_type: int) -> str:
        """See `ImportsHandles`."""
        needed = extension_of(handle_type)
        return "" if needed in self.enabled else needed

    def handle_memory_type_bits(self, handle_type: int, handle: int) -> int:
        """See `Backend`. UnsupportedError except on Windows, and for opaque types, which are never queried."""
        if self._native is None:
            raise self.unsupported_type(handle_type)
        return self._native.memory_type_bits(handle_type, handle)

    def host_range_mapped(self, address: int, size: int) -> bool:
        """See `Backend`."""
        return host.range_is_mapped(address, size)

    def unsupported_type(self, handle_type: int) -> UnsupportedError:
        """What to raise for a handle type that the device does not import."""
        return UnsupportedError(
            f"{self.name} does not import {types_text(handle_type)} here; `extmem devices` lists what it does",
            requires_one_of=["a handle type that the device imports"],
        )

    # Around the moving of bytes.

    @property
    def transfer(self) -> Transfer:
        """What moves bytes, made at the first use."""
        self.alive()
        with self.making:
            if self._transfer is None:
                self._transfer = Transfer(self)
            return self._transfer

    def allocate_staging(self, size: int) -> VulkanAllocation:
        """Memory that the host sees, cached if there is such, with a buffer over it."""
        buffer = self.create_buffer(vk.BufferCreateInfo(size=size, usage=_STAGING_USAGE))
        try:
            types, bits = self.memory_types(), buffer.requirements.memory_type_bits
            seen = [i for i in range(len(types)) if bits >> i & 1 and self.host_visible[i]]
            cached = [i for i in seen if types[i].property_flags & _Property.HOST_CACHED]
            allocation = self.allocate(buffer.requirements.size, (cached or seen)[0], b"")
        except BaseException:
            self.destroy(buffer)
            raise
        allocation.transfer = buffer
        try:
            self.bind(allocation, 0, buffer)
        except BaseException:
            allocation.close()
            raise
        return allocation

    # The end.

    def another(self) -> VulkanBackend:
        """A VkDevice of the same physical device, for tests of what may do harm."""
        return self.physical.open()

    def free(self, allocation: Allocation) -> None:
        """See `Backend`."""
        allocation.close()
