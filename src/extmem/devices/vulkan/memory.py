"""VkDeviceMemory: `Memories` allocates, imports and exports it; `VulkanAllocation` is one with what belongs to it.

How this works. Nothing is checked here before a driver gets it: `imports` does that for imports. On Windows the
subclass `win32.Win32Memories` shares memory by the driver's own handles; elsewhere the driver's fds are shared, and
Win32 handle types are the object manager's.
"""

from __future__ import annotations

import itertools
import os
import secrets
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from extmem import vk
from extmem.devices import descriptor_shortage
from extmem.devices.fd_copies import copy_to_read, is_same_file
from extmem.devices.vulkan.handle_types import to_driver
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.results import fail
from extmem.errors import HandleStateError, UnsupportedError
from extmem.owning import OwnedFd, Owner
from extmem.vk.abi import ffi
from extmem.vk.handle_types import (
    FD_TYPES,
    HOST_ALLOCATION,
    NO_TYPES,
    OPAQUE_FD,
    OPAQUE_WIN32_KMT,
    OPAQUE_WIN32_TYPES,
    MemoryHandleType,
    common,
    lowest,
    union,
)
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Mapping
    from extmem.devices.host.system import FileMapping
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import ExaminedFd, ImportRequest
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.owning import Making
    from extmem.sharing.payload import PayloadFd, Win32Payload
    from extmem.sharing.terms import ShareTerms

__all__ = ["Memories", "QueueOwner", "VulkanAllocation", "native_allocation"]

_SHARED = union(FD_TYPES, OPAQUE_WIN32_TYPES)
_WHOLE_SIZE = int(vk.WHOLE_SIZE)
_NO_MEMORY = int(vk.Result.ERROR_UNKNOWN)
_S = vk.StructureType
_ALLOCATE, _DEDICATED = int(_S.MEMORY_ALLOCATE_INFO), int(_S.MEMORY_DEDICATED_ALLOCATE_INFO)
_EXPORT, _GET_FD = int(_S.EXPORT_MEMORY_ALLOCATE_INFO), int(_S.MEMORY_GET_FD_INFO_KHR)
_IMPORT_FD, _IMPORT_HOST = int(_S.IMPORT_MEMORY_FD_INFO_KHR), int(_S.IMPORT_MEMORY_HOST_POINTER_INFO_EXT)

QueueOwner = Literal["here", "external", "held"]


