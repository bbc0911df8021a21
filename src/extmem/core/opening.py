"""Opening by name, handle or number: find the payload, import it once per process, and return its memory object."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from extmem import vk
from extmem.core import allocating, arguments, creating, cross_api, host_file_import, import_source
from extmem.core.caller_fd import CallersFd
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.core.resources import keep_resource
from extmem.errors import DescriptorError, HandleStateError, RuleViolation, UnsupportedError
from extmem.handles import Access, FdHandle, KmtHandle, NtHandle
from extmem.handles.process_id import current_process
from extmem.manager import Imported, Manager, Reference, manager
from extmem.owning import Uses, unsettled
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.payload import Win32Payload
from extmem.vk.handle_types import HOST_ALLOCATION, OPAQUE_FD, OPAQUE_WIN32, OPAQUE_WIN32_KMT

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.import_source import Source
    from extmem.core.resources import ResourceObject

__all__ = [
    "find",
    "import_stated",
    "known",
    "open_found",
    "open_handle_fd",
    "open_on",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits
_PATIENCE = 1.0
"""Seconds for which a named payload may be without a descriptor."""
_LOOK_AGAIN = 0.002
_SOME_HANDLE = 4
_ALL_GRANTED = int(Access.MAXIMUM_ALLOWED)
_WRITING = int(Access.WRITE | Access.ALL)


def open_on(device: DeviceState, source: str | NtHandle | KmtHandle | FdHandle, access: int | None) -> HeldMemory:
    """Open on this device. See `Device.open`."""
    if isinstance(source, FdHandle):
        return open_handle_fd(source, device, lambda descriptor: device)
    if isinstance(source, str):
        source = str.__str__(source)  # converts an instance of a subclass
        memory = known(device, source, access)
        if memory is not None:
            return memory
    owner, imported = find(source, access)
    return open_found(lambda _: device, owner, imported, source)


def find(source: str | NtHandle | KmtHandle, access: int | None) -> tuple[Manager, Imported]:
    """Return the payload of a name, handle or number, with a reference that the caller owns. Errors: see `Manager`."""
    if isinstance(source, str):
        owner = manager()
        desired = _ALL_GRANTED if access is None else arguments.access_of(access)
        imported = owner.import_by_name(source, desired, Reference(owner))
        if not imported.descriptor and isinstance(imported.payload, Win32Payload):
            imported = _described(owner, source, desired, imported)
        return owner, imported
    if isinstance(source, NtHandle):
        owner = source.table if isinstance(source.table, Manager) else manager()
        with owner.lock:
            return owner, owner.import_by_handle(int(source), Reference(owner))
    if isinstance(source, KmtHandle):
        owner = manager()
        return owner, owner.import_by_kmt(int(source), Reference(owner))
    raise TypeError(
        f"cannot open {source!r}: pass a name, an NtHandle, a KmtHandle or an FdHandle; "
        "raw numbers become handles through extmem.raw"
    )


def _described(owner: Manager, name: str, desired: int, imported: Imported) -> Imported:
    """Import a name again until its descriptor exists. Drivers of Windows name memory when they create it, before that.

    This goes on for a second, and releases the reference in between, as the memory may just be ending.
    """
    deadline = time.monotonic() + _PATIENCE
    while not imported.descriptor and isinstance(imported.payload, Win32Payload) and time.monotonic() <= deadline:
        imported.give_back()
        time.sleep(_LOOK_AGAIN)
        imported = owner.import_by_name(name, desired, Reference(owner))
    return imported


def known(device: DeviceState, name: str, access: int | None) -> HeldMemory | None:
    """Return what this process has already imported under this name. A pinned name keeps its object (B73)."""
    reference = device.live.get(name)
    record = reference() if reference is not None else None
    if record is None or record.pid != current_process.pid:
        return None
    if access is not None and record.writable != bool(int(access) & _WRITING):
        return None  # other rights than those of the record: the object manager decides
    return _joined(record)


def _joined(record: MemoryRecord) -> HeldMemory | None:
    try:
        return HeldMemory(record, record.hold())
    except HandleStateError:
        return None  # another thread is closing it


def open_found(
    device_of: Callable[[bytes], DeviceState], owner: Manager, imported: Imported, source: object
) -> HeldMemory:
    """The payload behind a reference, as memory of a device: what is imported here already, or a new import.

    Takes the reference over, and gives it back on failure. device_of: the device for a payload with these descriptor
    bytes. source: what led to the payload, to be checked and remembered.
    """
    name = source if source.__class__ is str else None
    dedicated = None
    try:
        if not imported.descriptor and isinstance(imported.payload, Win32Payload):
            raise _undescribed(source)
        device = device_of(imported.descriptor)
        if imported.object in device.live:
            memory = _rejoined(device, owner, imported, name)
            if memory is not None:
                return memory
        if imported.capacity and device.backend.kind != "host":
            return _bridged(device, owner, imported, name)
        plain = device.plain.get(imported.descriptor)
        if plain is not None:
            descriptor, memory_type = plain
        else:
            descriptor, dedicated = _unfold(device, owner, imported, source)
            memory_type = cross_api.memory_type(device, descriptor)
        kind = OPAQUE_WIN32 if imported.object else OPAQUE_WIN32_KMT
        hold = device.hold()
        try:
            record = allocating.adopt_object(device, owner, imported, descriptor, memory_type, kind, dedicated)
        finally:
            # As at the end of a `Use`: no signal handler runs before the release of the device is recorded.
            del hold
            if device.closing:
                unsettled[device] = 0
                device.try_to_end()
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        imported.give_back()
        raise
    if dedicated is not None:
        record.dedicated = dedicated.facts
        keep_resource(record, dedicated)
    memory = HeldMemory(record, record.hold())
    if imported.object:
        device.live.remember(record, name)
    return memory


def _undescribed(source: object) -> DescriptorError:
    return DescriptorError(
        f"nothing here describes the GPU memory behind {source!r}: another program exported it, or its exporter is "
        "gone; state its size, memory type and device with extmem.raw.import_payload(device, handle, Descriptor(...)) "
        "(extmem.open_handle gives a handle for a name), or import it with vk.ImportMemoryWin32HandleInfoKHR"
    )


def import_stated(device: DeviceState, source: vk.ChainStruct, descriptor: Descriptor) -> HeldMemory:
    """Import what `source` leads to with the descriptor that the caller states; the dedicated resource is made anew."""
    info = vk.MemoryAllocateInfo(descriptor.allocation_size, descriptor.memory_type_index, source)
    # A device that imports by descriptor has no such resources.
    resource = _dedicated_anew(device, descriptor, source) if device.described is None else None
    try:
        return allocating.allocate_memory(device, info, stated=descriptor, resource=resource)
    except BaseException:
        if resource is not None:
            resource.close()
        raise


def _bridged(device: DeviceState, owner: Manager, imported: Imported, name: str | None) -> HeldMemory:
    """Import the pages of a host payload on another device, as host memory."""
    descriptor, _ = import_source.described(imported.descriptor)
    with device.use():
        allocation = host_file_import.as_host_memory(device, imported.payload, descriptor, imported.capacity)
        kind = allocation.memory_type_index
        record = allocating.adopt_object(
            device, owner, imported, descriptor, kind, HOST_ALLOCATION, allocation=allocation
        )
    memory = HeldMemory(record, record.hold())
    if imported.object:
        device.live.remember(record, name)
    return memory


def _rejoined(device: DeviceState, owner: Manager, imported: Imported, name: str | None) -> HeldMemory | None:
    """Return the record that this process has already imported from the same object, with the same rights."""
    reference = device.live.get(imported.object)
    live = reference() if reference is not None else None
    if live is None or live.writable != imported.payload.writable or live.pid != current_process.pid:
        return None
    memory = _joined(live)
    if memory is not None:
        imported.give_back()
        device.live.remember(live, name)
    return memory


def _unfold(
    device: DeviceState, owner: Manager, imported: Imported, source: object
) -> tuple[Descriptor, ResourceObject | None]:
    """The descriptor of a payload that this device has not met, checked; the identical dedicated resource, made anew.

    Errors: DescriptorError; RuleViolation for a payload of another device. Size and memory type are the descriptor's
    own, so only another device or a dedicated resource can break a rule: what has neither is kept as plain.
    """
    descriptor, _ = import_source.described(imported.descriptor)
    if device.described is not None:
        cross_api.check_device(device, descriptor)
    if descriptor.dedicated is None and (device.described is not None or _same_device(device, descriptor)):
        device.plain.keep(imported.descriptor, (descriptor, cross_api.memory_type(device, descriptor)))
        return descriptor, None
    if device.described is not None:
        return descriptor, None
    value = int(source) if isinstance(source, (NtHandle, KmtHandle)) else 0
    kind = OPAQUE_WIN32 if imported.object else OPAQUE_WIN32_KMT
    found = import_source.found_object(owner, imported, kind, source if isinstance(source, str) else None, value)
    return descriptor, _judge_by_descriptor(device, found, descriptor)


def open_handle_fd(
    handle: FdHandle, first: DeviceState, choose: Callable[[Descriptor | None], DeviceState]
) -> HeldMemory:
    """The payload behind an fd, which is consumed at the end, on success.

    first: the device that examines the fd. choose: the device for a payload with this descriptor.
    Errors: DriverError, DescriptorError; RuleViolation for another device's; as `Backend.import_fd`.
    """
    with Uses(first) as uses:
        memory = host_file_import.open_file(first, handle, uses)
        if memory is None:
            callers = CallersFd(handle, uses)
            found = import_source.resolve_fd(first.backend, OPAQUE_FD, callers, None)
            if found.error is not None:
                raise found.error
            memory = _open_fd(uses.add(choose(found.descriptor)), found)
    handle.consume()
    return memory


def _open_fd(device: DeviceState, found: Source) -> HeldMemory:
    """Import with the values of the payload's own descriptor."""
    descriptor = found.descriptor
    if descriptor is None:
        raise DescriptorError("the payload carries no descriptor; state one with extmem.raw.import_payload")
    dedicated = None
    if device.described is not None:
        cross_api.check_device(device, descriptor)
    elif descriptor.dedicated is not None or not _same_device(device, descriptor):
        dedicated = _judge_by_descriptor(device, found, descriptor)
    try:
        kind = cross_api.memory_type(device, descriptor)
        record = allocating.adopt(device, found, descriptor.allocation_size, kind, dedicated)
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        raise
    if dedicated is not None:
        keep_resource(record, dedicated)
    memory = HeldMemory(record, record.hold())
    payload = found.fd_payload
    like = device.described is not None or _same_device(device, descriptor)
    if payload is not None and found.writable and descriptor.dedicated is None and like:
        device.plain.keep(payload.descriptor, (descriptor, cross_api.memory_type(device, descriptor)))
    return memory


