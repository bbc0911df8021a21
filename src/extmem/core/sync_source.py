"""From the source of an import (an fd, a handle, a number, a name) to the payload of a semaphore or fence.

How this works. As for memory (`import_source`): `resolve` follows the struct and returns a `SyncSourceFound`: what it
found, or the error. The rules then check the call with its facts. Only after that is it used; otherwise `abandon`
releases the reference that `resolve` took. The order of the checks: handle type, handle or name, the object manager
(NOT_FOUND, INVALID_HANDLE, TYPE_MISMATCH, ACCESS_DENIED), the descriptor, the rules, the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import rules, vk
from extmem.core.caller_fd import CallerFd
from extmem.core.sync_record import SharedPayload
from extmem.devices.sync import SyncBackend, SyncSource
from extmem.errors import (
    AccessDeniedError,
    DescriptorError,
    DriverError,
    ExtmemError,
    InvalidHandleError,
    ObjectManagerError,
)
from extmem.handles import Access, FdHandle, KmtHandle, NtHandle
from extmem.manager import Imported, Manager, Reference, manager
from extmem.objects import Status, error_for
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.payload import Win32Payload
from extmem.vk.handle_types import FenceHandleType, MemoryHandleType, SemaphoreHandleType, SyncHandleType

if TYPE_CHECKING:
    from extmem.devices.types import ExaminedFd
    from extmem.owning import Uses

__all__ = ["SourceFound", "mismatch", "resolve_fd", "resolve_object", "set_payload", "source_of_handle", "sync_type"]

_ALL_GRANTED = int(Access.MAXIMUM_ALLOWED)
_OPAQUE_FD = 0x1
_OPAQUE_WIN32 = 0x2
_KMT = 0x4
_D3D12_FENCE = 0x8
_STATUSES = {int(status): status.name for status in Status}
_NOUNS = {ObjectKind.SEMAPHORE: "a semaphore", ObjectKind.FENCE: "a fence"}


def sync_type(kind: ObjectKind, handle_type: int) -> SyncHandleType:
    """Return a handle type of an object of this kind, which decides the meaning of the bit."""
    return FenceHandleType(int(handle_type)) if kind is ObjectKind.FENCE else SemaphoreHandleType(int(handle_type))


def sync_fd_type(kind: ObjectKind) -> int:
    """Return the bit SYNC_FD of objects of this kind."""
    return 0x8 if kind is ObjectKind.FENCE else 0x10


class SourceFound:
    """The source of an import, and the facts about it."""

    descriptor: SyncDescriptor | None = None
    refusal: rules.SyncRefusal | None = None
    """The refusal of the object manager, for the rules that require a valid handle or name."""
    error: ExtmemError | None = None
    """The error to raise if no rule forbids the call, but there is nothing to import."""
    imported: Imported | None = None
    owner: Manager | None = None
    caller_fd: CallerFd | None = None
    """The caller's fd, held."""
    examined: ExaminedFd | None = None
    fd_is_valid: bool | None = None
    identity = 0
    writable = True
    signaled = False
    """SYNC_FD with -1."""
    taken = False
    """Whether the device's object owns the payload, because the device has imported it."""

    def __init__(self, kind: ObjectKind, handle_type: SyncHandleType, command: str) -> None:
        self.kind = kind
        self.handle_type = handle_type
        self.command = command

    def abandon(self) -> None:
        """Release what resolving took. The caller's handle or fd has not changed."""
        imported, self.imported = self.imported, None
        if imported is None:
            return
        if self.taken:
            imported.reference.give_back()
        else:
            imported.give_back()

    def facts(self) -> rules.SyncPayloadFacts | None:
        """Return what the descriptor says, as the rules take it; None without one."""
        said = self.descriptor
        if said is None:
            return None
        # A payload of the host is no object of a driver: every device of the machine imports it.
        shared = said.host
        return rules.SyncPayloadFacts(
            object_kind="fence" if said.object_kind == ObjectKind.FENCE else "semaphore",
            handle_types=said.handle_types,
            timeline=None if said.object_kind == ObjectKind.FENCE else said.timeline,
            flags=said.flags,
            device_uuid=None if shared else said.device_uuid,
            driver_uuid=None if shared else said.driver_uuid,
            luid=None if shared else said.luid,
            made_by_vulkan=said.made_by_vulkan,
            device_name=said.device_name,
        )

    def native_source(self, *, temporary: bool, timeline: bool) -> SyncSource:
        """Return the source for the device. timeline: of the importing object, for a payload without a descriptor."""
        said = self.descriptor
        return SyncSource(
            handle_type=self.handle_type,
            temporary=temporary,
            timeline=said.timeline if said is not None else timeline,
            fd=self.examined if self.imported is None else None,
            signaled=self.signaled,
            payload=self.imported.payload if self.imported is not None else None,
            identity=self.imported.identity if self.imported is not None else self.identity,
            writable=self.writable,
            device_uuid=said.device_uuid if said is not None and not said.host else None,
            luid=said.luid if said is not None and not said.host else None,
            device_name=said.device_name if said is not None else "",
            host=said.host if said is not None else False,
        )

    def shared_payload(self, unknown: SyncDescriptor) -> SharedPayload:
        """Return the payload for the record, after the import, which owns the reference from then on.

        unknown: the descriptor of a payload that has none.
        """
        said = self.descriptor or unknown
        imported = self.imported
        if imported is None:
            return SharedPayload(said, identity=self.identity, writable=self.writable)
        self.imported = None
        return SharedPayload(
            said,
            references=(imported.reference,),
            manager=self.owner,
            # The name as a program passes it, without the directory of its session.
            name=imported.name.rpartition("BaseNamedObjects\\")[2] if imported.name else None,
            object_id=imported.object,
            kmt=imported.kmt,
            identity=imported.identity,
            writable=self.writable,
        )