class Memories:
    """vkAllocateMemory and vkGetMemoryFdKHR of one VkDevice."""

    def __init__(self, device: LogicalDevice) -> None:
        self.device = device
        # The range of no other device begins near this one, also in other processes.
        self._identities = itertools.count(secrets.randbits(62) + 1)

    def next_identity(self, types: int) -> int:
        """The `stated_identity` of new memory; 0 for memory that is not shared."""
        return next(self._identities) if types else 0

    def make(
        self, chain: Any, size: int, memory_type: int, dedicated: NativeResource | None, consumes: OwnedFd | None = None
    ) -> tuple[VkObject, Making]:
        """vkAllocateMemory. Return what owns the VkDeviceMemory, and the call with its VkResult.

        chain: pNext, in C memory. consumes: an fd in it, which the driver owns from a success on. Some drivers call an
        allocation of nothing a success: then the object has no handle.
        """
        device, made = self.device, ffi.new("uint64_t *")
        if dedicated is not None:
            image, buffer = (dedicated.raw, 0) if dedicated.kind == "image" else (0, dedicated.raw)
            before = chain  # in C memory that this name keeps
            chain = ffi.new("VkMemoryDedicatedAllocateInfo *", (_DEDICATED, before, image, buffer))
        info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, chain, size, memory_type))
        memory, commands = VkObject(device.owner), device.commands
        arguments = (device.handle, info, ffi.NULL, made)
        return memory, memory.make(commands.vkAllocateMemory, arguments, made, commands.vkFreeMemory, consumes)

    def make_or_fail(
        self, chain: Any, size: int, memory_type: int, dedicated: NativeResource | None, what: str
    ) -> VkObject:
        """Return the memory of `make`, or raise its error. what: a word for the error."""
        memory, making = self.make(chain, size, memory_type, dedicated)
        if not memory.raw:
            tried = f"{what} {size} bytes of memory type {memory_type}"
            if not making.result:
                tried += ": there is no memory"
            fail(making.result or _NO_MEMORY, "vkAllocateMemory", self.device.name, tried)
        return memory

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: MemoryHandleType = NO_TYPES,
        dedicated: NativeResource | None = None,
        terms: ShareTerms | None = None,
    ) -> VulkanAllocation:
        """See `Backend`. The descriptor stays with the object manager: a driver's memory has no room for it.

        So do the terms on Linux; on Windows the driver names its memory.
        """
        self.device.check_open()
        types = to_driver(handle_types)
        export = ffi.new("VkExportMemoryAllocateInfo *", (_EXPORT, ffi.NULL, types)) if types else ffi.NULL
        memory = self.make_or_fail(export, size, memory_type_index, dedicated, "allocating")
        identity = self.next_identity(types)
        return VulkanAllocation(self, memory, size, memory_type_index, types, dedicated, stated_identity=identity)

    # Import.

    def import_fd(self, request: ImportRequest[ExaminedFd], payload: PayloadFd | None = None) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryFdInfoKHR. The fd is borrowed, and nothing is checked first.

        The driver gets a copy. It owns that on success; some drivers close it when they fail, too.
        payload: what the allocation owns on success.
        """
        examined, size, memory_type = request.source, request.size, request.memory_type
        copy = copy_to_read(examined.fd)
        link = ffi.new("VkImportMemoryFdInfoKHR *", (_IMPORT_FD, ffi.NULL, examined.handle_type, copy.fd))
        memory, making = self.make(link, size, memory_type, request.dedicated, consumes=copy)
        if not memory.raw:
            self._import_failed(making, copy, request)
        return VulkanAllocation(
            self,
            memory,
            size,
            memory_type,
            examined.handle_type,
            request.dedicated,
            payload,
            stated_identity=request.identity,
            owner="external",
            exporting=False,
        )

    def _import_failed(self, making: Making, copy: OwnedFd, request: ImportRequest[ExaminedFd]) -> NoReturn:
        result = making.result
        if is_same_file(copy.fd, request.source.fd):
            making.give_back_consumed()
            copy.settle()
        what = f"importing {request.size} bytes of memory type {request.memory_type}"
        fail(result or _NO_MEMORY, "vkAllocateMemory", self.device.name, what)

    def import_host_pointer(self, address: int, size: int, memory_type: int) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryHostPointerInfoEXT. Nothing is checked first."""
        pointer = ffi.cast("void *", address)
        link = ffi.new("VkImportMemoryHostPointerInfoEXT *", (_IMPORT_HOST, ffi.NULL, HOST_ALLOCATION, pointer))
        memory = self.make_or_fail(link, size, memory_type, None, "importing the host's")
        allocation = VulkanAllocation(self, memory, size, memory_type, HOST_ALLOCATION, owner="external")
        allocation.address = address
        return allocation

    def import_handle(self, request: ImportRequest[PayloadFd], payload: Win32Payload) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryWin32HandleInfoKHR; on Windows alone."""
        raise self.device.unsupported_type(payload.handle_type)

    # Export.

    def export_fd(
        self, allocation: Allocation, *, read_only: bool = False, handle_type: MemoryHandleType = OPAQUE_FD
    ) -> OwnedFd:
        """See `Backend`. A driver's fd can always be written through: `read_only` changes nothing here."""
        return self.get_fd(native_allocation(allocation).live, handle_type)

    def get_fd(self, raw: int, handle_type: MemoryHandleType) -> OwnedFd:
        """vkGetMemoryFdKHR. Close-on-exec, which the specification leaves to the driver."""
        device, made = self.device, ffi.new("int *", -1)
        info = ffi.new("VkMemoryGetFdInfoKHR *", (_GET_FD, ffi.NULL, raw, handle_type))
        owned, result = OwnedFd.from_output(device.commands.vkGetMemoryFdKHR, (device.handle, info, made), made)
        device.check(result, "vkGetMemoryFdKHR")
        if owned.fd < 0:  # some drivers call that a success
            if descriptor_shortage.of_descriptors():
                fail(int(vk.Result.ERROR_TOO_MANY_OBJECTS), "vkGetMemoryFdKHR", device.name)
            raise UnsupportedError(
                f"{device.name} gave no fd: this memory was not allocated for export as {types_text(handle_type)}",
                requires_one_of=[f"VkExportMemoryAllocateInfo::handleTypes with {types_text(handle_type)}"],
            )
        os.set_inheritable(owned.fd, False)
        return owned.above_standard_streams()

    def get_handle(self, raw: int, handle_type: MemoryHandleType) -> OwnedFd:
        """vkGetMemoryFdKHR; on Windows vkGetMemoryWin32HandleKHR, of one of its NT types. Owned by the caller."""
        return self.get_fd(raw, handle_type)

    def get_number(self, raw: int) -> int:
        """vkGetMemoryWin32HandleKHR of a KMT number, which owns nothing; on Windows alone."""
        raise self.device.unsupported_type(OPAQUE_WIN32_KMT)

    # Handles of other programs.

    @property
    def imports_handles(self) -> bool:
        return False

    def handle_memory_type_bits(self, handle_type: MemoryHandleType, handle: int) -> int:
        """See `Backend`. UnsupportedError except on Windows, and for opaque types, which are never queried."""
        raise self.device.unsupported_type(handle_type)