def _judge_by_descriptor(device: DeviceState, found: Source, descriptor: Descriptor) -> ResourceObject | None:
    """What vkAllocateMemory would have been given, checked; the identical dedicated resource, made anew.

    The caller has given no more than a device and what leads to the payload. So on the payload's own device a broken
    rule is the description's doing. Errors: DescriptorError then; else RuleViolation.
    """
    try:
        return _judged_by_descriptor(device, found, descriptor)
    except (RuleViolation, UnsupportedError) as error:
        if not error.violations or not _is_of(device, descriptor):
            raise
        broken = "; ".join(f"{one.where}: {one.problem} ({one.vuid})" for one in error.violations)
        told = DescriptorError(
            f"the description of the payload cannot be true of a payload of {device.name!r}: {broken}. Its exporter "
            "wrote the description: export the payload anew, or state what it is with extmem.raw.import_payload"
        )
        told.violations = error.violations
        raise told from error


def _is_of(device: DeviceState, descriptor: Descriptor) -> bool:
    """Return whether the descriptor states this device, or no device."""
    facts = device.facts
    return (
        descriptor.device_uuid in (None, facts.device_uuid)
        and descriptor.driver_uuid in (None, facts.driver_uuid)
        and descriptor.device_group in ((), (facts.device_uuid,))
    )


