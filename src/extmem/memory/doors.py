"""`extmem.open_device`, `extmem.open` and their kin: what a program calls first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from extmem.devices import select
from extmem.errors import UnsupportedError
from extmem.handles import Access, FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.memory import operations, pickling  # noqa: F401  # which registers how handles are pickled
from extmem.memory.device import Check, Device
from extmem.owning import unsettled, work_off

if TYPE_CHECKING:
    from uuid import UUID

    from extmem.devices.types import DeviceIdentity
    from extmem.manager import Imported
    from extmem.memory.memory import DeviceMemory

__all__ = ["chosen_anew", "cuda_device", "enumerate_devices", "open", "open_claimed", "open_device", "open_handle"]

_shared: dict[bytes, Device] = {}
"""The devices that `open` imports to when none is given, by device UUID, CUDA's for CUDA's payloads by that and their
producer. They live as long as the process."""
_CUDA = b"cuda-vmm"
_parents: list[Device] = []
"""In a forked child: its parent's devices, which must not be used, nor end before what is on them."""


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
        for candidate in _shared.values():
            memory = operations.opening.known(candidate, source, access) if source in candidate.live else None
            if memory is not None:
                return memory
    elif isinstance(source, FdHandle) and source.payload is not None:
        return operations.opening.open_on(_device_of(source.payload.descriptor), source, None)
    elif isinstance(source, FdHandle):
        return operations.opening.open_handle_fd(
            source, _shared_device(None), lambda found: _shared_device(found.device_uuid if found else None)
        )
    owner, imported = operations.opening.find(source, access)
    return operations.opening.open_found(_device_of, owner, imported, source)


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
    return operations.opening.open_found(_device_of, operations.manager(), imported, None)


def cuda_device(device_uuid: bytes) -> Device | None:
    """The CUDA device of that GPU, which this process shares; None where CUDA does not know it."""
    known = _shared.get(device_uuid + _CUDA)
    if known is None and not any(offer.identity.device_uuid == device_uuid for offer in select.cuda_offers()):
        return None
    return known or _shared_device(device_uuid, _CUDA.decode())


@lru_cache(maxsize=512)
def _device_of(descriptor: bytes) -> Device:
    """The device that a payload with this descriptor is on. Errors: DescriptorError, UnsupportedError."""
    parsed = operations.Descriptor.parse(descriptor)
    return _shared_device(parsed.device_uuid, parsed.producer)


def _shared_device(device_uuid: bytes | None, producer: str = "") -> Device:
    """device_uuid: None for the host device, whose files alone say what they are.

    producer: a CUDA device's own payloads are opened there; all others on the Vulkan device, where there is one.
    """
    if device_uuid is None:
        device_uuid = next((uuid for uuid, shared in _shared.items() if shared.kind == "host"), None)
    key = (device_uuid or b"") + producer.encode()
    device = _shared.get(key) if key else None
    if device is None:
        try:
            kind = "cuda" if producer else "host" if device_uuid is None else None
            backend = select.choose(kind=kind, uuid=device_uuid)
        except UnsupportedError as error:
            here = ", ".join(f"{known.device_name} {known.device_uuid.hex()}" for known in enumerate_devices())
            raise UnsupportedError(
                f"the payload is on device {device_uuid.hex() if device_uuid else '?'}, not here (here: {here}); "
                "open it on the machine and boot that made it",
                requires_one_of=error.requires_one_of,
            ) from error
        device = _shared.setdefault(backend.identity.device_uuid + producer.encode(), Device(backend))
    return device


@contextlib.contextmanager
def chosen_anew() -> Iterator[None]:
    """Within the block `open` chooses its devices anew, and at its end they are closed (for tests).

    Errors: HandleStateError at the end while memory of them is open.
    """
    before = dict(_shared)
    _shared.clear()
    _device_of.cache_clear()
    try:
        yield
    finally:
        chosen = list(_shared.values())
        _shared.clear()
        _shared.update(before)
        _device_of.cache_clear()
        with contextlib.ExitStack() as stack:
            for device in chosen:
                stack.callback(device.close)


def _uuid_bytes(value: bytes | str | UUID | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    from uuid import UUID

    if not isinstance(value, (str, UUID)):
        raise TypeError(f"uuid is {value!r}, a {type(value).__name__}; give bytes, a str or a uuid.UUID")
    return (UUID(value) if isinstance(value, str) else value).bytes


def _begin_anew() -> None:
    """In a forked child: devices belong to the process that opened them."""
    _parents.extend(_shared.values())
    _shared.clear()
    _device_of.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
