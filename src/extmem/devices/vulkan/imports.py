"""Imports of a VkDevice: fds of strangers, payloads of the object manager, host memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from extmem import vk
from extmem.devices import host
from extmem.devices.fd_copies import copy_to_read
from extmem.devices.vulkan.call_structs import FdImport, Spares
from extmem.devices.vulkan.fd_check import Prover
from extmem.devices.vulkan.memory import VulkanAllocation
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.results import fail
from extmem.errors import DriverError, UnsupportedError
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
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
_IMPORT_HOST = int(_S.IMPORT_MEMORY_HOST_POINTER_INFO_EXT)


class Imports:
    """vkAllocateMemory with a source."""

    def __init__(self, backend: VulkanBackend) -> None:
        self.backend = backend
        self.prover = Prover(backend)
        self._calls = Spares(FdImport)

    def examine(
        self, fd: int, size: int, memory_type_index: int, handle_type: int, dedicated: NativeResource | None
    ) -> None:
        """Both gates of `proving`, for a stranger's fd. Errors: DriverError."""
        found = self.prover.inspect(fd, handle_type)
        if not found.valid:
            raise self._refusal(found.problem)
        self.prover.prove(fd, size, memory_type_index, handle_type, dedicated)

    def measure(self, adopted: VulkanAllocation) -> None:
        """Compare adopted memory with what it exports: its fd is imported as it is stated to be, elsewhere.

        Of what is not exported by fd nothing can be asked. Errors: as `Prover.prove`, `VulkanBackend.get_fd`.
        """
        types = adopted.handle_types & _FDS if adopted.exporting else 0
        fd = adopted.fd if types else None
        if fd is not None:
            self.prover.prove(fd, adopted.size, adopted.memory_type_index, types & -types, adopted.dedicated)

    def from_payload(
        self,
        payload: PayloadFd,
        size: int,
        memory_type_index: int,
        capacity: int,
        *,
        identity: int = 0,
        dedicated: NativeResource | None = None,
    ) -> VulkanAllocation:
        """See `Backend`. The driver takes a copy of the fd; the payload's own stays with the allocation.

        A host payload (`capacity`) comes in as host memory: of a type that takes it, whatever `memory_type_index` says.
        """
        if capacity:
            return self._from_host_payload(payload, size, capacity)
        # Also where the object manager gave it: whoever may write to the payload can have changed the file since.
        self.prover.recognise(payload.fd, size, _FD, memory_type_index)
        return self.unexamined(payload.fd, size, memory_type_index, _FD, dedicated, payload, identity)

    def _from_host_payload(self, payload: PayloadFd, size: int, capacity: int) -> VulkanAllocation:
        if size > capacity:
            raise self._refusal(f"{size} bytes are to be imported, and the payload's file has {capacity}")
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
        made = self.from_host_pointer(mapping.address, size, (bits & -bits).bit_length() - 1)
        made.mapped_at(mapping, payload)
        return made

    def unexamined(
        self,
        fd: int,
        size: int,
        memory_type_index: int,
        handle_type: int,
        dedicated: NativeResource | None,
        payload: PayloadFd | None = None,
        identity: int = 0,
    ) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryFdInfoKHR. The fd is borrowed. Looks at nothing first.

        The driver gets a copy. It owns that on success; some close it when they fail, too.
        """
        copy = copy_to_read(fd)
        backend, call = self.backend, self._calls.pop("set", None) or self._calls.make()
        call.source.fd, call.source.handleType, call.made[0] = copy.fd, handle_type, 0
        info = call.info
        info.allocationSize, info.memoryTypeIndex = size, memory_type_index
        keep = backend.dedicate(info, dedicated) if dedicated is not None else None
        memory = VkObject(backend.owner)
        making = memory.make(
            backend.commands.vkAllocateMemory,
            (backend.handle, info, ffi.NULL, call.made),
            call.made,
            backend.commands.vkFreeMemory,
            consumes=copy,
        )
        if not memory.raw:
            self.failed(making, copy, fd, size, memory_type_index)
        if keep is None:  # else the chain has a link that ends with this call
            self._calls["set"] = call
        return VulkanAllocation(
            backend,
            memory,
            size,
            memory_type_index,
            handle_type,
            dedicated,
            payload,
            stated_identity=identity,
            owner="external",
            exporting=False,
        )

    def failed(self, making: Making, copy: OwnedFd, fd: int, size: int, memory_type_index: int) -> NoReturn:
        """An import of a copy of `fd` failed, or gave nothing, which some drivers call a success."""
        result = making.result
        if _is_open_as(copy.fd, fd):
            making.give_back_consumed()
            copy.settle()
        what = f"importing {size} bytes of memory type {memory_type_index}"
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


def _is_open_as(copy: int, fd: int) -> bool:
    """Whether a copy of `fd` that a failed import was given is still that: some drivers close it when they fail."""
    try:
        return os.path.sameopenfile(copy, fd)
    except OSError:
        return False