def mismatch(kind: ObjectKind, said: SyncDescriptor, what: str) -> ObjectManagerError:
    """Return the error for a payload of another kind, which only its descriptor distinguishes."""
    wanted = _NOUNS[kind]
    return error_for(
        Status.OBJECT_TYPE_MISMATCH,
        f"{what} is {said.noun}, and {wanted} is imported here; import it as what it is (both have the type name "
        "DxgkSharedSyncObject)",
    )


def _set_descriptor(found: SourceFound, data: bytes, what: str) -> None:
    try:
        said = SyncDescriptor.parse(data)
    except DescriptorError as error:
        found.error = error
        return
    found.descriptor = said
    if said.object_kind != found.kind:
        found.error = refused = mismatch(found.kind, said, what)
        found.refusal = rules.SyncRefusal(Status.OBJECT_TYPE_MISMATCH.name, str(refused))


# File descriptors.


def resolve_fd(
    backend: SyncBackend,
    kind: ObjectKind,
    handle_type: int,
    value: FdHandle | int,
    uses: Uses,
    *,
    timeline: bool,
    command: str,
) -> SourceFound:
    """Examine an fd: none reaches the driver unchecked. timeline: the type of the importing semaphore.

    uses: hold the caller's fd from now on. Errors: HandleStateError for a handle that is closed.
    """
    found = SourceFound(kind, sync_type(kind, handle_type), command)
    if isinstance(value, int) and value == -1 and handle_type == sync_fd_type(kind):
        found.signaled, found.fd_is_valid = True, True
        return found
    if not isinstance(value, (FdHandle, int)):
        found.fd_is_valid = False
        found.error = _invalid(command, f"the fd is {value!r}, which is not a file descriptor; pass one")
        return found
    found.caller_fd = caller = CallerFd(value, uses)
    payload = found.caller_fd.handle.payload if found.caller_fd.handle is not None else None
    said = None
    if payload is not None:
        _set_descriptor(found, payload.descriptor, "the payload of the fd")
        said = found.descriptor
        found.identity, found.writable = payload.identity, payload.writable
        if found.error is not None:
            found.fd_is_valid = False
            return found
    examined = backend.examine_sync_fd(
        caller.owned.fd,
        found.handle_type,
        fence=kind is ObjectKind.FENCE,
        timeline=said.timeline if said is not None else timeline,
        trusted=payload is not None and payload.trusted,
    )
    found.examined, found.fd_is_valid = examined, not examined.problem
    if examined.problem:
        found.refusal = rules.SyncRefusal("INVALID_EXTERNAL_HANDLE", examined.problem)
        found.error = _invalid(command, examined.problem)
    elif said is None and examined.descriptor:
        found.writable = examined.writable
        _set_descriptor(found, examined.descriptor, f"fd {caller.owned.fd}")
        if found.error is not None:
            found.fd_is_valid = False
    return found


