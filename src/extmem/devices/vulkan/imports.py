"""Imports of a VkDevice: examined fds, payloads of the object manager, and host memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from extmem import vk
from extmem.devices import host
from extmem.devices.fd_copies import copy_to_read
from extmem.devices.types import ImportRequest
from extmem.devices.vulkan.fd_check import FdCheck
from extmem.devices.vulkan.memory import VulkanAllocation
from extmem.devices.vulkan.results import fail
from extmem.errors import DriverError, UnsupportedError
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.types import ExaminedFd
    from extmem.devices.vulkan.backend import VulkanBackend
    from extmem.owning import Making, OwnedFd
    from extmem.sharing.payload import PayloadFd

__all__ = ["Imports"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FD = int(HandleType.OPAQUE_FD)
_FDS = int(HandleType.OPAQUE_FD | HandleType.DMA_BUF)
_HOST_POINTER = int(HandleType.HOST_ALLOCATION)
_S = vk.StructureType
_ALLOCATE = int(_S.MEMORY_ALLOCATE_INFO)
_IMPORT_FD = int(_S.IMPORT_MEMORY_FD_INFO_KHR)
_IMPORT_HOST = int(_S.IMPORT_MEMORY_HOST_POINTER_INFO_EXT)


class Imports:
    """vkAllocateMemory with a source."""

    def __init__(self, backend: VulkanBackend) -> None:
        self.backend = backend
        self.fds = FdCheck(backend)

    def check_adopted(self, adopted: VulkanAllocation) -> None:
        """Compare adopted memory with what it exports: its fd is imported as it is stated to be, on another device.

        Memory that is not exported by fd cannot be compared. Errors: as `FdCheck.prove`, `VulkanBackend.get_fd`.
        """
        types = adopted.handle_types & _FDS if adopted.exporting else 0
        fd = adopted.fd if types else None
        if fd is None:
            return
        examined = self.fds.examine(fd, types & -types, trusted=True)
        if examined.problem:
            raise self.fds.refusal(examined.problem)
        request = ImportRequest(examined, adopted.size, adopted.memory_type_index, adopted.dedicated)
        self.fds.check_content(request)
        self.fds.prove(request)

    def import_fd(self, request: ImportRequest[ExaminedFd]) -> VulkanAllocation:
        """See `Backend`."""
        self.backend.alive()
        self.fds.check(request)
        return self.import_unchecked(request)

    def import_payload(self, request: ImportRequest[PayloadFd]) -> VulkanAllocation:
        """See `Backend`. The driver takes a copy of the fd; the payload's own stays with the allocation.

        A host payload is imported as host memory, of a type that takes it, whatever `request.memory_type` is.
        """
        self.backend.alive()
        if request.capacity:
            return self._import_host_payload(request)
        # The object manager examined it, but a process that may write to the payload may have changed the file since.
        examined = self.fds.examine(request.source.fd, _FD, trusted=True)
        of_fd = request._replace(source=examined)
        self.fds.check(of_fd)
        return self.import_unchecked(of_fd, request.source)

    def _import_host_payload(self, request: ImportRequest[PayloadFd]) -> VulkanAllocation:
        payload, size = request.source, request.size
        if size > request.capacity:
            raise self._refusal(f"{size} bytes are to be imported, and the payload's file has {request.capacity}")
        if not payload.writable:
            raise UnsupportedError(
                f"{self.backend.name} imports host memory for reading and writing alone, and this payload is read-only "
                "here; open it on the host device, or ask its owner for write access",
                requires_one_of=["the right to write", "the host device"],
            )
        mapping = host.map_file(payload.fd, size)
        bits = self.host_pointer_memory_type_bits(_HOST_POINTER, mapping.address)
        if not bits:
            raise self._refusal("no memory type takes the host's pages")
        allocation = self.from_host_pointer(mapping.address, size, (bits & -bits).bit_length() - 1)
        allocation.mapped_at(mapping, payload)
        return allocation

    def import_unchecked(
        self, request: ImportRequest[ExaminedFd], payload: PayloadFd | None = None
    ) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryFdInfoKHR. The fd is borrowed, and nothing is checked first.

        The driver gets a copy. It owns that on success; some drivers close it when they fail, too.
        """
        backend, examined = self.backend, request.source
        size, memory_type, dedicated = request.size, request.memory_type, request.dedicated
        copy = copy_to_read(examined.fd)
        link = ffi.new("VkImportMemoryFdInfoKHR *", (_IMPORT_FD, ffi.NULL, examined.handle_type, copy.fd))
        info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, link, size, memory_type))
        keep = backend.dedicate(info, dedicated)
        memory, making = backend.make_memory(info, consumes=copy)
        if not memory.raw:
            self._failed(making, copy, request)
        del keep
        return VulkanAllocation(
            backend,
            memory,
            size,
            memory_type,
            examined.handle_type,
            dedicated,
            payload,
            stated_identity=request.identity,
            owner="external",
            exporting=False,
        )

    def _failed(self, making: Making, copy: OwnedFd, request: ImportRequest[ExaminedFd]) -> NoReturn:
        """An import of a copy of the fd failed, or returned no memory, which some drivers call a success."""
        result = making.result
        if _is_same_file(copy.fd, request.source.fd):
            making.give_back_consumed()
            copy.settle()
        what = f"importing {request.size} bytes of memory type {request.memory_type}"
        fail(result or int(vk.Result.ERROR_UNKNOWN), "vkAllocateMemory", self.backend.name, what)

    def from_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> VulkanAllocation:
        """See `Backend`. The host's pages become the device's, where they are."""
        alignment = self.backend.min_imported_host_pointer_alignment
        if address % alignment or size % alignment or not host.range_is_mapped(address, size):
            raise self._refusal(
                f"{size} bytes at {address:#x} cannot be imported: address and size must be multiples of {alignment}, "
                "and all of it mapped here for reading and writing, no part of it behind the end of a file"
            )
        source = ffi.new(
            "VkImportMemoryHostPointerInfoEXT *",
            (_IMPORT_HOST, ffi.NULL, _HOST_POINTER, ffi.cast("void *", address)),
        )
        info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, source, size, memory_type_index))
        memory = self.backend.allocate_raw(info, size, memory_type_index, "importing the host's")
        made = VulkanAllocation(self.backend, memory, size, memory_type_index, _HOST_POINTER, owner="external")
        made.address = address
        return made

    def fd_memory_type_bits(self, handle_type: int, fd: int) -> int:
        """See `Backend`. For dma-buf, where the device has it."""
        if (
            handle_type != HandleType.DMA_BUF
            or "VK_EXT_external_memory_dma_buf" not in self.backend.physical.extensions
        ):
            raise self.backend.unsupported_type(handle_type)
        answer = ffi.new("VkMemoryFdPropertiesKHR *")
        answer.sType = int(_S.MEMORY_FD_PROPERTIES_KHR)
        self.backend.check(
            self.backend.commands.vkGetMemoryFdPropertiesKHR(self.backend.handle, handle_type, fd, answer),
            "vkGetMemoryFdPropertiesKHR",
        )
        return int(answer.memoryTypeBits)

    def host_pointer_memory_type_bits(self, handle_type: int, address: int) -> int:
        """See `Backend`."""
        if handle_type != _HOST_POINTER or "VK_EXT_external_memory_host" not in self.backend.physical.extensions:
            raise self.backend.unsupported_type(handle_type)
        answer = ffi.new("VkMemoryHostPointerPropertiesEXT *")
        answer.sType = int(_S.MEMORY_HOST_POINTER_PROPERTIES_EXT)
        result = self.backend.commands.vkGetMemoryHostPointerPropertiesEXT(
            self.backend.handle, handle_type, ffi.cast("void *", address), answer
        )
        self.backend.check(result, "vkGetMemoryHostPointerPropertiesEXT", f"{address:#x}")
        return int(answer.memoryTypeBits)

    def _refusal(self, problem: str) -> DriverError:
        return DriverError(
            f"vkAllocateMemory: {problem}",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self.backend.name],
        )


def _is_same_file(copy: int, fd: int) -> bool:
    """Whether a copy of `fd` that a failed import got is still open: some drivers close it when they fail."""
    try:
        return os.path.sameopenfile(copy, fd)
    except OSError:
        return False
