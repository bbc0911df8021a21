"""`Win32Sync`: semaphores and fences of Windows's drivers: VK_KHR_external_semaphore_win32 and …_fence_win32.

How this works. As for memory (`win32`): name, rights and security are passed to the driver when the object is created,
and are checked first. The driver gives one NT handle for each object, of which the object manager gives duplicates, or
a KMT number. An object that the program does not name gets a random name, by which a bare handle leads to its
description: nothing in a handle tells a binary semaphore from a timeline.

An import is always made by handle. The object manager has opened what a name leads to, with the rights that the
program asked for; some implementations of the extension open a name, then demand a handle, and fail. The handle stays
the object manager's, which holds it, so that the name stays where it is.

A timeline has no KMT number: several drivers crash if one is asked for.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are the handles of Windows's drivers; extmem.devices.vulkan picks them there")

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.vulkan.results import fail
from extmem.devices.vulkan.sync_handle_types import OPAQUE_WIN32
from extmem.devices.vulkan.sync_objects import VulkanSync
from extmem.errors import DriverError, UnsupportedError
from extmem.handles._win32 import calls
from extmem.manager.windows import driver_memory, status_errors
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import FLAG_INHERIT, OBJECT_TYPES, Status, error_for
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.payload import Win32Payload
from extmem.vk.abi import CStruct, ffi, to_c

if TYPE_CHECKING:
    from extmem.devices.sync import SyncSource
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["Win32Sync"]

_KMT = int(vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32_KMT)
_D3D12_FENCE = int(vk.ExternalSemaphoreHandleTypeFlagBits.D3D12_FENCE)
_NT_TYPES = OPAQUE_WIN32 | _D3D12_FENCE
_LOW = 0xFFFF_FFFF
_OF_DEAD_NUMBERS = (vk.Result.ERROR_OUT_OF_HOST_MEMORY, vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)
"""Results of drivers for a KMT number that leads nowhere."""
_TEMPORARY = 1
_ALL_RIGHTS = OBJECT_TYPES[ObjectKind.SEMAPHORE].all


class Win32Sync(VulkanSync):
    """A VkSemaphore or VkFence whose payload is shared by NT handle or KMT number."""

    _number = 0
    """The KMT number of the payload that the driver made; 0 while it is not known."""

    # Export.

    def _make(self, info: Any) -> None:
        """See `VulkanSync`. Errors: NameTakenError, ObjectTypeError, NameInvalidError, SecurityDescriptorError, too."""
        terms = self.terms
        if self.timeline and self.export_types & _KMT:
            raise self._no_number()
        name = terms.name if terms is not None and self.export_types & _NT_TYPES else None
        chain = info.pNext
        for is_last in (False, False, True):
            with self._stated(name) as link:
                info.pNext = chain
                if link is not None:
                    link.cdata.pNext = chain
                    info.pNext = link.cdata
                try:
                    super()._make(info)
                    return
                except DriverError:
                    if name is None:
                        raise
                    # Another program may have taken the name since it was checked, and given it up again: drivers
                    # answer that with lack of memory.
                    driver_memory.refuse_taken(name)
                    if is_last:
                        raise

    @contextlib.contextmanager
    def _stated(self, name: str | None) -> Iterator[CStruct | None]:
        """VkExport…Win32HandleInfoKHR in C memory, for one call; None for an object without NT handles."""
        terms = self.terms
        if not self.export_types & _NT_TYPES:
            yield None
            return
        with contextlib.ExitStack() as stack:
            if name is not None:
                driver_memory.refuse_taken(name)
            attributes = None
            if terms is not None and (terms.sddl is not None or terms.inherit):
                address = stack.enter_context(security_descriptor(terms.sddl))
                attributes = vk.SecurityAttributes(address or None, terms.inherit)
            access = terms.access if terms is not None and terms.stated else _ALL_RIGHTS
            make: Any = vk.ExportSemaphoreWin32HandleInfoKHR
            if self.kind.noun == "fence":
                make = vk.ExportFenceWin32HandleInfoKHR
            yield to_c(make(attributes, access, name if name is not None else driver_memory.hidden_name()))

    @property
    def fd(self) -> int | None:
        """See `NativeSync`: the HANDLE, or the KMT number."""
        payload = self._temporary if self._is_temporary else self._payload
        if isinstance(payload, Win32Payload) and payload.number:
            return payload.number
        if payload is None and self.export_types & _KMT and not self.export_types & _NT_TYPES:
            with self.device.making:
                if not self._number:
                    self._number = self._handle(_KMT) & _LOW
                return self._number
        return super().fd

    def _get_shared(self) -> OwnedFd:
        """Return the NT handle that the driver gives once. It is not inheritable: programs get duplicates of it."""
        kind = OPAQUE_WIN32 if self.export_types & OPAQUE_WIN32 else _D3D12_FENCE
        owned = OwnedDescriptor(self._handle(kind))
        with contextlib.suppress(calls.StatusError):  # a protected handle is left unchanged
            calls.set_flags(owned.fd, FLAG_INHERIT, 0)
        return owned

    def _handle(self, bit: int) -> int:
        """vkGet…Win32HandleKHR. Errors: DriverError; UnsupportedError where the driver gives NULL."""
        device, name = self.device, self.kind.type_name
        command = f"vkGet{name}Win32HandleKHR"
        make: Any = vk.FenceGetWin32HandleInfoKHR if self.kind.noun == "fence" else vk.SemaphoreGetWin32HandleInfoKHR
        made, built = ffi.new("HANDLE *"), to_c(make(self.live, bit))
        device.check(getattr(device.commands, command)(device.handle, built.cdata, made), command)
        value = int(ffi.cast("uintptr_t", made[0]))
        if not value:  # some drivers call that a success
            raise UnsupportedError(
                f"{device.name} gave no handle: this {self.kind.noun} was not created for export as type {bit:#x}",
                requires_one_of=[f"VkExport{name}CreateInfo::handleTypes with that type"],
            )
        return value

    def export_win32(self, handle_type: SyncHandleType) -> int:
        """See `NativeSync`. An NT handle is a duplicate of the one that the driver gave."""
        shared = self.fd
        if shared is None or not self.export_types & int(handle_type):
            raise self._no_fd(int(handle_type))
        if int(handle_type) == _KMT:
            return shared
        return status_errors.duplicate(shared, options=calls.SAME_ACCESS)

    # Import.

    def import_payload(self, source: SyncSource) -> None:
        """See `NativeSync`. vkImport…Win32HandleKHR, by handle or KMT number; the handle is borrowed.

        Errors: DriverError with what the kernel reports of the handle; InvalidHandleError for one that was closed
        meanwhile; UnsupportedError.
        """
        device = self.device
        device.check_open()
        bit, payload = int(source.handle_type), source.payload
        if self.timeline and bit == _KMT:
            raise self._no_number()
        if payload is not None:
            number = payload.number if isinstance(payload, Win32Payload) else 0
            handle = number or payload.fd
        else:
            handle = source.handle
        if not handle:
            raise self.device_has_no_handles(bit)
        if f"VK_KHR_external_{self.kind.noun}_win32" not in device.enabled:
            raise self._lacking(bit)
        self._import(handle, bit, temporary=source.temporary)
        self._imported_now(source)

    def _import(self, handle: int, bit: int, *, temporary: bool) -> None:
        device, name = self.device, self.kind.type_name
        command = f"vkImport{name}Win32HandleKHR"
        flags = _TEMPORARY if temporary else 0
        info: Any = (
            vk.ImportFenceWin32HandleInfoKHR(
                self.live, vk.FenceImportFlagBits(flags), vk.ExternalFenceHandleTypeFlagBits(bit), handle
            )
            if self.kind.noun == "fence"
            else vk.ImportSemaphoreWin32HandleInfoKHR(
                self.live,
                vk.SemaphoreImportFlagBits(flags),
                vk.ExternalSemaphoreHandleTypeFlagBits(bit),
                handle,
            )
        )
        built = to_c(info)
        result = getattr(device.commands, command)(device.handle, built.cdata)
        if bit == _KMT and result in _OF_DEAD_NUMBERS:
            raise error_for(
                Status.INVALID_PARAMETER,
                f"The KMT number {handle:#x} leads to no {self._noun} that {device.name} can import "
                f"({vk.Result(result).name}): it is dead, or another GPU's, or of another kind. Pass the number of an "
                "object that still exists.",
            )
        if result:
            fail(result, command, device.name, f"a {self._noun} from {self._seen(handle, bit)}")

    @property
    def _noun(self) -> str:
        if self.kind.noun == "fence":
            return "fence"
        return "timeline semaphore" if self.timeline else "binary semaphore"

    def _seen(self, handle: int, bit: int) -> str:
        """Return the source in words. Errors: InvalidHandleError if the handle was closed meanwhile."""
        if bit == _KMT:
            return (
                f"the KMT number {handle:#x}, whose object extmem cannot examine: it is dead, or another GPU's, or of "
                "another kind"
            )
        objects = driver_memory.kernel()
        try:
            granted = objects.from_kernel(calls.basic(handle).granted, ObjectKind.SEMAPHORE)
            path, type_name = calls.name_of(handle), objects.kind_of(handle)
        except calls.StatusError as error:
            raise status_errors.of_handle(error, handle) from None
        named = f", named {path}" if path and not driver_memory.is_hidden(path) else ""
        rights = OBJECT_TYPES[ObjectKind.SEMAPHORE].describe(granted)
        return (
            f"a handle of type {bit:#x}, an open {type_name} with {rights}{named}; the handle itself is in "
            "order, so it is another device's, or a payload of another type than this object"
        )

    def _no_number(self) -> DriverError:
        return DriverError(
            f"{self.device.name}: a timeline semaphore has no KMT number (OPAQUE_WIN32_KMT): drivers of Windows crash "
            "when one is asked for; share it by NT handle or name (OPAQUE_WIN32)",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkImportSemaphoreWin32HandleKHR",
            devices=[self.device.name],
        )

    def _lacking(self, bit: int) -> UnsupportedError:
        needed = f"VK_KHR_external_{self.kind.noun}_win32"
        return UnsupportedError(
            f"{self.device.name} has no {needed}, so it imports no {self.kind.noun} of type {bit:#x}; use one "
            "of the host device (extmem.open_device(kind='host')), or take a driver that has it",
            requires_one_of=[needed, "the host device"],
        )

    def device_has_no_handles(self, bit: int) -> UnsupportedError:
        """What to raise for an fd: drivers of Windows have none."""
        return UnsupportedError(
            f"{self.device.name} imports {self.kind.noun}s by NT handle, KMT number or name, and none of type "
            f"{int(bit):#x} was given",
            requires_one_of=["OPAQUE_WIN32", "OPAQUE_WIN32_KMT"],
        )
