"""`extmem.open_device`, `extmem.open` and their kin: what a program calls first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem.api.device import Check, Device, DeviceMemory
from extmem.core import operations
from extmem.devices import select
from extmem.handles import Access, FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.owning import unsettled, work_off

if TYPE_CHECKING:
    from uuid import UUID

    from extmem.devices.types import DeviceIdentity
    from extmem.manager import Imported

__all__ = ["enumerate_devices", "open", "open_claimed", "open_device", "open_handle"]


def enumerate_devices() -> list[DeviceIdentity]:
    """Every device here, best first: UUIDs, LUID and names."""
    return [offer.identity for offer in select.enumerate_offers()]


def open_device(
    *,
    kind: str | None = None,
    uuid: bytes | str | UUID | None = None,
    luid: bytes | None = None,
    name: str | None = None,
    check: Check = "raise",
    strict_kmt: bool = False,
) -> Device:
    """The best device here, or the one of that kind ("host", "vulkan", "cuda"), UUID, LUID or name.

    Where nothing is asked for, the environment variable EXTMEM_DEVICE is (a kind, UUID or name); then the best is a
    discrete GPU, before integrated ones, before the host device, before processors that pose as GPUs.

    uuid: bytes, hex or UUID. luid: 8 bytes, as Direct3D and Windows's drivers know the GPU.
    check: "raise" refuses calls that break a rule (RuleViolation), "warn" warns (RuleWarning), "off" judges nothing.
    strict_kmt: KMT numbers of this device's exports die with the exporter, not with the last memory object.
    Errors: UnsupportedError that lists the devices there are.
    """
    for what, given in (("kind", kind), ("name", name)):
        if given is not None and not isinstance(given, str):
            raise TypeError(f"{what} is {given!r}, a {type(given).__name__}; give a str")
    if luid is not None and not isinstance(luid, bytes):
        raise TypeError(f"luid is {luid!r}, a {type(luid).__name__}; give 8 bytes")
    backend = select.choose(kind=kind, uuid=_uuid_bytes(uuid), luid=luid, name=name)
    try:
        return Device(backend, check=check, strict_kmt=strict_kmt)
    except BaseException:
        backend.close()
        raise


def open(
    source: str | NtHandle | KmtHandle | FdHandle, *, access: int | None = None, device: Device | None = None
) -> DeviceMemory:
    """Memory that somebody shares, by name or handle, zero copy. What is open here already is not imported again.

    source: a name; or a handle, which stays the caller's, but for an FdHandle, which is consumed on success.
    access: rights to ask for by name (`Access.READ`, …); None takes all that are granted. Without the right to write
        the memory is read-only.
    device: None finds the device that the payload is on, by UUID.
    Errors: NameNotFoundError, NameInvalidError, AccessDeniedError, ObjectTypeError, InvalidHandleError,
    HandleStateError; RuleViolation for a payload of another device; DescriptorError for one that lies about itself.
    """
    if device is not None:
        if not isinstance(device, Device):
            raise TypeError(f"device is {device!r}, a {type(device).__name__}; give a Device, or None")
        return device.open(source, access=access)
    if unsettled:
        work_off()
    if isinstance(source, str):
        source = str.__str__(source)  # of a subclass, too
        for candidate in operations.shared_devices.open_devices():
            known = operations.opening.known(candidate, source, access) if source in candidate.live else None
            if known is not None:
                return DeviceMemory(*known)
    elif isinstance(source, FdHandle) and source.payload is not None:
        device_of = operations.shared_devices.device_of
        return DeviceMemory(*operations.opening.open_on(device_of(source.payload.descriptor), source, None))
    elif isinstance(source, FdHandle):
        device_for = operations.shared_devices.device_for
        return DeviceMemory(
            *operations.opening.open_handle_fd(
                source, device_for(None), lambda found: device_for(found.device_uuid if found else None)
            )
        )
    owner, imported = operations.opening.find(source, access)
    held = operations.opening.open_found(operations.shared_devices.device_of, owner, imported, source)
    return DeviceMemory(*held)


def open_handle(name: str, access: int = Access.READ_WRITE, *, inherit: bool = False) -> NtHandle:
    """An NT handle to the shared object of that name, without importing it. The caller closes it.

    Errors: NameNotFoundError, NameInvalidError, AccessDeniedError (also for access 0), ObjectTypeError.
    """
    if unsettled:
        work_off()
    owner = operations.manager()
    rights = operations.arguments.access_of(access) or 0
    entry = HandleEntry(owner)
    asked = operations.arguments.name_of(name)
    if asked is None:
        raise TypeError("name is None; give the str under which the object is shared")
    owner.open_handle(asked, rights, inherit, entry)
    return NtHandle(entry, owner)


def open_claimed(imported: Imported) -> DeviceMemory:
    """The memory that a pickled reference stood for, on the device that the payload is on."""
    device_of = operations.shared_devices.device_of
    return DeviceMemory(*operations.opening.open_found(device_of, operations.manager(), imported, None))


def _uuid_bytes(value: bytes | str | UUID | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    from uuid import UUID

    if not isinstance(value, (str, UUID)):
        raise TypeError(f"uuid is {value!r}, a {type(value).__name__}; give bytes, a str or a uuid.UUID")
    return (UUID(value) if isinstance(value, str) else value).bytes
