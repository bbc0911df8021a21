"""The everyday door: arrays in, arrays out, nothing to compute by hand, and each payload imported once per process."""

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
_NT, _KMT = HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT
_Feature = vk.ExternalMemoryFeatureFlagBits
_PATIENCE = 1.0
"""Seconds for which a payload may have a name and no description yet."""
_LOOK_AGAIN = 0.002
_PLAIN = 512
_SOME_HANDLE = 4
_ALL_GRANTED = int(Access.MAXIMUM_ALLOWED)
_WRITING = int(Access.WRITE | Access.ALL)


def open_on(device: DeviceState, source: str | NtHandle | KmtHandle | FdHandle, access: int | None) -> HeldMemory:
    """`Device.open`, the whole way."""
    if isinstance(source, str):
        source = str.__str__(source)  # of a subclass, too
    if isinstance(source, FdHandle):
        return open_handle_fd(source, device, lambda descriptor: device)
    if isinstance(source, str):
        memory = known(device, source, access)
        if memory is not None:
            return memory
    owner, imported = find(source, access)
    return open_found(lambda _: device, owner, imported, source)


def find(source: str | NtHandle | KmtHandle, access: int | None) -> tuple[Manager, Imported]:
    """What a name, handle or number leads to: a reference that the caller owns. Errors: whatever refuses it."""
    if isinstance(source, str):
        owner = manager()
        rights = arguments.access_of(access)
        return owner, _by_name(owner, source, _ALL_GRANTED if rights is None else rights)
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


def _by_name(owner: Manager, name: str, desired: int) -> Imported:
    """What a name leads to. Windows's drivers name memory when they make it, and it is described afterwards.

    So this looks again for a second, and lets go in between, as the memory may just be going.
    """
    deadline = 0.0
    while True:
        imported = owner.import_by_name(name, desired, Reference(owner))
        if imported.descriptor or not isinstance(imported.payload, Win32Payload):
            return imported
        now = time.monotonic()
        deadline = deadline or now + _PATIENCE
        if now > deadline:
            return imported
        imported.give_back()
        time.sleep(_LOOK_AGAIN)


def known(device: DeviceState, name: str, access: int | None) -> HeldMemory | None:
    """What this process has imported under that name already. A name that we pin leads where it led (B73)."""
    reference = device.live.get(name)
    record = reference() if reference is not None else None
    if record is None or record.pid != current_process.pid:
        return None
    if access is not None and record.writable != bool(int(access) & _WRITING):
        return None  # other rights than those that we have: the object manager decides
    return _joined(record)


def _joined(record: MemoryRecord) -> HeldMemory | None:
    try:
        return record.held()
    except HandleStateError:
        return None  # the last user is closing it in this moment


