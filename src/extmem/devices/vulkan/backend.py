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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices import descriptor_shortage, host
from extmem.devices.backend import (
    Allocation,
    DeviceIdentity,
    FdFacts,
)
from extmem.devices.vulkan import native_sharing
from extmem.devices.vulkan.again import KnownImports
from extmem.devices.vulkan.call_structs import Export, GetFd, Spares
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
from extmem.handles.process_id import current_process
from extmem.owning import OwnedFd
from extmem.sharing.kinds import Backing
from extmem.sharing.payload import Win32Payload
from extmem.vk.abi import ffi
from extmem.vk.words import types_text

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.devices.vulkan.physical import PhysicalDevice
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms

__all__ = ["VulkanBackend"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FD, _KMT = int(HandleType.OPAQUE_FD), int(HandleType.OPAQUE_WIN32_KMT)
_Property = vk.MemoryPropertyFlagBits
_S = vk.StructureType
_ALLOCATE, _DEDICATED = int(_S.MEMORY_ALLOCATE_INFO), int(_S.MEMORY_DEDICATED_ALLOCATE_INFO)
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
        self._exports, self._fds = Spares(Export), Spares(GetFd)
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

    payload_backing = Backing.DRIVER_FD
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
        if self.closed or self.pid != current_process.pid:
            self.alive()  # says which of the two
        types = handle_types if handle_types == _FD else to_driver(handle_types)
        if types and self._native is not None:
            return self._native.allocate(size, memory_type_index, types, dedicated, terms)
        if types:
            call = self._exports.pop("set", None) or self._exports.make()
            call.export.handleTypes, info = types, call.info
            info.allocationSize, info.memoryTypeIndex, call.made[0] = size, memory_type_index, 0
            keep = self.dedicate(info, dedicated) if dedicated is not None else None
            memory = self.allocate_raw(info, size, memory_type_index, "allocating", call.made)
            if keep is None:  # else the chain has a link that ends with this call
                self._exports["set"] = call
            identity = next(self._identities)
        else:
            info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, ffi.NULL, size, memory_type_index))
            keep = self.dedicate(info, dedicated)
            memory, identity = self.allocate_raw(info, size, memory_type_index, "allocating"), 0
        return VulkanAllocation(self, memory, size, memory_type_index, types, dedicated, stated_identity=identity)

    def dedicate(self, info: Any, dedicated: NativeResource | None) -> Any:
        """Chain VkMemoryDedicatedAllocateInfo to a VkMemoryAllocateInfo; what must be kept until the call."""
        if dedicated is None:
            return None
        image, buffer = (dedicated.raw, 0) if dedicated.kind == "image" else (0, dedicated.raw)
        link = ffi.new("VkMemoryDedicatedAllocateInfo *", (_DEDICATED, info.pNext, image, buffer))
        info.pNext = link
        return link

    def allocate_raw(self, info: Any, size: int, memory_type_index: int, what: str, made: Any = None) -> VkObject:
        """vkAllocateMemory; what owns the VkDeviceMemory. what: a word for the error. made: room for the handle."""
        made, commands = made or ffi.new("uint64_t *"), self.commands
        memory = VkObject(self.owner)
        making = memory.make(
            commands.vkAllocateMemory, (self.handle, info, ffi.NULL, made), made, commands.vkFreeMemory
        )
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
            self._imports.measure(made)
            self._measuring.check(made)
        except BaseException:
            made.close()
            raise
        return made

    def adopt_resource(self, raw: int, info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> NativeResource:
        """See `AdoptsMemory`."""
        self.alive()
        return self._resources.adopt(raw, info)

    def import_fd(
        self,
        fd: int,
        size: int,
        memory_type_index: int,
        *,
        handle_type: int = _FD,
        dedicated: NativeResource | None = None,
        known: bool = False,
    ) -> VulkanAllocation:
        """See `Backend`, and `proving`."""
        if self.closed:
            self.alive()
        if known:
            self._imports.prover.recognise(fd, size, handle_type, memory_type_index)
        else:
            self._imports.examine(fd, size, memory_type_index, handle_type, dedicated)
        return self._imports.unexamined(fd, size, memory_type_index, handle_type, dedicated)

    def known_imports(self, size: int, memory_type_index: int, handle_type: int) -> Callable[[int], VulkanAllocation]:
        """See `RepeatsImports`."""
        return KnownImports(self._imports, size, memory_type_index, handle_type).import_fd

    def import_payload(
        self,
        payload: PayloadFd,
        size: int,
        memory_type_index: int,
        capacity: int,
        *,
        identity: int = 0,
        dedicated: NativeResource | None = None,
    ) -> VulkanAllocation:
        """See `Backend`. A host payload comes in as host memory, of a type that takes it."""
        self.alive()
        if self._native is not None and isinstance(payload, Win32Payload):
            return self._native.import_payload(payload, size, memory_type_index, dedicated)
        return self._imports.from_payload(
            payload, size, memory_type_index, capacity, identity=identity, dedicated=dedicated
        )

    def import_unexamined(
        self, fd: int, size: int, memory_type_index: int, handle_type: int, dedicated: NativeResource | None
    ) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryFdInfoKHR. The fd is borrowed. Looks at nothing first."""
        return self._imports.unexamined(fd, size, memory_type_index, handle_type, dedicated)

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

    def inspect_fd(self, fd: int, handle_type: int, *, known: bool = False) -> FdFacts:
        """See `Backend`."""
        prover, kind = self._imports.prover, to_driver(handle_type)
        return prover.glance(fd, kind) if known else prover.inspect(fd, kind)

    def export_fd(self, allocation: Allocation, *, read_only: bool = False, handle_type: int = _FD) -> OwnedFd:
        """See `Backend`. A driver's fd can always be written through: `read_only` changes nothing here."""
        made = ours(allocation)
        return self.get_fd(made.raw or made.live, handle_type)

    def get_fd(self, raw: int, handle_type: int) -> OwnedFd:
        """vkGetMemoryFdKHR. Close-on-exec, which the specification leaves to the driver."""
        call = self._fds.pop("set", None) or self._fds.make()
        call.info.memory, call.info.handleType, call.made[0] = raw, handle_type, -1
        owned, result = OwnedFd.made_by(self.commands.vkGetMemoryFdKHR, (self.handle, call.info, call.made), call.made)
        if result:
            fail(result, "vkGetMemoryFdKHR", self.name)
        self._fds["set"] = call
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