class VulkanAllocation:
    """A VkDeviceMemory. Ownership: freed by `close`, with the buffer that bytes are moved through and the fd, if any.

    Imported host memory (`mapped_at`) is mapped already, where its owner has it; so it is never mapped by the device.
    """

    __slots__ = (
        "_at",
        "_exported",
        "_keep",
        "_mapped",
        "_memory",
        "_number",
        "dedicated",
        "exporting",
        "handle_types",
        "memories",
        "memory_type_index",
        "owner",
        "payload",
        "raw",
        "size",
        "stated_identity",
        "transfer",
    )

    identity: tuple[int, int] | None = None
    """None: the kernel does not identify a driver's payloads."""

    def __init__(
        self,
        memories: Memories,
        memory: VkObject | int,
        size: int,
        memory_type_index: int,
        handle_types: MemoryHandleType,
        dedicated: NativeResource | None = None,
        payload: PayloadFd | None = None,
        *,
        stated_identity: int = 0,
        owner: QueueOwner = "here",
        exporting: bool = True,
    ) -> None:
        """memory: what owns the VkDeviceMemory; or one that another binding allocated, and frees."""
        self.memories = memories
        """The device's memories, of which this is one."""
        self._memory = memory if isinstance(memory, VkObject) else None
        self.raw = memory.raw if isinstance(memory, VkObject) else memory
        """VkDeviceMemory; 0 once freed."""
        self.size = size
        self.memory_type_index = memory_type_index
        self.handle_types = handle_types
        """External types as the driver gets them."""
        self.dedicated = dedicated
        self.payload = payload
        """The object manager's payload that it was imported from, if any; closed with it."""
        self.stated_identity = stated_identity
        self.owner: QueueOwner = owner
        """The queue family owner of the payload: "here" is this device, since it was allocated; "external" is the next
        user (VK_QUEUE_FAMILY_EXTERNAL); "held" is this device by barriers of the program, until they release it."""
        self.transfer: NativeResource | None = None
        """A buffer over all of it, created at the first transfer."""
        self.exporting = exporting
        """Whether the driver exports handles of it: false for memory that was imported and is not exported again."""
        self._keep: tuple[FileMapping, PayloadFd] | None = None
        """The owners of the bytes of imported host memory."""
        self._exported: OwnedFd | None = None
        """The descriptor or NT handle that the driver exported, and `fd` returns; None before."""
        self._number = 0
        """A KMT number in place of those."""
        self._at = ffi.new("uintptr_t *")
        """The address of its mapping, until vkFreeMemory; 0 before. vkMapMemory writes it, perhaps more than once."""
        self._mapped = False
        """Whether `_at` is final: other threads only read it then."""

    @property
    def writable(self) -> bool:
        """Whether the payload was opened with the right to write."""
        return self.payload is None or self.payload.writable

    @property
    def live(self) -> int:
        """VkDeviceMemory. HandleStateError once freed."""
        if not self.raw:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        return self.raw

    @property
    def is_foreign(self) -> bool:
        """Whether another binding allocated it, and frees it."""
        return self._memory is None

    @property
    def keeper(self) -> Owner:
        """What commands that use the memory hold until they are done. For another binding's memory it keeps nothing."""
        return self._memory if self._memory is not None else _FOREIGN

    @property
    def fd(self) -> int | None:
        """The payload's fd, borrowed: the imported one, or one that the driver exports at the first use.

        On Windows its NT handle, or KMT number. A driver exports one handle of each memory: it may not be asked twice
        (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663).
        """
        raw = self.live
        if self.payload is not None and not self.exporting:
            return self.payload.fd
        shared_as = lowest(common(self.handle_types, _SHARED))
        if not shared_as:
            return None
        memories = self.memories
        with memories.device.making:
            if shared_as == OPAQUE_WIN32_KMT:
                self._number = self._number or memories.get_number(raw)
                return self._number
            if self._exported is None:
                self._exported = memories.get_handle(raw, shared_as)
            return self._exported.fd

    @property
    def closed(self) -> bool:
        return not self.raw

    def mapped_at(self, mapping: FileMapping, payload: PayloadFd) -> None:
        """Record that it is a host payload's memory, which `mapping` has mapped. Both are released with it."""
        self._keep = (mapping, payload)
        if self._memory is not None:
            self._memory.owe(((id, mapping),))  # it ends after the VkDeviceMemory, also if both are lost
        self.address = mapping.address

    # An allocation is its own mapping.

    @property
    def address(self) -> int:
        """The address of its mapping; 0 before. Set for host memory, which its owner has mapped."""
        return int(self._at[0])

    @address.setter
    def address(self, value: int) -> None:
        self._at[0] = value
        self._mapped = True

    @property
    def mapped(self) -> bool:
        """Whether vkMapMemory was called, or it is host memory."""
        return self._mapped

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`. An allocation is its own mapping."""
        if self._mapped:
            self.live  # noqa: B018  (raises once freed)
            return self
        device = self.memories.device
        if not device.host_visible[self.memory_type_index]:
            raise UnsupportedError(
                f"memory type {self.memory_type_index} of {device.name} cannot be seen by the host; use "
                "memory.read() and memory.write(), or allocate with a HOST_VISIBLE memory_type",
                requires_one_of=["a HOST_VISIBLE memory type", "DeviceMemory.read and write"],
            )
        with device.making:
            if not self._at[0]:
                at = ffi.cast("void **", self._at)
                result = device.commands.vkMapMemory(device.handle, self.live, 0, _WHOLE_SIZE, 0, at)
                if result:
                    self._at[0] = 0
                    fail(result, "vkMapMemory", device.name, f"{self.size} bytes")
            self._mapped = True
        return self

    def close(self) -> None:
        """vkFreeMemory, which unmaps. Safe to call twice, and again after an exception."""
        self.raw = 0
        if self.transfer is not None:
            self.transfer.destroy()
        if self._memory is not None:
            self._memory.end()
        if self._exported is not None:
            self._exported.settle()
        if self.payload is not None:
            self.payload.close()
        if self._keep is not None:
            self._keep[1].close()
            self._keep = None


_FOREIGN = Owner()
"""The owner of a VkDeviceMemory that another binding frees: it releases nothing."""


def native_allocation(allocation: Allocation) -> VulkanAllocation:
    """The allocation as a Vulkan device's. Errors: TypeError for another device's."""
    if not isinstance(allocation, VulkanAllocation):
        raise TypeError(f"{allocation!r} is not an allocation of a Vulkan device")
    return allocation