def open_found(
    device_of: Callable[[bytes], DeviceState], owner: Manager, imported: Imported, source: object
) -> HeldMemory:
    """The payload behind a reference, as memory of a device: what is imported here already, or a new import.

    Takes the reference over, and gives it back on failure. device_of: the device for a payload with these descriptor
    bytes. source: what led to the payload, to be judged and remembered.
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
        if imported.capacity and device.kind != "host":
            return _bridged(device, owner, imported, name)
        descriptor = device.plain.get(imported.descriptor)
        if descriptor is None:
            descriptor, dedicated = _unfold(device, owner, imported, source)
        kind = _NT if imported.object else _KMT
        hold = device.hold()
        try:
            record = allocating.adopt_object(
                device, owner, imported, descriptor, cross_api.memory_type(device, descriptor), kind, dedicated
            )
        finally:
            # As at the end of a `Use`: no signal handler runs before it is noted that the device is to be given back.
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
    memory = record.held()
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
    resource: ResourceObject | None = None
    if device.described is not None:
        pass  # it knows no such resources; what it is told is in the descriptor
    elif isinstance(descriptor.dedicated, vk.BufferCreateInfo):
        resource = creating.create_buffer(device, descriptor.dedicated)
        source.p_next = vk.MemoryDedicatedAllocateInfo(None, resource)
    elif isinstance(descriptor.dedicated, vk.ImageCreateInfo):
        resource = creating.create_image(device, descriptor.dedicated)
        source.p_next = vk.MemoryDedicatedAllocateInfo(resource, None)
    try:
        return allocating.allocate_memory(device, info, stated=descriptor, resource=resource)
    except BaseException:
        if resource is not None:
            resource.close()
        raise


def _bridged(device: DeviceState, owner: Manager, imported: Imported, name: str | None) -> HeldMemory:
    """A host payload on another device: its pages, imported as host memory, where they are."""
    descriptor, _ = import_source.described(imported.descriptor)
    with device.use():
        allocation = host_file_import.as_host_memory(device, imported.payload, descriptor, imported.capacity)
        size, kind = allocation.size, allocation.memory_type_index
        as_host = int(HandleType.HOST_ALLOCATION)
        record = allocating.imported_holding(device, owner, imported, allocation, descriptor, size, kind, as_host)
    memory = record.held()
    if imported.object:
        device.live.remember(record, name)
    return memory


def _rejoined(device: DeviceState, owner: Manager, imported: Imported, name: str | None) -> HeldMemory | None:
    """Another name or handle for what this process has imported already, with the same rights."""
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
    """The descriptor of a payload that this device has not met, judged; the identical dedicated resource, made anew.

    Errors: DescriptorError; RuleViolation for a payload of another device. Size and memory type are the descriptor's
    own, so only another device or a dedicated resource can break a rule: what has neither is kept as plain.
    """
    descriptor, _ = import_source.described(imported.descriptor)
    if device.described is not None:
        cross_api.check_device(device, descriptor)
        if descriptor.dedicated is None:
            _keep_plain(device, imported.descriptor, descriptor)
        return descriptor, None
    if descriptor.dedicated is None and _same_device(device, descriptor):
        _keep_plain(device, imported.descriptor, descriptor)
        return descriptor, None
    value = int(source) if isinstance(source, (NtHandle, KmtHandle)) else 0
    kind = int(_NT if imported.object else _KMT)
    found = import_source.found_object(owner, imported, kind, source if isinstance(source, str) else None, value)
    return descriptor, _judge_by_descriptor(device, found, descriptor)


def _keep_plain(device: DeviceState, octets: bytes, descriptor: Descriptor) -> None:
    if len(device.plain) >= _PLAIN:
        device.plain.clear()
    device.plain[octets] = descriptor


def open_handle_fd(
    handle: FdHandle, first: DeviceState, choose: Callable[[Descriptor | None], DeviceState]
) -> HeldMemory:
    """The payload behind an fd, which is consumed at the end, on success.

    first: the device that examines the fd. choose: the device for a payload with this descriptor.
    Errors: DriverError, DescriptorError; RuleViolation for another device's; as `Backend.import_fd`.
    """
    with Uses() as uses:
        uses.add(first)
        memory = host_file_import.open_file(first, handle, uses)
        if memory is None:
            callers = CallersFd(handle, uses)
            found = import_source.resolve_fd(first.backend, int(HandleType.OPAQUE_FD), callers, None)
            if found.error is not None:
                raise found.error
            memory = _open_fd(uses.add(choose(found.descriptor)), found)
    handle.consume()
    return memory


def _open_fd(device: DeviceState, found: Source) -> HeldMemory:
    """Import with what the payload's own descriptor says."""
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
    memory = record.held()
    payload = found.fd_payload
    like = device.described is not None or _same_device(device, descriptor)
    if payload is not None and found.writable and descriptor.dedicated is None and like:
        _keep_plain(device, payload.descriptor, descriptor)
    return memory


def _judge_by_descriptor(device: DeviceState, found: Source, descriptor: Descriptor) -> ResourceObject | None:
    """What vkAllocateMemory would have been given, judged; the identical dedicated resource, made anew.

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
    """Whether the descriptor states this device, or none."""
    facts = device.facts
    return (
        descriptor.device_uuid in (None, facts.device_uuid)
        and descriptor.driver_uuid in (None, facts.driver_uuid)
        and descriptor.device_group in ((), (facts.device_uuid,))
    )


def _judged_by_descriptor(device: DeviceState, found: Source, descriptor: Descriptor) -> ResourceObject | None:
    chain: vk.ChainStruct
    if found.imported is not None:
        # What came by a ticket was neither named nor numbered: the reference itself stands in for its handle.
        number = found.value or (0 if found.name is not None else found.imported.kmt or _SOME_HANDLE)
        chain = vk.ImportMemoryWin32HandleInfoKHR(HandleType(found.handle_type), number or None, found.name)
    else:
        chain = vk.ImportMemoryFdInfoKHR(HandleType.OPAQUE_FD, found.examined.fd if found.examined is not None else -1)
    info = vk.MemoryAllocateInfo(descriptor.allocation_size, cross_api.memory_type(device, descriptor), chain)
    dedicated: ResourceObject | None = None
    if isinstance(descriptor.dedicated, vk.BufferCreateInfo):
        dedicated = creating.create_buffer(device, descriptor.dedicated)
        chain.p_next = vk.MemoryDedicatedAllocateInfo(None, dedicated)
    elif isinstance(descriptor.dedicated, vk.ImageCreateInfo):
        dedicated = creating.create_image(device, descriptor.dedicated)
        chain.p_next = vk.MemoryDedicatedAllocateInfo(dedicated, None)
    try:
        allocating.judge(device, info, dedicated, found)
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        raise
    return dedicated


def _same_device(device: DeviceState, descriptor: Descriptor) -> bool:
    facts = device.facts
    return (
        descriptor.device_uuid == facts.device_uuid
        and descriptor.driver_uuid == facts.driver_uuid
        and 0 <= descriptor.memory_type_index < len(facts.memory_types)
    )