def _judged_by_descriptor(device: DeviceState, found: Source, descriptor: Descriptor) -> ResourceObject | None:
    chain: vk.ChainStruct
    if found.imported is not None:
        # An import by ticket has neither a name nor a number: the reference is used in place of its handle.
        number = found.value or (0 if found.name is not None else found.imported.kmt or _SOME_HANDLE)
        chain = vk.ImportMemoryWin32HandleInfoKHR(HandleType(found.handle_type), number or None, found.name)
    else:
        chain = vk.ImportMemoryFdInfoKHR(HandleType.OPAQUE_FD, found.examined.fd if found.examined is not None else -1)
    info = vk.MemoryAllocateInfo(descriptor.allocation_size, cross_api.memory_type(device, descriptor), chain)
    dedicated = _dedicated_anew(device, descriptor, chain)
    try:
        allocating.check_allocation(device, info, dedicated, found)
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        raise
    return dedicated


def _dedicated_anew(device: DeviceState, descriptor: Descriptor, link: vk.ChainStruct) -> ResourceObject | None:
    """Create the resource that the payload is dedicated to, and chain it to `link`. None if there is none."""
    info = descriptor.dedicated
    if isinstance(info, vk.BufferCreateInfo):
        buffer = creating.create_buffer(device, info)
        link.p_next = vk.MemoryDedicatedAllocateInfo(None, buffer)
        return buffer
    if isinstance(info, vk.ImageCreateInfo):
        image = creating.create_image(device, info)
        link.p_next = vk.MemoryDedicatedAllocateInfo(image, None)
        return image
    return None


def _same_device(device: DeviceState, descriptor: Descriptor) -> bool:
    facts = device.facts
    return (
        descriptor.device_uuid == facts.device_uuid
        and descriptor.driver_uuid == facts.driver_uuid
        and 0 <= descriptor.memory_type_index < len(facts.memory_types)
    )
