"""VK_KHR_external_memory_win32: memory that a driver of Windows exports, names and imports itself.

How this works. Name, rights and security go to the driver with vkAllocateMemory, as the specification has it; the
security descriptor and the strings live until that call returns. extmem looks first: a taken name, a closed handle, a
handle of another kind never reach the driver, whose answers to them are anything (VK_ERROR_OUT_OF_HOST_MEMORY, say).
What a driver refuses for all that is told with what the kernel says of the handle, and looked at once more: it may have
been closed, or the name taken, in between.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are the handles of Windows's drivers; extmem.devices.vulkan.native picks them there")

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.vulkan.capabilities import WIN32_EXTENSION
from extmem.devices.vulkan.memory import VulkanAllocation
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.results import fail
from extmem.errors import DriverError, UnsupportedError
from extmem.handles import Access
from extmem.handles._win32 import calls
from extmem.handles._win32.calls import StatusError
from extmem.manager.windows import driver_memory, status_errors
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import FLAG_INHERIT, Status, describe, error_for
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.vk.abi import ffi, to_c
from extmem.vk.words import types_text

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
    from extmem.devices.vulkan.backend import VulkanBackend
    from extmem.sharing.payload import Win32Payload
    from extmem.sharing.terms import ShareTerms
    from extmem.vk.abi import CStruct

__all__ = ["Win32Sharing"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_ALLOCATE = int(vk.StructureType.MEMORY_ALLOCATE_INFO)
_NT, _KMT = int(HandleType.OPAQUE_WIN32), int(HandleType.OPAQUE_WIN32_KMT)
_OPAQUE = _NT | _KMT
_LOW = 0xFFFF_FFFF
_OF_DEAD_NUMBERS = (vk.Result.ERROR_OUT_OF_HOST_MEMORY, vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)
"""What drivers answer to a KMT number that is none."""


class Win32Sharing:
    """How one device's memory is shared."""

    def __init__(self, backend: VulkanBackend) -> None:
        self._backend = backend

    # Export.

    def allocate(
        self, size: int, memory_type_index: int, types: int, dedicated: NativeResource | None, terms: ShareTerms | None
    ) -> VulkanAllocation:
        """See `Native`.

        terms: None for everyday memory that nobody has asked to share yet; its handles are to lead to its description.
        Errors: NameTakenError, ObjectTypeError, NameInvalidError, SecurityDescriptorError before the driver is asked;
        DriverError, OutOfMemoryError.
        """
        backend = self._backend
        name = terms.name if terms is not None and types & _NT else None
        for last in (False, False, True):
            with self._exporting(types, terms) as export:
                info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, export.cdata, size, memory_type_index))
                keep = backend.dedicate(info, dedicated)
                try:
                    memory = backend.allocate_raw(info, size, memory_type_index, "allocating")
                    break
                except DriverError:
                    if name is None:
                        raise
                    # Somebody may have taken the name since it was looked at, and given it up again: drivers answer
                    # that with lack of memory.
                    driver_memory.refuse_taken(name)
                    if last:
                        raise
                del keep
        return VulkanAllocation(backend, memory, size, memory_type_index, types, dedicated)

    @contextlib.contextmanager
    def _exporting(self, types: int, terms: ShareTerms | None) -> Iterator[CStruct]:
        """The export structs in C memory, for one call."""
        with contextlib.ExitStack() as stack:
            stated = None
            if types & _NT:
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

    def get_handle(self, raw: int, handle_type: int) -> OwnedFd:
        """See `Native`. It is not inheritable: those that programs get are made from it."""
        owned = OwnedDescriptor(self._handle(raw, handle_type))
        with contextlib.suppress(StatusError):  # a protected handle stays as the driver made it
            calls.set_flags(owned.fd, FLAG_INHERIT, 0)
        return owned

    def get_number(self, raw: int) -> int:
        """See `Native`."""
        return self._handle(raw, _KMT) & _LOW

    def _handle(self, raw: int, handle_type: int) -> int:
        backend = self._backend
        info = to_c(vk.MemoryGetWin32HandleInfoKHR(raw, HandleType(handle_type)))
        made = ffi.new("HANDLE *")
        backend.check(
            backend.commands.vkGetMemoryWin32HandleKHR(backend.handle, info.cdata, made), "vkGetMemoryWin32HandleKHR"
        )
        value = int(ffi.cast("uintptr_t", made[0]))
        if not value:  # some drivers call that a success
            raise UnsupportedError(
                f"{backend.name} gave no handle: this memory was not allocated for export as {types_text(handle_type)}",
                requires_one_of=[f"VkExportMemoryAllocateInfo::handleTypes with {types_text(handle_type)}"],
            )
        return value

    # Import.

    def import_payload(
        self, payload: Win32Payload, size: int, memory_type_index: int, dedicated: NativeResource | None
    ) -> VulkanAllocation:
        """See `Native`. By name where the program said a name, else by handle or number.

        The object manager has opened what it leads to and holds that, so that a name stays where it is.
        Errors: DriverError with what the kernel says of the handle; InvalidHandleError for a KMT number that leads
        nowhere; OutOfMemoryError; UnsupportedError.
        """
        backend, kind = self._backend, int(payload.handle_type)
        if WIN32_EXTENSION not in backend.enabled:
            raise self._lacking(kind)
        handle = None if payload.name is not None else payload.number or payload.fd
        source: vk.ChainStruct = vk.ImportMemoryWin32HandleInfoKHR(HandleType(kind), handle, payload.name)
        with contextlib.ExitStack() as stack:
            if payload.export_types:
                exported = stack.enter_context(self._exporting(payload.export_types, payload.terms))
                chain = to_c(source)
                chain.cdata.pNext = exported.cdata
            else:
                chain = to_c(source)
            info = ffi.new("VkMemoryAllocateInfo *", (_ALLOCATE, chain.cdata, size, memory_type_index))
            keep = backend.dedicate(info, dedicated)
            made, memory, commands = ffi.new("uint64_t *"), VkObject(backend.owner), backend.commands
            making = memory.make(
                commands.vkAllocateMemory, (backend.handle, info, ffi.NULL, made), made, commands.vkFreeMemory
            )
            del keep
        if not memory.raw:
            self._refused(payload, making.result or int(vk.Result.ERROR_UNKNOWN), size, memory_type_index)
        return VulkanAllocation(
            backend,
            memory,
            size,
            memory_type_index,
            payload.export_types or kind,
            dedicated,
            payload,
            owner="external",
            exporting=bool(payload.export_types),
        )

    def _refused(self, payload: Win32Payload, result: int, size: int, memory_type_index: int) -> None:
        """Raise what the driver's refusal means, with what the kernel says."""
        if payload.number and result in _OF_DEAD_NUMBERS:
            raise error_for(
                Status.INVALID_PARAMETER,
                f"The KMT number {payload.number:#x} leads to no memory that {self._backend.name} can import "
                f"({vk.Result(result).name}): it is dead, or another GPU's, or the size or memory type differ from the "
                "exporter's. Pass the number of memory that is still allocated.",
            )
        what = f"importing {size} bytes of memory type {memory_type_index} from {self._seen(payload)}"
        hint = (
            "; the handle itself is in order, so it is the size, the memory type, the dedicated resource or the device "
            "that differ from the exporter's, or there is no memory"
        )
        fail(result, "vkAllocateMemory", self._backend.name, what + ("" if payload.number else hint))

    def _seen(self, payload: Win32Payload) -> str:
        """The source in words. Errors: InvalidHandleError where the handle is gone meanwhile."""
        kind = HandleType(int(payload.handle_type)).name
        if payload.number:
            return f"the {kind} number {payload.number:#x}, which extmem cannot look behind"
        try:
            objects, value = driver_memory.kernel(), payload.fd
            granted = objects.from_kernel(calls.basic(value).granted)
            path = calls.name_of(value)
            type_name = objects.kind_of(value)
        except StatusError as error:
            raise status_errors.of_handle(error, payload.fd) from None
        named = f", named {path}" if path else ""
        by = f"the name {payload.name!r}" if payload.name is not None else f"an {kind} handle"
        return f"{by}, an open {type_name} with {describe(granted)}{named}"

    # What handles of other makers are.

    def memory_type_bits(self, handle_type: int, handle: int) -> int:
        """See `Native`. Never asked for an opaque type (VUID-…-handleType-00666). The handle stays the caller's.

        Errors: DriverError; UnsupportedError for a type that the device does not import.
        """
        backend = self._backend
        if handle_type & _OPAQUE or WIN32_EXTENSION not in backend.enabled:
            raise self._lacking(handle_type)
        answer = to_c(vk.MemoryWin32HandlePropertiesKHR())
        result = backend.commands.vkGetMemoryWin32HandlePropertiesKHR(
            backend.handle, int(handle_type), ffi.cast("HANDLE", handle), answer.cdata
        )
        backend.check(result, "vkGetMemoryWin32HandlePropertiesKHR", f"handle {handle:#x}")
        known = (1 << len(backend.memory_types())) - 1
        bits = int(answer.cdata.memoryTypeBits) & known
        if not bits:
            raise DriverError(
                f"vkGetMemoryWin32HandlePropertiesKHR: {backend.name} names no memory type for handle {handle:#x} as "
                f"{types_text(handle_type)}; it is another device's, or of another kind",
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="vkGetMemoryWin32HandlePropertiesKHR",
                devices=[backend.name],
            )
        return bits

    def _lacking(self, handle_type: int) -> UnsupportedError:
        if WIN32_EXTENSION not in self._backend.enabled:
            return UnsupportedError(
                f"{self._backend.name} has no {WIN32_EXTENSION}, so it takes no {types_text(handle_type)}; share host "
                "memory instead (extmem.open_device(kind='host')), or take a driver that has it",
                requires_one_of=[WIN32_EXTENSION, "the host device"],
            )
        return self._backend.unsupported_type(handle_type)
