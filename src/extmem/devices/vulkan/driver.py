"""`VulkanDriver`: a VkDevice behind the `Driver` interface.

How this works. Calls that many imports make (allocate, import, bind, map) fill their structs straight in C memory;
the others go through `extmem.vk`. A VkDevice is destroyed when it was closed and nothing of it is left.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.broker.wire import Kind
from extmem.devices.base import Allocation, DeviceIdentity, FdFacts, NativeResource, Requirements
from extmem.devices.vulkan.allocation import VulkanAllocation
from extmem.devices.vulkan.call import fail
from extmem.devices.vulkan.proving import Prover
from extmem.devices.vulkan.resources import Resources
from extmem.devices.vulkan.transfer import Transfer
from extmem.devices.vulkan.types import to_driver
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.broker.descriptors import PayloadFd
    from extmem.devices.vulkan.physical import PhysicalDevice

__all__ = ["VulkanDriver"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FD = int(HandleType.OPAQUE_FD)
_HOST_POINTER = int(HandleType.HOST_ALLOCATION)
_Property = vk.MemoryPropertyFlagBits
_S = vk.StructureType
_ALLOCATE, _EXPORT = int(_S.MEMORY_ALLOCATE_INFO), int(_S.EXPORT_MEMORY_ALLOCATE_INFO)
_IMPORT_FD, _DEDICATED = int(_S.IMPORT_MEMORY_FD_INFO_KHR), int(_S.MEMORY_DEDICATED_ALLOCATE_INFO)
_IMPORT_HOST = int(_S.IMPORT_MEMORY_HOST_POINTER_INFO_EXT)
_STAGING_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_MOVING = int(vk.QueueFlagBits.GRAPHICS | vk.QueueFlagBits.COMPUTE | vk.QueueFlagBits.TRANSFER)


class VulkanDriver:
    """One VkDevice. Ownership: made here and destroyed at the end, or adopted (`device`) and left as it was."""

    def __init__(
        self, physical: PhysicalDevice, *, device: int | None = None, queue_family: int | None = None, queue: int = 0
    ) -> None:
        """device: a VkDevice that somebody else made, with this queue family's queue number `queue`."""
        self.physical = physical
        self.name = physical.identity.device_name
        self.queue_family = _family(physical) if queue_family is None else queue_family
        self.queue_index = queue
        self.owned = device is None
        self.handle: Any = self._create() if device is None else ffi.cast("VkDevice", device)
        self.commands = physical.instance.loader.device_commands(physical.commands, self.handle, self.name)
        self.pid = os.getpid()
        self._visible = tuple(bool(t.property_flags & _Property.HOST_VISIBLE) for t in self._types())
        self._closed = False
        self._live: set[int] = set()
        self._resources = Resources(self)
        self._prover = Prover(self)
        self._transfer: Transfer | None = None

    def _types(self) -> tuple[vk.MemoryType, ...]:
        return tuple(self.physical.memory_properties.memory_types)

    def _create(self) -> Any:
        from extmem.devices.vulkan.physical import EXTENSIONS

        names = [ffi.new("char[]", name.encode()) for name in EXTENSIONS if name in self.physical.extensions]
        listed = ffi.new("char *[]", names or [ffi.NULL])
        queue, priority = ffi.new("VkDeviceQueueCreateInfo *"), ffi.new("float *", 1.0)
        queue.sType, queue.queueFamilyIndex = int(_S.DEVICE_QUEUE_CREATE_INFO), self.queue_family
        queue.queueCount, queue.pQueuePriorities = 1, priority
        info, made = ffi.new("VkDeviceCreateInfo *"), ffi.new("VkDevice *")
        info.sType, info.queueCreateInfoCount, info.pQueueCreateInfos = int(_S.DEVICE_CREATE_INFO), 1, queue
        info.enabledExtensionCount, info.ppEnabledExtensionNames = len(names), listed
        result = self.physical.commands.vkCreateDevice(self.physical.handle, info, ffi.NULL, made)
        if result:
            fail(result, "vkCreateDevice", self.name)
        return made[0]

    def check(self, result: int, command: str, tried: str = "") -> None:
        """Raise what a VkResult other than VK_SUCCESS means."""
        if result:
            fail(result, command, self.name, tried)

    # Who it is.

    @property
    def kind(self) -> str:
        """`"vulkan"`."""
        return "vulkan"

    @property
    def identity(self) -> DeviceIdentity:
        """See `Driver`."""
        return self.physical.identity

    @property
    def raw(self) -> int:
        """VkDevice as a number."""
        return int(ffi.cast("uintptr_t", self.handle))

    @property
    def payload_kind(self) -> Kind:
        """The driver's own files, which the kernel does not tell apart."""
        return Kind.OPAQUE

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

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """See `Driver`."""
        return self.physical.memory_properties

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """See `Driver`."""
        return self.physical.external_buffer_properties(info)

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """See `Driver`."""
        return self.physical.image_format_properties(info)

    def host_visible(self, memory_type_index: int) -> bool:
        """Whether memory of this type can be mapped."""
        return self._visible[memory_type_index]

    # Buffers and images.

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """See `Driver`. Drivers tell them of a buffer that exists, so one is made and destroyed."""
        made = self.create_buffer(info)
        self.destroy(made)
        return made.requirements

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """See `Driver`."""
        made = self.create_image(info)
        self.destroy(made)
        return made.requirements

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """See `Driver`."""
        return self._resources.subresource_layout(info, subresource)

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """See `Driver`."""
        self._alive()
        return self._resources.create_buffer(info)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """See `Driver`."""
        self._alive()
        return self._resources.create_image(info)

    def recreate(self, resource: NativeResource) -> NativeResource:
        """The identical buffer or image on this device."""
        return self._resources.recreate(resource)

    def destroy(self, resource: NativeResource) -> None:
        """See `Driver`."""
        self._resources.destroy(resource)

    def buffer_of(self, allocation: VulkanAllocation) -> int:
        """A VkBuffer over the whole allocation: the one it is dedicated to, or one for moving bytes alone."""
        return self._resources.buffer_of(allocation)

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """See `Driver`."""
        self._resources.bind(_ours(allocation), offset, resource)

    # Memory.

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: int = 0,
        dedicated: NativeResource | None = None,
    ) -> VulkanAllocation:
        """See `Driver`. The descriptor stays with the object manager: a driver's file has no room for it."""
        self._alive()
        types = to_driver(handle_types)
        info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, ffi.NULL, size, memory_type_index))
        chained = None
        if types:
            chained = ffi.new("VkExportMemoryAllocateInfo *", (_EXPORT, ffi.NULL, types))
            info.pNext = chained
        keep = self._dedicate(info, dedicated)
        raw = self._allocate(info, size, memory_type_index, "allocating")
        del chained, keep
        identity = secrets.randbits(63) | 1 if types else 0
        return VulkanAllocation(self, raw, size, memory_type_index, types, dedicated, identity=identity)

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
        """See `Driver`, and `proving`."""
        self._alive()
        found = self._prover.inspect(fd, handle_type)
        if not found.valid:
            raise self._refusal(found.problem)
        if not known:
            self._prover.prove(fd, size, memory_type_index, handle_type, dedicated)
        return self.import_raw(fd, size, memory_type_index, handle_type, dedicated)

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
        """See `Driver`. The driver takes a copy of the fd; the payload's own stays with the allocation.

        A host payload (`capacity`) comes in as host memory: of a type that takes it, whatever `memory_type_index` says.
        """
        self._alive()
        if capacity:
            return self._import_host_payload(payload, size, capacity)
        fd = os.dup(payload.fd)
        try:
            if not self._prover.resembles(fd, _FD):
                raise self._refusal(f"the payload's file is nothing that {self.name} exports")
            allocation = self.import_raw(fd, size, memory_type_index, _FD, dedicated, payload, identity)
        except BaseException:
            os.close(fd)
            raise
        return allocation

    def _import_host_payload(self, payload: PayloadFd, size: int, capacity: int) -> VulkanAllocation:
        from extmem.devices.host import map_file

        if size > capacity:
            raise self._refusal(f"{size} bytes are to be imported, and the payload's file has {capacity}")
        if not payload.writable:
            raise UnsupportedError(
                f"{self.name} imports host memory for reading and writing alone, and this payload is read-only here; "
                "open it on the host device, or ask its owner for write access",
                requires_one_of=["the right to write", "the host device"],
            )
        mapping = map_file(payload.fd, size)
        bits = self.host_pointer_memory_type_bits(_HOST_POINTER, mapping.address)
        if not bits:
            raise self._refusal("no memory type takes the host's pages")
        made = self.import_host_pointer(mapping.address, size, (bits & -bits).bit_length() - 1)
        made.mapped_at(mapping.address, (mapping, payload))
        return made

    def import_raw(
        self,
        fd: int,
        size: int,
        memory_type_index: int,
        handle_type: int,
        dedicated: NativeResource | None,
        payload: PayloadFd | None = None,
        identity: int = 0,
    ) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryFdInfoKHR. Consumes the fd on success. Looks at nothing first."""
        source = ffi.new("VkImportMemoryFdInfoKHR *", (_IMPORT_FD, ffi.NULL, handle_type, fd))
        info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, source, size, memory_type_index))
        keep = self._dedicate(info, dedicated) if dedicated is not None else None
        raw = self._allocate(info, size, memory_type_index, "importing")
        del keep
        return VulkanAllocation(
            self, raw, size, memory_type_index, handle_type, dedicated, payload, identity=identity, acquired=False
        )

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> VulkanAllocation:
        """See `Driver`. The host's pages become the device's, where they are."""
        self._alive()
        alignment = self.min_imported_host_pointer_alignment
        if address % alignment or size % alignment or not self.host_range_mapped(address, size):
            raise self._refusal(
                f"{size} bytes at {address:#x} cannot be imported: address and size must be multiples of {alignment}, "
                "and all of it mapped here for reading and writing"
            )
        source = ffi.new(
            "VkImportMemoryHostPointerInfoEXT *",
            (_IMPORT_HOST, ffi.NULL, _HOST_POINTER, ffi.cast("void *", address)),
        )
        info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, source, size, memory_type_index))
        raw = self._allocate(info, size, memory_type_index, "importing the host's")
        made = VulkanAllocation(self, raw, size, memory_type_index, _HOST_POINTER, acquired=False)
        made.mapped_at(address, None)
        return made

    def _dedicate(self, info: Any, dedicated: NativeResource | None) -> Any:
        if dedicated is None:
            return None
        image, buffer = (dedicated.raw, 0) if dedicated.kind == "image" else (0, dedicated.raw)
        link = ffi.new("VkMemoryDedicatedAllocateInfo *", (_DEDICATED, info.pNext, image, buffer))
        info.pNext = link
        return link

    def _allocate(self, info: Any, size: int, memory_type_index: int, what: str) -> int:
        made = ffi.new("uint64_t *")
        result = self.commands.vkAllocateMemory(self.handle, info, ffi.NULL, made)
        if result:
            fail(result, "vkAllocateMemory", self.name, f"{what} {size} bytes of memory type {memory_type_index}")
        raw = int(made[0])
        self._live.add(raw)
        return raw

    def inspect_fd(self, fd: int, handle_type: int) -> FdFacts:
        """See `Driver`."""
        return self._prover.inspect(fd, to_driver(handle_type))

    def export_fd(self, allocation: Allocation, *, read_only: bool = False, handle_type: int = _FD) -> int:
        """See `Driver`. A driver's fd can always be written through: `read_only` changes nothing here."""
        return self.get_fd(_ours(allocation).live, handle_type)

    def get_fd(self, raw: int, handle_type: int) -> int:
        """vkGetMemoryFdKHR."""
        info = ffi.new("VkMemoryGetFdInfoKHR *", (int(_S.MEMORY_GET_FD_INFO_KHR), ffi.NULL, raw, handle_type))
        made = ffi.new("int *", -1)
        self.check(self.commands.vkGetMemoryFdKHR(self.handle, info, made), "vkGetMemoryFdKHR")
        return int(made[0])

    def export_probe(self, handle_type: int, size: int) -> int:
        """An fd as this driver exports them, of memory that is freed again."""
        usage = vk.BufferCreateInfo(
            size=size, usage=_STAGING_USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(HandleType(handle_type))
        )
        with self._resources.temporary(usage) as buffer:
            needs = buffer.requirements
            index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
            probe = self.allocate(needs.size, index, b"", handle_types=handle_type, dedicated=buffer)
            try:
                return self.get_fd(probe.live, handle_type)
            finally:
                probe.close()

    def fd_memory_type_bits(self, handle_type: int, fd: int) -> int:
        """See `Driver`. For dma-buf, where the device has it."""
        if handle_type != HandleType.DMA_BUF or "VK_EXT_external_memory_dma_buf" not in self.physical.extensions:
            raise self._unsupported_type(handle_type)
        answer = ffi.new("VkMemoryFdPropertiesKHR *")
        answer.sType = int(_S.MEMORY_FD_PROPERTIES_KHR)
        self.check(
            self.commands.vkGetMemoryFdPropertiesKHR(self.handle, handle_type, fd, answer),
            "vkGetMemoryFdPropertiesKHR",
        )
        return int(answer.memoryTypeBits)

    def handle_memory_type_bits(self, handle_type: int, handle: int) -> int:
        """UnsupportedError: handles made outside Vulkan are Windows'."""
        raise self._unsupported_type(handle_type)

    def host_pointer_memory_type_bits(self, handle_type: int, address: int) -> int:
        """See `Driver`."""
        if handle_type != _HOST_POINTER or "VK_EXT_external_memory_host" not in self.physical.extensions:
            raise self._unsupported_type(handle_type)
        answer = ffi.new("VkMemoryHostPointerPropertiesEXT *")
        answer.sType = int(_S.MEMORY_HOST_POINTER_PROPERTIES_EXT)
        result = self.commands.vkGetMemoryHostPointerPropertiesEXT(
            self.handle, handle_type, ffi.cast("void *", address), answer
        )
        self.check(result, "vkGetMemoryHostPointerPropertiesEXT", f"{address:#x}")
        return int(answer.memoryTypeBits)

    def host_range_mapped(self, address: int, size: int) -> bool:
        """See `Driver`."""
        from extmem.devices.host import range_is_mapped

        return range_is_mapped(address, size)

    def _unsupported_type(self, handle_type: int) -> UnsupportedError:
        return UnsupportedError(
            f"{self.name} does not import {HandleType(handle_type)!r} here; `extmem devices` lists what it does",
            requires_one_of=["a handle type that the device imports"],
        )

    def _refusal(self, problem: str) -> DriverError:
        return DriverError(
            f"vkAllocateMemory: {problem}",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self.name],
        )

    # Bytes.

    def map(self, raw: int, size: int) -> int:
        """vkMapMemory of all of it; the address."""
        at = ffi.new("void **")
        result = self.commands.vkMapMemory(self.handle, raw, 0, int(vk.WHOLE_SIZE), 0, at)
        if result:
            fail(result, "vkMapMemory", self.name, f"{size} bytes")
        return int(ffi.cast("uintptr_t", at[0]))

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """See `Driver`."""
        self._ranges("vkFlushMappedMemoryRanges", _ours(allocation), offset, size)

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """See `Driver`."""
        self._ranges("vkInvalidateMappedMemoryRanges", _ours(allocation), offset, size)

    def _ranges(self, command: str, allocation: VulkanAllocation, offset: int, size: int) -> None:
        flags = self._types()[allocation.memory_type_index].property_flags
        if flags & _Property.HOST_COHERENT or not allocation.mapped:
            return
        atom = int(self.physical.properties.limits.non_coherent_atom_size)
        start = offset - offset % atom
        end = min(allocation.size, -(-(offset + size) // atom) * atom)
        area = ffi.new(
            "VkMappedMemoryRange *", (int(_S.MAPPED_MEMORY_RANGE), ffi.NULL, allocation.live, start, end - start)
        )
        self.check(getattr(self.commands, command)(self.handle, 1, area), command)

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        """See `Driver`."""
        self._moving(allocation, offset, data.nbytes).write(_ours(allocation), offset, data)

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """See `Driver`."""
        self._moving(allocation, offset, into.nbytes).read(_ours(allocation), offset, into)

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """See `Driver`."""
        self._moving(allocation, offset, size).fill(_ours(allocation), offset, size, value)

    def _moving(self, allocation: Allocation, offset: int, size: int) -> Transfer:
        if offset < 0 or size < 0 or offset + size > allocation.size:
            raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
        return self.transfer

    @property
    def transfer(self) -> Transfer:
        """What moves bytes, made at the first use."""
        self._alive()
        if self._transfer is None:
            self._transfer = Transfer(self)
        return self._transfer

    def allocate_staging(self, size: int) -> VulkanAllocation:
        """Memory that the host sees, cached if there is such, with a buffer over it."""
        buffer = self.create_buffer(vk.BufferCreateInfo(size=size, usage=_STAGING_USAGE))
        try:
            types, bits = self._types(), buffer.requirements.memory_type_bits
            seen = [i for i in range(len(types)) if bits >> i & 1 and self._visible[i]]
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

    def _alive(self) -> None:
        if self._closed:
            raise HandleStateError(f"the device {self.name} is closed; open it again with extmem.open_device()")

    def another(self) -> VulkanDriver:
        """A VkDevice of the same physical device, for tests of what may do harm."""
        return self.physical.open()

    def free(self, allocation: Allocation) -> None:
        """See `Driver`."""
        allocation.close()

    def free_memory(self, raw: int) -> None:
        """vkFreeMemory."""
        if self.pid == os.getpid():
            self.commands.vkFreeMemory(self.handle, raw, ffi.NULL)
        self.gone(raw)

    def made(self, raw: int) -> None:
        """Something of this device lives."""
        self._live.add(raw)

    def gone(self, raw: int) -> None:
        """Something of this device was destroyed."""
        self._live.discard(raw)
        if self._closed and not self._live:
            self._destroy()

    def close(self) -> None:
        """vkDestroyDevice, as soon as nothing of it is left. Safe to call twice; an adopted one is left alone."""
        if self._closed:
            return
        transfer, self._transfer = self._transfer, None
        if transfer is not None and self.pid == os.getpid():
            transfer.close()
        self._closed = True
        if not self._live:
            self._destroy()

    def _destroy(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None and self.owned and self.pid == os.getpid():
            self.commands.vkDestroyDevice(handle, ffi.NULL)


def _family(physical: PhysicalDevice) -> int:
    """The first queue family that can do all, else the first that can copy."""
    able = [family for family in physical.queue_families if family.flags & _MOVING and family.queue_count]
    if not able:
        raise UnsupportedError(
            f"{physical.identity.device_name} has no queue that can copy; choose another device",
            requires_one_of=["a queue family with TRANSFER"],
        )
    return max(able, key=lambda family: bin(family.flags & _MOVING).count("1")).number


def _ours(allocation: Allocation) -> VulkanAllocation:
    if not isinstance(allocation, VulkanAllocation):
        raise TypeError(f"{allocation!r} is no allocation of a Vulkan device")
    return allocation
