"""VK_KHR_external_memory_win32: memory that a driver of Windows exports, names and imports itself.

How this works. Name, rights and security are passed to the driver with vkAllocateMemory, as in the specification; the
security descriptor and the strings are valid until that call returns. They are checked first: a taken name, a closed
handle, or a handle of another type never reaches the driver, whose answer would be arbitrary (such as
VK_ERROR_OUT_OF_HOST_MEMORY). If the driver refuses an import in spite of that, the error contains what the kernel
reports of the handle. It is checked again then: it may have been closed, or the name taken, in between.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are the handles of Windows's drivers; extmem.devices.vulkan picks them there")

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.vulkan.capabilities import WIN32_EXTENSION
from extmem.devices.vulkan.memory import Memories, VulkanAllocation
from extmem.devices.vulkan.results import fail
from extmem.errors import DriverError, UnsupportedError
from extmem.handles import Access
from extmem.handles._win32 import calls
from extmem.handles._win32.calls import StatusError
from extmem.manager.windows import driver_memory, status_errors
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import FLAG_INHERIT, MEMORY, Status, error_for
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.vk.abi import ffi, to_c
from extmem.vk.handle_types import NO_TYPES, OPAQUE_WIN32, OPAQUE_WIN32_KMT, OPAQUE_WIN32_TYPES, MemoryHandleType
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import ImportRequest
    from extmem.sharing.payload import PayloadFd, Win32Payload
    from extmem.sharing.terms import ShareTerms
    from extmem.vk.abi import CStruct

__all__ = ["Win32Memories"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_LOW = 0xFFFF_FFFF
_OF_DEAD_NUMBERS = (vk.Result.ERROR_OUT_OF_HOST_MEMORY, vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)
"""Results of drivers for a KMT number that leads nowhere."""


class Win32Memories(Memories):
    """vkAllocateMemory and vkGetMemoryWin32HandleKHR of one VkDevice."""

    # Export.

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
        """See `Backend`. Memory that is exported gets the name, rights and security of `terms`.

        terms: None for memory of the high-level API that is not shared yet; its handles lead to its description.
        Errors: NameTakenError, ObjectTypeError, NameInvalidError, SecurityDescriptorError before the driver is asked;
        DriverError, OutOfMemoryError.
        """
        if not handle_types:
            return super().allocate(size, memory_type_index, descriptor, dedicated=dedicated)
        self.device.check_open()
        name = terms.name if terms is not None and handle_types & OPAQUE_WIN32 else None
        for is_last in (False, False, True):
            with self._exporting(handle_types, terms) as export:
                try:
                    memory = self.make_or_fail(export.cdata, size, memory_type_index, dedicated, "allocating")
                    break
                except DriverError:
                    if name is None:
                        raise
                    # Another program may have taken the name since it was checked, and given it up again: drivers
                    # answer that with lack of memory.
                    driver_memory.refuse_taken(name)
                    if is_last:
                        raise
        return VulkanAllocation(self, memory, size, memory_type_index, handle_types, dedicated)

    @contextlib.contextmanager
    def _exporting(self, types: MemoryHandleType, terms: ShareTerms | None) -> Iterator[CStruct]:
        """The export structs in C memory, for one call."""
        with contextlib.ExitStack() as stack:
            stated = None
            if types & OPAQUE_WIN32:
                if terms is None or (terms.described and terms.name is None):
                    name: str | None = driver_memory.hidden_name()
                else:
                    name = terms.name
                    if name is not None:
                        driver_memory.refuse_taken(name)
                if terms is None:
                    stated = vk.ExportMemoryWin32HandleInfoKHR(None, int(Access.READ_WRITE), name)
                elif terms.stated or name is not None:
                    attributes = None
                    if terms.sddl is not None or terms.inherit:
                        address = stack.enter_context(security_descriptor(terms.sddl))
                        attributes = vk.SecurityAttributes(address or None, terms.inherit)
                    stated = vk.ExportMemoryWin32HandleInfoKHR(attributes, terms.access, name)
            yield to_c(vk.ExportMemoryAllocateInfo(HandleType(types), stated))

    def get_handle(self, raw: int, handle_type: MemoryHandleType) -> OwnedFd:
        """vkGetMemoryWin32HandleKHR of an NT type. It is not inheritable: programs get duplicates of it."""
        owned = OwnedDescriptor(self._handle(raw, handle_type))
        with contextlib.suppress(StatusError):  # a protected handle is left unchanged
            calls.set_flags(owned.fd, FLAG_INHERIT, 0)
        return owned

    def get_number(self, raw: int) -> int:
        """vkGetMemoryWin32HandleKHR of a KMT number, which owns nothing."""
        return self._handle(raw, OPAQUE_WIN32_KMT) & _LOW

    def _handle(self, raw: int, handle_type: MemoryHandleType) -> int:
        device = self.device
        info = to_c(vk.MemoryGetWin32HandleInfoKHR(raw, HandleType(handle_type)))
        made = ffi.new("HANDLE *")
        result = device.commands.vkGetMemoryWin32HandleKHR(device.handle, info.cdata, made)
        device.check(result, "vkGetMemoryWin32HandleKHR")
        value = int(ffi.cast("uintptr_t", made[0]))
        if not value:  # some drivers call that a success
            raise UnsupportedError(
                f"{device.name} gave no handle: this memory was not allocated for export as {types_text(handle_type)}",
                requires_one_of=[f"VkExportMemoryAllocateInfo::handleTypes with {types_text(handle_type)}"],
            )
        return value

    # Import.

    def import_handle(self, request: ImportRequest[PayloadFd], payload: Win32Payload) -> VulkanAllocation:
        """vkAllocateMemory with VkImportMemoryWin32HandleInfoKHR: by name if the program gave one, else by handle.

        payload: `request.source`, which the allocation owns on success; a KMT number is one of its handles. The object
        manager has opened what it leads to and holds that, so that a name stays where it is.
        Errors: DriverError with what the kernel reports of the handle; InvalidHandleError for a KMT number that leads
        nowhere; OutOfMemoryError; UnsupportedError.
        """
        handle_type = payload.handle_type
        if not self.imports_handles:
            raise self._lacking(handle_type)
        handle = None if payload.name is not None else payload.number or payload.fd
        with contextlib.ExitStack() as stack:
            link = to_c(vk.ImportMemoryWin32HandleInfoKHR(HandleType(handle_type), handle, payload.name))
            if request.export_types:
                exported = stack.enter_context(self._exporting(request.export_types, request.terms))
                link.cdata.pNext = exported.cdata
            memory, making = self.make(link.cdata, request.size, request.memory_type, request.dedicated)
        if not memory.raw:
            result = making.result or int(vk.Result.ERROR_UNKNOWN)
            self._refused(payload, result, request.size, request.memory_type)
        return VulkanAllocation(
            self,
            memory,
            request.size,
            request.memory_type,
            request.export_types or handle_type,
            request.dedicated,
            payload,
            owner="external",
            exporting=bool(request.export_types),
        )

    def _refused(self, payload: Win32Payload, result: int, size: int, memory_type_index: int) -> None:
        """Raise what the driver's refusal means, with what the kernel reports."""
        if payload.number and result in _OF_DEAD_NUMBERS:
            raise error_for(
                Status.INVALID_PARAMETER,
                f"The KMT number {payload.number:#x} leads to no memory that {self.device.name} can import "
                f"({vk.Result(result).name}): it is dead, or another GPU's, or the size or memory type differ from the "
                "exporter's. Pass the number of memory that is still allocated.",
            )
        what = f"importing {size} bytes of memory type {memory_type_index} from {self._seen(payload)}"
        hint = (
            "; the handle itself is in order, so it is the size, the memory type, the dedicated resource or the device "
            "that differ from the exporter's, or there is no memory"
        )
        fail(result, "vkAllocateMemory", self.device.name, what + ("" if payload.number else hint))

    def _seen(self, payload: Win32Payload) -> str:
        """Return the source in words. Errors: InvalidHandleError if the handle was closed meanwhile."""
        kind = types_text(payload.handle_type)
        if payload.number:
            return f"the {kind} number {payload.number:#x}, whose memory extmem cannot examine"
        try:
            objects, value = driver_memory.kernel(), payload.fd
            granted = objects.from_kernel(calls.basic(value).granted)
            path = calls.name_of(value)
            type_name = objects.kind_of(value)
        except StatusError as error:
            raise status_errors.of_handle(error, payload.fd) from None
        named = f", named {path}" if path else ""
        by = f"the name {payload.name!r}" if payload.name is not None else f"an {kind} handle"
        return f"{by}, an open {type_name} with {MEMORY.describe(granted)}{named}"

    # Handles of other programs.

    @property
    def imports_handles(self) -> bool:
        """See `ImportsHandles`."""
        return WIN32_EXTENSION in self.device.enabled

    def handle_memory_type_bits(self, handle_type: MemoryHandleType, handle: int) -> int:
        """See `Backend`. Never queried for an opaque type (VUID-…-handleType-00666). The handle stays the caller's.

        Errors: DriverError; UnsupportedError for a type that the device does not import.
        """
        device = self.device
        if handle_type & OPAQUE_WIN32_TYPES or not self.imports_handles:
            raise self._lacking(handle_type)
        answer = to_c(vk.MemoryWin32HandlePropertiesKHR())
        result = device.commands.vkGetMemoryWin32HandlePropertiesKHR(
            device.handle, handle_type, ffi.cast("HANDLE", handle), answer.cdata
        )
        device.check(result, "vkGetMemoryWin32HandlePropertiesKHR", f"handle {handle:#x}")
        known = (1 << len(device.memory_types)) - 1
        bits = int(answer.cdata.memoryTypeBits) & known
        if not bits:
            raise DriverError(
                f"vkGetMemoryWin32HandlePropertiesKHR: {device.name} names no memory type for handle {handle:#x} as "
                f"{types_text(handle_type)}; it is another device's, or of another kind",
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="vkGetMemoryWin32HandlePropertiesKHR",
                devices=[device.name],
            )
        return bits

    def _lacking(self, handle_type: MemoryHandleType) -> UnsupportedError:
        if not self.imports_handles:
            return UnsupportedError(
                f"{self.device.name} has no {WIN32_EXTENSION}, so it takes no {types_text(handle_type)}; share host "
                "memory instead (extmem.open_device(kind='host')), or take a driver that has it",
                requires_one_of=[WIN32_EXTENSION, "the host device"],
            )
        return self.device.unsupported_type(handle_type)
