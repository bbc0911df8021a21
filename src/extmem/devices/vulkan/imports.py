"""Imports of a VkDevice: examined fds, payloads of the object manager, and host memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices import host
from extmem.devices.types import ImportRequest
from extmem.devices.vulkan.capabilities import extension_of
from extmem.devices.vulkan.handle_types import to_driver
from extmem.devices.vulkan.memory import VulkanAllocation
from extmem.devices.vulkan.size_check import SizeCheck
from extmem.errors import DriverError, UnsupportedError
from extmem.sharing.payload import Win32Payload
from extmem.vk.abi import ffi
from extmem.vk.handle_types import (
    DMA_BUF,
    FD_TYPES,
    HOST_ALLOCATION,
    NO_TYPES,
    OPAQUE_FD,
    MemoryHandleType,
    common,
    lowest,
    union,
)

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import ExaminedFd
    from extmem.devices.vulkan.fd_check import FdCheck
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.memory import Memories
    from extmem.sharing.payload import PayloadFd

__all__ = ["Imports"]

_FD_PROPERTIES = int(vk.StructureType.MEMORY_FD_PROPERTIES_KHR)
_HOST_PROPERTIES = int(vk.StructureType.MEMORY_HOST_POINTER_PROPERTIES_EXT)


class Imports:
    """The imports of one VkDevice. Everything is checked before a driver gets it."""

    def __init__(self, device: LogicalDevice, memories: Memories, fds: FdCheck) -> None:
        self._device = device
        self._memories = memories
        self.fds = fds
        self._sizes = SizeCheck(memories)

    # Imports.

    def examine_fd(self, fd: int, handle_type: MemoryHandleType, *, trusted: bool = False) -> ExaminedFd:
        """See `Backend`, and `fd_check`."""
        return self.fds.examine(fd, to_driver(handle_type), trusted=trusted)

    def import_fd(self, request: ImportRequest[ExaminedFd]) -> VulkanAllocation:
        self._device.check_open()
        self.fds.check(request)
        return self._memories.import_fd(request)

    def import_payload(self, request: ImportRequest[PayloadFd]) -> VulkanAllocation:
        """See `Backend`. The driver takes a copy of the fd; the payload's own stays with the allocation.

        A host payload is imported as host memory, of a type that takes it, whatever `request.memory_type` is.
        """
        self._device.check_open()
        if isinstance(request.source, Win32Payload):
            return self._memories.import_handle(request, request.source)
        if request.capacity:
            return self._import_host_payload(request)
        # The object manager examined it, but a process that may write to the payload may have changed the file since.
        examined = self.fds.examine(request.source.fd, OPAQUE_FD, trusted=True)
        of_fd = request.of(examined)
        self.fds.check(of_fd)
        return self._memories.import_fd(of_fd, request.source)

    def _import_host_payload(self, request: ImportRequest[PayloadFd]) -> VulkanAllocation:
        payload, size = request.source, request.size
        if size > request.capacity:
            raise self._refusal(f"{size} bytes are to be imported, and the payload's file has {request.capacity}")
        if not payload.writable:
            raise UnsupportedError(
                f"{self._device.name} imports host memory for reading and writing alone, and this payload is read-only "
                "here; open it on the host device, or ask its owner for write access",
                requires_one_of=["the right to write", "the host device"],
            )
        mapping = host.map_file(payload.fd, size)
        bits = self.host_pointer_memory_type_bits(HOST_ALLOCATION, mapping.address)
        if not bits:
            raise self._refusal("no memory type takes the host's pages")
        allocation = self.import_host_pointer(mapping.address, size, (bits & -bits).bit_length() - 1)
        allocation.mapped_at(mapping, payload)
        return allocation

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> VulkanAllocation:
        """See `Backend`. The host's pages become the device's, where they are."""
        self._device.check_open()
        alignment = self._device.physical.min_imported_host_pointer_alignment
        if address % alignment or size % alignment or not host.range_is_mapped(address, size):
            raise self._refusal(
                f"{size} bytes at {address:#x} cannot be imported: address and size must be multiples of {alignment}, "
                "and all of it mapped here for reading and writing, no part of it behind the end of a file"
            )
        return self._memories.import_host_pointer(address, size, memory_type_index)

    # What can be imported.

    def fd_memory_type_bits(self, handle_type: MemoryHandleType, fd: int) -> int:
        """See `Backend`. For dma-buf, where the device has it."""
        device = self._device
        if handle_type != DMA_BUF or "VK_EXT_external_memory_dma_buf" not in device.physical.extensions:
            raise device.unsupported_type(handle_type)
        answer = ffi.new("VkMemoryFdPropertiesKHR *", (_FD_PROPERTIES,))
        result = device.commands.vkGetMemoryFdPropertiesKHR(device.handle, handle_type, fd, answer)
        device.check(result, "vkGetMemoryFdPropertiesKHR")
        return int(answer.memoryTypeBits)

    def host_pointer_memory_type_bits(self, handle_type: MemoryHandleType, address: int) -> int:
        device = self._device
        if handle_type != HOST_ALLOCATION or "VK_EXT_external_memory_host" not in device.physical.extensions:
            raise device.unsupported_type(handle_type)
        answer = ffi.new("VkMemoryHostPointerPropertiesEXT *", (_HOST_PROPERTIES,))
        pointer = ffi.cast("void *", address)
        result = device.commands.vkGetMemoryHostPointerPropertiesEXT(device.handle, handle_type, pointer, answer)
        device.check(result, "vkGetMemoryHostPointerPropertiesEXT", f"{address:#x}")
        return int(answer.memoryTypeBits)

    def missing_for(self, handle_type: MemoryHandleType) -> str:
        needed = extension_of(handle_type)
        return "" if needed in self._device.enabled else needed

    # Memory of other bindings.

    def adopt_memory(
        self,
        raw: int,
        size: int,
        memory_type_index: int,
        handle_types: MemoryHandleType,
        dedicated: NativeResource | None,
        *,
        imported: MemoryHandleType = NO_TYPES,
    ) -> VulkanAllocation:
        self._device.check_open()
        types = to_driver(handle_types)
        adopted = VulkanAllocation(
            self._memories,
            raw,
            size,
            memory_type_index,
            union(types, to_driver(imported)),
            dedicated,
            stated_identity=self._memories.next_identity(types),
            owner="held",
            exporting=bool(types),
        )
        try:
            self._check_adopted(adopted)
            self._sizes.check(adopted)
        except BaseException:
            adopted.close()
            raise
        return adopted

    def _check_adopted(self, adopted: VulkanAllocation) -> None:
        """Compare adopted memory with what it exports: its fd is imported as it is stated to be, on another device.

        Memory that is not exported by fd cannot be compared. Errors: as `FdCheck.prove`, `Memories.get_fd`.
        """
        handle_type = lowest(common(adopted.handle_types, FD_TYPES))
        fd = adopted.fd if adopted.exporting and handle_type else None
        if fd is None:
            return
        examined = self.fds.examine(fd, handle_type, trusted=True)
        if examined.problem:
            raise self.fds.refusal(examined.problem)
        request = ImportRequest(examined, adopted.size, adopted.memory_type_index, adopted.dedicated)
        self.fds.check_content(request)
        self.fds.prove(request)

    def _refusal(self, problem: str) -> DriverError:
        return DriverError(
            f"vkAllocateMemory: {problem}",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self._device.name],
        )
