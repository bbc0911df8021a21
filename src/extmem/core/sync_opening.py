"""Opening a semaphore, timeline or fence by name, handle or ticket: a new object of a device that has its payload.

How this works. The payload is found first, with its descriptor, which says what it is and on which device. Then the
device gets an object of that kind, whose permanent payload is replaced by an import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from extmem import rules
from extmem.arguments import a_type
from extmem.core import arguments, everyday_names, sync_creating, sync_facts, sync_publishing, sync_source
from extmem.core.sync_importing import import_source
from extmem.core.sync_record import HeldSync, SharedPayload
from extmem.core.sync_source import SourceFound
from extmem.devices.sync import FenceSpec, SemaphoreSpec
from extmem.errors import DescriptorError, RuleViolation
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.objects import Status, error_for
from extmem.owning import Uses
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import ObjectKind

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.manager import Imported, Manager

__all__ = ["device_for", "open_claimed", "open_payload", "open_timeline"]

_COMMAND = "open_timeline"
_ALL_GRANTED = 0x0200_0000
Made = TypeVar("Made")
_Choose = Callable[[SyncDescriptor | None], "DeviceState"]


def device_for(shared: Callable[..., DeviceState], said: SyncDescriptor | None) -> DeviceState:
    """Return the device that a payload is opened on if the program names none.

    shared: `shared_devices.device_for`. A payload of the host opens on the host device.
    """
    if said is None or said.host:
        return shared(None)
    return shared(said.device_uuid, said.producer)


def open_timeline(choose: _Choose, source: object, access: int | None, make: Callable[[Any, memoryview], Made]) -> Made:
    """`extmem.open_timeline`. choose: returns the device for a payload with this descriptor, or without.

    make: makes the result, before an fd is consumed.
    """
    if not isinstance(source, (str, NtHandle, KmtHandle, FdHandle)):
        raise TypeError(
            f"{source!r} is {a_type(source)}; give the name of a timeline, or an NtHandle, KmtHandle or FdHandle of one"
        )
    if isinstance(source, FdHandle):
        timeline = make(*_open_fd(choose, source))
        source.consume()
        return timeline
    name = everyday_names.everyday_name(source) if isinstance(source, str) else None
    wanted = sync_publishing.everyday_access(arguments.access_of(access)) if access is not None else _ALL_GRANTED
    bit, handle = sync_source.source_of_handle(source) if name is None else (0x2, None)
    found = sync_source.resolve_object(ObjectKind.SEMAPHORE, bit, handle, name, command=_COMMAND, access=wanted or 0)
    try:
        if found.error is not None:
            raise found.error
        _check_timeline(found.descriptor, source)
        held = _adopt(choose(found.descriptor), found)
    except BaseException:
        found.abandon()
        raise
    return make(*held)


def open_claimed(choose: _Choose, owner: Manager, imported: Imported) -> HeldSync:
    """Open what a claimed ticket refers to: a semaphore, timeline or fence."""
    kind = ObjectKind(imported.object_kind)
    found = SourceFound(kind, sync_source.sync_type(kind, 0x2), "unpickling")
    try:
        sync_source.set_payload(found, owner, imported, "the received object")
        if found.error is not None:
            raise found.error
        return _adopt(choose(found.descriptor), found)
    except BaseException:
        imported.give_back()
        raise


def open_payload(device: DeviceState, found: SourceFound) -> HeldSync:
    """Open a payload that was found, on this device. It is given back after an error."""
    try:
        return _adopt(device, found)
    except BaseException:
        found.abandon()
        raise


def _open_fd(choose: _Choose, handle: FdHandle) -> HeldSync:
    with Uses() as uses:
        payload = handle.payload
        said = SyncDescriptor.parse(payload.descriptor) if payload is not None else None
        device = uses.add(choose(said))
        found = sync_source.resolve_fd(
            sync_facts.sync_backend(device),
            ObjectKind.SEMAPHORE,
            0x1,
            handle,
            uses,
            timeline=True,
            command=_COMMAND,
        )
        if found.error is not None:
            raise found.error
        _check_timeline(found.descriptor, handle)
        return _adopt(device, found)


def _check_timeline(said: SyncDescriptor | None, source: object) -> None:
    if said is None:
        raise DescriptorError(
            f"{source!r} carries no description, and nothing else tells a timeline from a binary semaphore; create a "
            "semaphore of the type that its exporter made, and import it with Device.import_semaphore_fd or "
            "import_semaphore_win32_handle"
        )
    if not said.timeline:
        raise error_for(
            Status.OBJECT_TYPE_MISMATCH,
            f"{source!r} is {said.noun}, and a timeline is opened here; import it with "
            "Device.import_semaphore_win32_handle or import_semaphore_fd into a semaphore of that type",
        )


def _adopt(device: DeviceState, found: SourceFound) -> HeldSync:
    """Create the object of the device, and import the payload into it."""
    said: Any = found.descriptor
    if said is None:
        raise DescriptorError("the payload carries no descriptor; import it into a semaphore of the exporter's type")
    with device.use():
        backend = sync_facts.sync_backend(device)
        _check_device(device, said)
        empty = SharedPayload(said)
        record: Any
        if said.object_kind == ObjectKind.FENCE:
            record = sync_creating.fence_record(device, backend.create_fence(FenceSpec()), empty)
        else:
            spec = SemaphoreSpec(said.timeline)
            name = found.imported.name.rpartition("\\")[2] if found.imported and found.imported.name else None
            record = sync_creating.semaphore_record(device, backend.create_semaphore(spec), empty, name)
        try:
            import_source(record, found, None, None, temporary=False)
        except BaseException:
            record.end()
            raise
        return HeldSync(record, record.hold())


def _check_device(device: DeviceState, said: SyncDescriptor) -> None:
    """Refuse the payload of another device's driver, whose error would be unclear. Errors: RuleViolation."""
    facts = device.facts
    if said.host or device.check == "off":
        return
    wrong = [
        (name, theirs, ours)
        for name, theirs, ours in (
            ("deviceUUID", said.device_uuid, facts.device_uuid),
            # CUDA reports no driverUUID. It imports the semaphores of the GPU's Vulkan driver.
            ("driverUUID", said.driver_uuid if device.kind == "vulkan" else None, facts.driver_uuid),
        )
        if theirs is not None and theirs != ours
    ]
    if wrong:
        name, theirs, ours = wrong[0]
        raise RuleViolation(
            [
                rules.Violation(
                    "VUID-VkImportSemaphoreWin32HandleInfoKHR-handle-01542",
                    "device",
                    f"the payload is of {said.device_name or 'another device'} ({name} {theirs.hex()}), and "
                    f"{device.name} has {ours.hex() if ours else 'none'}",
                    "open it on the device that made it (extmem.open_device(uuid=…)), or omit the device",
                )
            ],
            command=_COMMAND,
        )
