"""The functions `enumerate_devices`, `open_device`, `open` and `open_handle` of the package `extmem`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from extmem.api.device import Check, Device, DeviceMemory
from extmem.api.memory_kinds import memory_of
from extmem.arguments import a_type, check_flag
from extmem.core import operations
from extmem.devices import select
from extmem.errors import UnsupportedError
from extmem.handles import Access, FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.owning import late_imports, unsettled, work_off

if TYPE_CHECKING:
    from uuid import UUID

    from extmem.devices.types import DeviceIdentity
    from extmem.manager import Imported

__all__ = ["enumerate_devices", "open", "open_claimed", "open_device", "open_handle"]


def enumerate_devices() -> list[DeviceIdentity]:
    """Return the identity (UUIDs, LUID and names) of every device that this process can open, best first."""
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
    """Open the best device, or the device with the given kind ("host", "vulkan", "cuda"), UUID, LUID or name.

    Without these arguments, the environment variable EXTMEM_DEVICE (a kind, UUID or name) selects the device. If it is
    not set, the best device is a discrete GPU, else an integrated GPU, else the host device, else a Vulkan device that
    runs on the CPU.

    uuid: bytes, hexadecimal text or UUID.
    luid: 8 bytes, the identifier of the GPU in Direct3D and in Windows drivers.
    check: "raise" refuses calls that break a rule (RuleViolation), "warn" warns (RuleWarning), "off" checks no rules.
    strict_kmt: whether KMT numbers that this device exports end with the exporter, not with the last memory object.
    Errors: UnsupportedError, with a list of the available devices; ValueError for an empty name.
    """
    for what, given in (("kind", kind), ("name", name)):
        if given is not None and not isinstance(given, str):
            raise TypeError(f"{what} is {given!r}, {a_type(given)}; give a str")
    if luid is not None and not isinstance(luid, bytes):
        raise TypeError(f"luid is {luid!r}, {a_type(luid)}; give 8 bytes")
    check_flag(strict_kmt, "strict_kmt")
    backend = select.choose(kind=kind, uuid=_uuid_bytes(uuid), luid=luid, name=name)
    try:
        return Device(backend, check=check, strict_kmt=strict_kmt)
    except BaseException:
        backend.close()
        raise


def open(
    source: str | NtHandle | KmtHandle | FdHandle,
    *,
    access: int | None = None,
    device: Device | None = None,
    kind: str | None = None,
    copy: bool = False,
    timeout: float | None = None,
) -> DeviceMemory:
    """Open shared memory by name or handle, zero copy. A payload that this process has opened is not imported again.

    source: a name or a handle. The caller keeps the handle, except an FdHandle, which is consumed on success.
    access: rights to request when opening by name (`Access.READ`, …); None requests all rights that are granted.
        Without the right to write, the memory is read-only. On a CUDA device it is mapped for reading only: a write
        that gets past extmem is a fault of the GPU, which ends the CUDA context of this process.
    device: the device to open it on; None selects the device of the payload, by UUID. The Vulkan device of a payload is
        opened when something needs it: GPU arrays (`torch`, `cupy`, `jax`, `device_array`) do not. If this machine does
        not have it, or its driver fails, what needs it raises the error. So does the first use of memory of CUDA, which
        its driver maps then.
    kind: "host", "vulkan" or "cuda" selects the payload's device of that kind; a payload of the host has none, and is
        opened on the best one.
    copy: whether to return new memory on the device of `device` or `kind`, with a copy of the payload. It is not shared
        by the name, and later changes of the payload are not seen in it. So a payload gets to another GPU, or to the
        host.
    timeout: seconds for which a name that does not exist is waited for; math.inf for no limit, None for not waiting.
        On Linux the payload is held for this process from the moment at which the name appears. NameTimeoutError (a
        NameNotFoundError and a TimeoutError) if it does not appear in time.
    Errors: NameNotFoundError, NameInvalidError, AccessDeniedError, ObjectTypeError, InvalidHandleError,
    HandleStateError; RuleViolation for a payload of another device; UnsupportedError for a kind that this machine or
    the payload does not have; DescriptorError if the payload's descriptor is wrong.
    """
    if copy or kind is not None:
        return _open_placed(source, access, device, kind, copy, timeout)
    if device is not None:
        if not isinstance(device, Device):
            raise TypeError(f"device is {device!r}, {a_type(device)}; give a Device, None, or kind='cuda'")
        return device.open(source, access=access, timeout=timeout)
    if timeout is not None:
        operations.opening.refuse_timeout(source)
    if unsettled:
        work_off()
    if isinstance(source, str):
        source = str.__str__(source)  # converts an instance of a subclass
        for candidate in list(operations.shared_devices.devices_by_key.values()):
            held = (
                operations.opening.find_open(candidate, source, access) if source in candidate.open_payloads else None
            )
            if held is not None:
                return memory_of(*held)
    elif isinstance(source, FdHandle) and source.payload is not None:
        chosen = operations.shared_devices.device_of(source.payload.descriptor)
        return operations.opening.open_on(chosen, source, None, memory_of)
    elif isinstance(source, FdHandle):
        device_for = operations.shared_devices.device_for
        return operations.opening.open_handle_fd(
            source,
            device_for(None),
            lambda descriptor: device_for(descriptor.device_uuid if descriptor else None),
            memory_of,
        )
    owner, imported = operations.opening.find_payload(source, access, timeout)
    held = operations.opening.open_payload(operations.shared_devices.device_of, owner, imported, source, True)
    return memory_of(*held) if held.record.descriptor.pages else DeviceMemory(*held)


def _open_placed(
    source: str | NtHandle | KmtHandle | FdHandle,
    access: int | None,
    device: Device | None,
    kind: str | None,
    copy: bool,
    timeout: float | None,
) -> DeviceMemory:
    """See `open`."""
    check_flag(copy, "copy")
    if device is not None and not isinstance(device, Device):
        raise TypeError(f"device is {device!r}, {a_type(device)}; give a Device, or None")
    if device is not None and kind is not None:
        raise ValueError(f"open() takes device or kind, and both were given: {device!r} and {kind!r}; omit one of them")
    if kind is not None and not isinstance(kind, str):
        raise TypeError(f"kind is {kind!r}, {a_type(kind)}; give a str")
    shared = operations.shared_devices
    if copy:
        if device is None and kind is None:
            raise ValueError("copy=True needs the device to copy to; give device= or kind=")
        with late_imports():
            from extmem.api.copied import copied_to

        with open(source, access=access, timeout=timeout) as found:
            return copied_to(device or _of_kind(kind, found), found)
    if timeout is not None:
        operations.opening.refuse_timeout(source)
    if unsettled:
        work_off()
    chosen = cast("str", kind)
    if isinstance(source, FdHandle):
        descriptor = source.payload.descriptor if source.payload is not None else None
        return operations.opening.open_on(shared.device_of_kind(chosen, descriptor), source, None, memory_of)
    if isinstance(source, str):
        source = str.__str__(source)  # converts an instance of a subclass
        for candidate in list(shared.devices_by_key.values()):
            if candidate.kind == chosen and source in candidate.open_payloads:
                held = operations.opening.find_open(candidate, source, access)
                if held is not None:
                    return memory_of(*held)
    owner, imported = operations.opening.find_payload(source, access, timeout)
    return memory_of(*operations.opening.open_payload(partial(shared.device_of_kind, chosen), owner, imported, source))


def _of_kind(kind: str | None, found: DeviceMemory) -> Device:
    """Return the device of that kind, to copy to: that of the same GPU if there is one."""
    of = operations.shared_devices.device_of_kind
    if kind == found.device.kind:
        return found.device
    if kind == "host":
        return cast("Device", of(kind, None))
    try:
        return cast("Device", of(str(kind), found.descriptor.encode()))
    except UnsupportedError:
        return cast("Device", of(str(kind), None))


def open_handle(name: str, access: int = Access.READ_WRITE, *, inherit: bool = False) -> NtHandle:
    """Return an NT handle to the shared object with that name, without importing it. The caller closes it.

    Errors: NameNotFoundError, NameInvalidError, AccessDeniedError (also for access 0), ObjectTypeError.
    """
    if unsettled:
        work_off()
    owner = operations.manager()
    check_flag(inherit, "inherit")
    rights = 0 if access is None else operations.arguments.access_of(access)
    entry = HandleEntry(owner)
    checked_name = operations.arguments.name_of(name)
    if checked_name is None:
        raise TypeError("name is None; give the name of the shared object as a str")
    owner.open_handle(checked_name, rights, inherit, entry)
    return NtHandle(entry, owner)


def open_claimed(imported: Imported) -> DeviceMemory:
    """Return the memory of a claimed ticket, on the device of the payload."""
    return memory_of(
        *operations.opening.open_payload(
            operations.shared_devices.device_of, operations.manager(), imported, None, True
        )
    )


def _uuid_bytes(value: bytes | str | UUID | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    with late_imports():
        from uuid import UUID

    if not isinstance(value, (str, UUID)):
        raise TypeError(f"uuid is {value!r}, {a_type(value)}; give bytes, a str or a uuid.UUID")
    return (UUID(value) if isinstance(value, str) else value).bytes