def _invalid(command: str, problem: str) -> DriverError:
    return DriverError(f"{command}: {problem}", result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE), command=command)


# The object manager.


def resolve_object(
    kind: ObjectKind,
    handle_type: int,
    handle: object,
    name: str | None,
    *,
    command: str,
    access: int = _ALL_GRANTED,
    native: bool = False,
) -> SourceFound:
    """Import a name, NT handle or KMT number through the object manager.

    native: the device's driver imports numbers of other programs, and checks them.
    What it refuses is not raised: it is the error of the source. Errors: UnsupportedError without an object manager.
    """
    found = SourceFound(kind, sync_type(kind, handle_type), command)
    value = int(handle) if isinstance(handle, (int, NtHandle, KmtHandle)) else 0
    by_number = handle_type == _KMT
    nt_types = (_OPAQUE_WIN32,) if kind is ObjectKind.FENCE else (_OPAQUE_WIN32, _D3D12_FENCE)
    if not (by_number or handle_type in nt_types) or (name is None) == (not value) or (name is not None and by_number):
        # A rule reports what is wrong with it; with the rules off, this is the result that a driver would return.
        found.error = _invalid(
            command,
            f"handle {handle!r} and name {name!r} do not refer to {_NOUNS[kind]} of handle type {handle_type:#x}; give "
            "one of the two, of the type that the exporter made",
        )
        return found
    owner = handle.table if isinstance(handle, NtHandle) and isinstance(handle.table, Manager) else manager()
    reference = Reference(owner)
    try:
        if name is not None:
            imported = owner.import_by_name(name, access, reference, object_kind=kind)
        elif by_number:
            imported = _import_number(owner, value, reference, kind, native)
        else:
            with owner.lock:
                imported = owner.import_by_handle(value, reference, object_kind=kind)
    except ObjectManagerError as error:
        found.error = error
        if not isinstance(error, AccessDeniedError):
            status = _STATUSES.get(error.ntstatus) or f"{error.ntstatus:#010x}"
            found.refusal = rules.SyncRefusal(status, str(error))
        return found
    set_payload(found, owner, imported, repr(name) if name is not None else f"the handle {value:#x}")
    return found


def _import_number(owner: Manager, value: int, reference: Reference, kind: ObjectKind, native: bool) -> Imported:
    """Import by KMT number. One that does not belong to extmem may be another program's."""
    try:
        return owner.import_by_kmt(value, reference, object_kind=kind)
    except InvalidHandleError:
        if not native:
            raise
        return owner.import_stranger(value, reference, object_kind=kind)


def set_payload(found: SourceFound, owner: Manager, imported: Imported, what: str) -> None:
    """Set the source to a payload that the object manager returned. what: for messages."""
    found.owner, found.imported = owner, imported
    found.writable = imported.payload.writable
    if isinstance(imported.payload, Win32Payload):
        imported.payload.handle_type = MemoryHandleType(found.handle_type)  # what it is to the driver
    if imported.descriptor:
        _set_descriptor(found, imported.descriptor, what)


def source_of_handle(handle: Any) -> tuple[int, Any]:
    """Return the handle type (a bit that semaphores and fences share) of a handle of extmem, and its value."""
    if isinstance(handle, KmtHandle):
        return _KMT, handle
    return (_OPAQUE_FD if isinstance(handle, FdHandle) else _OPAQUE_WIN32), handle
