"""`VulkanSync`: what semaphores and fences of a Vulkan driver have in common: import, export, and their ends.

How this works. The driver keeps the permanent and the temporary payload of an object, and restores the permanent one.
Here are the files beside it: those of the payload that was imported, until the driver has no more use for it, and the
fd that was exported for the object manager. Nothing that is not proved reaches the driver (`sync_fd_check`).

A payload is shared by the fd (on Windows the handle) that the driver exported first. The kernel may not distinguish the
payloads behind such fds (NVIDIA's lead all to one device file), so each payload has a number, the `stated_identity`.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from extmem import vk
from extmem.devices import descriptor_shortage
from extmem.devices.fd_copies import copy_of, is_same_file
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.results import fail
from extmem.devices.vulkan.sync_handle_types import OPAQUE_FD, SHARED_TYPES, as_driver_gets, sync_fd_of
from extmem.devices.vulkan.sync_words import ObjectKindNames, refusal
from extmem.errors import HandleStateError, UnsupportedError
from extmem.owning import Held, Making, OwnedFd
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.devices.sync import SyncSource
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.sync_fd_check import SyncFdCheck
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["VulkanSync", "new_identity"]

_TEMPORARY: Final = 1
"""VK_SEMAPHORE_IMPORT_TEMPORARY_BIT and VK_FENCE_IMPORT_TEMPORARY_BIT."""
# The range of no other process begins near this one.
_identities = itertools.count(secrets.randbits(62) + 1)


def new_identity() -> int:
    """Return the `stated_identity` of a new payload."""
    return next(_identities)


class VulkanSync:
    """A VkSemaphore or VkFence. Ownership: destroyed by `close`, when no submission uses it any more."""

    kind: ClassVar[ObjectKindNames]
    timeline: bool
    """Whether it is a timeline semaphore."""

    def __init__(
        self,
        device: LogicalDevice,
        fds: SyncFdCheck,
        export_types: SyncHandleType | int,
        terms: ShareTerms | None = None,
    ) -> None:
        """export_types: as the program states them. fds: the check of what is imported. terms: name, security and
        rights, for drivers that give them when the object is created (Windows).
        """
        self.terms = terms
        self.device = device
        self._fds = fds
        self.export_types = as_driver_gets(export_types)
        """Types that the driver exports its own payload as."""
        self._identity = self._own_identity = new_identity() if self.export_types & SHARED_TYPES else 0
        self._object: VkObject | None = None
        self._payload: PayloadFd | None = None
        """The object manager's payload that is its permanent one, if that was imported; closed with it."""
        self._temporary: PayloadFd | None = None
        self.abandoned: Exception | None = None
        """Why the last submission that was to signal it was not made, though its call had returned; None for others."""
        self._is_temporary = False
        """Whether a temporary payload is in force, as far as this process knows."""
        self._exported: dict[bool, OwnedFd] = {}
        """The fd that the driver exported for the object manager: of the permanent payload (False), of the temporary
        one (True).
        """
        self._imported = False
        """Whether its permanent payload is an imported one."""
        self.writable = True
        """Whether the payload was opened with the right to signal (0x2)."""

    def _make(self, info: Any) -> None:
        """Create it: vkCreateSemaphore, vkCreateFence. Errors: DriverError, OutOfMemoryError."""
        device, made, owner = self.device, ffi.new("uint64_t *"), VkObject(self.device.owner)
        create, destroy = getattr(device.commands, self.kind.create), getattr(device.commands, self.kind.destroy)
        making = owner.make(create, (device.handle, info, ffi.NULL, made), made, destroy)
        device.check(making.result, self.kind.create)
        self._object = owner

    def _export_info(self, chain: Any) -> Any:
        """Return VkExport…CreateInfo before `chain`, if it is exported."""
        if not self.export_types:
            return chain
        name = f"VkExport{self.kind.type_name}CreateInfo *"
        return ffi.new(name, (self.kind.export_type, chain, self.export_types))

    # What it is.

    @property
    def keeper(self) -> Held:
        """See `NativeSync`."""
        if self._object is None:
            raise HandleStateError(f"this {self.kind.noun} is destroyed; create another one")
        return self._object

    @property
    def raw(self) -> int:
        """See `NativeSync`."""
        return self._object.raw if self._object is not None else 0

    @property
    def live(self) -> int:
        """The handle. HandleStateError once destroyed."""
        self.device.check_open()
        found = self._object
        if found is None or found.closing or not found.raw:
            raise HandleStateError(f"this {self.kind.noun} is destroyed; create another one")
        return found.raw

    @property
    def fd(self) -> int | None:
        """See `NativeSync`. The driver exports one fd of each payload that it made."""
        is_temporary = self._is_temporary
        payload = self._temporary if is_temporary else self._payload
        if payload is not None:
            return payload.fd
        if not (self.export_types & SHARED_TYPES or is_temporary or self._imported):
            return None
        with self.device.making:
            exported = self._exported.get(is_temporary)
            if exported is None:
                exported = self._exported[is_temporary] = self._get_shared()
            return exported.fd

    def _get_shared(self) -> OwnedFd:
        """Return the handle that the object manager keeps."""
        exported = self.export_fd_bit(OPAQUE_FD)
        if exported is None:
            raise self._no_fd(OPAQUE_FD)
        return exported

    @property
    def pages(self) -> Sequence[Any]:
        """See `NativeSync`."""
        return ()

    @property
    def stated_identity(self) -> int:
        """See `NativeSync`."""
        return self._identity

    # Import.

    def import_payload(self, source: SyncSource) -> None:
        """See `NativeSync`. The driver owns a copy of the fd, so that the caller keeps its own whatever happens."""
        self.device.check_open()
        payload = source.payload
        handle_type = as_driver_gets(source.handle_type)
        if source.signaled:
            self.import_unchecked(-1, handle_type, temporary=source.temporary)
        else:
            examined = source.fd
            if payload is not None:
                examined = self._fds.examine(payload.fd, handle_type, self, trusted=True)
            if examined is None:
                raise self.device_has_no_handles(source.handle_type)
            if examined.problem:
                raise refusal(self.device.name, self.kind, examined.problem)
            if not examined.trusted:
                self._fds.prove(examined.fd, handle_type, self, temporary=source.temporary)
            self.import_unchecked(examined.fd, handle_type, temporary=source.temporary)
        self._imported_now(source)

    def device_has_no_handles(self, handle_type: SyncHandleType | int) -> UnsupportedError:
        """What to raise for an NT handle, a number or a name, which drivers of Windows import."""
        return UnsupportedError(
            f"{self.device.name} imports {self.kind.noun}s by fd here, and the type {int(handle_type):#x} was given by "
            "handle or name; share it through the object manager",
            requires_one_of=["an fd", "a Vulkan driver of Windows"],
        )

    def import_unchecked(self, fd: int, handle_type: SyncHandleType | int, *, temporary: bool) -> None:
        """vkImport…FdKHR of a copy, which the driver owns from its success on. fd: borrowed; -1 is signaled already."""
        device, kind = self.device, self.kind
        flags = _TEMPORARY if temporary else 0
        command = getattr(device.commands, kind.import_)
        name = f"VkImport{kind.type_name}FdInfoKHR *"
        if fd < 0:
            info = ffi.new(name, (kind.import_type, ffi.NULL, self.live, flags, handle_type, -1))
            device.check(command(device.handle, info), kind.import_)
            return
        copy = copy_of(fd, kind.import_)
        info = ffi.new(name, (kind.import_type, ffi.NULL, self.live, flags, handle_type, copy.fd))
        making = Making(command, (device.handle, info), [0], id, consumes=copy)
        deque(making.steps, maxlen=0)  # makes the call
        if making.result:
            if is_same_file(copy.fd, fd):  # some drivers close it when they fail
                making.give_back_consumed()
                copy.settle()
            fail(making.result, kind.import_, device.name, f"a {kind.noun} of type {handle_type:#x}")
        copy.give_back()  # owes nothing any more

    def _imported_now(self, source: SyncSource) -> None:
        """Record an import that succeeded."""
        self.restored()
        if source.temporary:
            self._temporary, self._is_temporary = source.payload, True
        else:
            replaced, self._payload, self._imported = self._payload, source.payload, True
            self._own_identity = source.identity
            self._end_exported(False)
            if replaced is not None:
                replaced.close()
        self._identity = source.identity
        self.writable = source.writable

    def _end_exported(self, is_temporary: bool) -> None:
        exported = self._exported.pop(is_temporary, None)
        if exported is not None:
            exported.end()

    @property
    def temporary(self) -> bool:
        """See `NativeSync`."""
        return self._is_temporary

    def restored(self) -> None:
        """Record that the permanent payload is back: a wait was submitted, or the fence was reset."""
        if self._is_temporary:
            temporary, self._temporary, self._is_temporary = self._temporary, None, False
            self._identity = self._own_identity
            self.writable = self._payload is None or self._payload.writable
            self._end_exported(True)
            if temporary is not None:
                temporary.close()

    # Export.

    def export_fd(self, handle_type: SyncHandleType) -> OwnedFd | None:
        """See `NativeSync`."""
        return self.export_fd_bit(as_driver_gets(handle_type))

    def export_fd_bit(self, handle_type: SyncHandleType | int) -> OwnedFd | None:
        """vkGet…FdKHR. Close-on-exec, which the specification leaves to the driver."""
        device, kind, made = self.device, self.kind, ffi.new("int *", -1)
        info = ffi.new(f"Vk{kind.type_name}GetFdInfoKHR *", (kind.get_type, ffi.NULL, self.live, handle_type))
        command = getattr(device.commands, kind.get)
        owned, result = OwnedFd.from_output(command, (device.handle, info, made), made)
        device.check(result, kind.get)
        is_copy = handle_type == sync_fd_of(fence=kind.noun == "fence")
        if is_copy:
            self.restored()
        if owned.fd < 0:
            if is_copy:
                return None
            if descriptor_shortage.of_descriptors():
                fail(int(vk.Result.ERROR_TOO_MANY_OBJECTS), kind.get, device.name)
            raise self._no_fd(handle_type)
        os.set_inheritable(owned.fd, False)
        return owned.above_standard_streams()

    def _no_fd(self, handle_type: SyncHandleType | int) -> UnsupportedError:
        return UnsupportedError(
            f"{self.device.name} gave no fd: this {self.kind.noun} was not created for export as type {handle_type:#x}",
            requires_one_of=[f"VkExport{self.kind.type_name}CreateInfo::handleTypes with that type"],
        )

    def export_win32(self, handle_type: SyncHandleType) -> int:
        """See `NativeSync`."""
        raise self.device_has_no_handles(handle_type)

    def close(self) -> None:
        """See `NativeSync`. Safe to repeat, also after an exception."""
        if self._object is not None:
            self._object.end()
        for is_temporary in (False, True):
            self._end_exported(is_temporary)
        for payload in (self._payload, self._temporary):
            if payload is not None:
                payload.close()
