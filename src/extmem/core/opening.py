"""Opening by name, handle or number: find the payload, import it once per process, and return its memory object."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING

from extmem import vk
from extmem.arguments import a_type
from extmem.core import allocating, arguments, cross_api, import_source
from extmem.core.caller_fd import CallerFd
from extmem.core.device_state import DeviceState
from extmem.core.import_source import Source
from extmem.core.memory_record import HeldMemory, Made, Make
from extmem.core.resources import ResourceObject, keep_resource
from extmem.devices.backend import Allocation
from extmem.errors import DescriptorError, HandleStateError, RuleViolation, UnsupportedError
from extmem.handles import Access, FdHandle, KmtHandle, NtHandle
from extmem.handles.process_id import current_process
from extmem.manager import Imported, Manager, Reference, manager
from extmem.owning import LateModule, Uses, late_imports, unsettled
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.payload import Win32Payload
from extmem.vk.handle_types import HOST_ALLOCATION, OPAQUE_FD, OPAQUE_WIN32, OPAQUE_WIN32_KMT, MemoryHandleType

if TYPE_CHECKING:
    from extmem.core import creating, everyday_names, host_file_import
    from extmem.core.deferred import DeferredImport
else:
    creating = LateModule(globals(), "extmem.core.creating")
    everyday_names = LateModule(globals(), "extmem.core.everyday_names")
    host_file_import = LateModule(globals(), "extmem.core.host_file_import")

__all__ = [
    "find_open",
    "find_payload",
    "find_payload_async",
    "import_stated",
    "open_handle_fd",
    "open_on",
    "open_payload",
    "refuse_timeout",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_PATIENCE = 1.0
"""Seconds for which a named payload may be without a descriptor."""
_POLL_INTERVAL = 0.002
"""Seconds between two imports of such a name."""
_ANY_HANDLE = 4
"""A value for an NT handle in a struct that is checked, if there is no handle."""
_ALL_GRANTED = int(Access.MAXIMUM_ALLOWED)
_WRITING = int(Access.WRITE | Access.ALL)


def open_on(
    device: DeviceState,
    source: str | NtHandle | KmtHandle | FdHandle,
    access: int | None,
    make: Make[Made],
    timeout: float | None = None,
) -> Made:
    """Open on this device. See `Device.open`. make: makes the result."""
    if timeout is not None:
        refuse_timeout(source)
    if isinstance(source, FdHandle):
        return open_handle_fd(source, device, lambda descriptor: device, make)
    if isinstance(source, str):
        source = str.__str__(source)  # converts an instance of a subclass
        memory = find_open(device, source, access)
        if memory is not None:
            return make(*memory)
    owner, imported = find_payload(source, access, timeout)
    return make(*open_payload(lambda _: device, owner, imported, source))


def refuse_timeout(source: object) -> None:
    """Refuse to wait for something else than a name. Errors: TypeError."""
    if not isinstance(source, str):
        raise TypeError(f"timeout is for names, and {source!r} is {a_type(source)}; omit it, or give a name")


def find_payload(
    source: str | NtHandle | KmtHandle, access: int | None, timeout: float | None = None
) -> tuple[Manager, Imported]:
    """Return the payload of a name, handle or number, with a reference that the caller owns. Errors: see `Manager`.

    timeout: seconds for which a name is waited for; None: it is not waited for.
    """
    if isinstance(source, str):
        if "@" in source:
            everyday_names.everyday_name(source)
        owner = manager()
        desired = _ALL_GRANTED if access is None else arguments.access_of(access)
        if timeout is None:
            imported = owner.import_by_name(source, desired, Reference(owner, owner.names_counter[0]))
        else:
            with late_imports():
                from extmem.core import name_waits

            imported = name_waits.import_named(owner, source, desired, name_waits.checked_timeout(timeout))
        return owner, imported if imported.descriptor else _described(owner, imported, source, desired)
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


async def find_payload_async(name: str, access: int | None, timeout: float | None) -> tuple[Manager, Imported]:
    """As `find_payload`, for a name that is waited for while other coroutines run; None: without limit."""
    with late_imports():
        from extmem.core import name_waits

    everyday_names.everyday_name(name)
    owner = manager()
    desired = _ALL_GRANTED if access is None else arguments.access_of(access)
    limit = math.inf if timeout is None else name_waits.checked_timeout(timeout)
    imported = await name_waits.import_named_async(owner, name, desired, limit)
    return owner, _described(owner, imported, name, desired)


def _described(owner: Manager, imported: Imported, source: str, desired: int) -> Imported:
    """Return the import of a name with its descriptor.

    Drivers of Windows name memory when they create it, before it has a descriptor. So a name without a descriptor is
    imported again for a second. In between the reference is released, because the memory may just be ending.
    """
    deadline = time.monotonic() + _PATIENCE
    while not imported.descriptor and isinstance(imported.payload, Win32Payload) and time.monotonic() <= deadline:
        imported.give_back()
        time.sleep(_POLL_INTERVAL)
        imported = owner.import_by_name(source, desired, Reference(owner, owner.names_counter[0]))
    return imported


def find_open(device: DeviceState, key: str | int, access: int | None) -> HeldMemory | None:
    """Return the memory that this process has imported under this name or object number; None for none.

    A pinned name refers to the same object as before (B73), unless names were given to other objects since.
    access: as passed to `open`; a record with other rights is not returned, since the object manager decides on rights.
    """
    reference = device.open_payloads.get(key)
    record = reference() if reference is not None else None
    if record is None or record.pid != current_process.pid:
        return None
    if key.__class__ is str and device.open_payloads.counts.get(key) != (record.manager or manager()).watch_names():
        return None
    if access is not None and record.writable != bool(int(access) & _WRITING):
        return None
    try:
        return HeldMemory(record, record.hold())
    except HandleStateError:
        return None  # another thread is closing it


def open_payload(
    device_of: Callable[[bytes], DeviceState],
    owner: Manager,
    imported: Imported,
    source: object,
    at_first_use: bool = False,
) -> HeldMemory:
    """Return the payload behind a reference as memory of a device: of an existing import, or of a new one.

    The memory owns the reference; after an error it is released. device_of: returns the device for a payload with these
    descriptor bytes. source: the name or handle of the payload, for the check and for later opens.
    at_first_use: whether a device that imports by descriptor imports it at its first use.
    """
    name = source if source.__class__ is str else None
    dedicated: ResourceObject | None = None
    allocation: Allocation | None = None
    deferred: DeferredImport | None = None
    handle_type = OPAQUE_WIN32 if imported.object else OPAQUE_WIN32_KMT
    try:
        if not imported.descriptor and isinstance(imported.payload, Win32Payload):
            raise DescriptorError(
                f"the GPU memory behind {source!r} has no descriptor: another program exported it, or its exporter has "
                "ended; state its size, memory type and device with extmem.raw.import_payload(device, handle, "
                "Descriptor(...)) (extmem.open_handle returns a handle for a name), or import it with "
                "vk.ImportMemoryWin32HandleInfoKHR"
            )
        device = device_of(imported.descriptor)
        if imported.object in device.open_payloads:
            memory = find_open(device, imported.object, _WRITING if imported.payload.writable else 0)
            if memory is not None:
                imported.give_back()
                device.open_payloads.remember(memory.record, name, imported.reference)
                return memory
        simple = device.simple_payloads.get(imported.descriptor)
        hold = device.hold()
        try:
            if imported.capacity and device.backend.kind != "host":
                # The pages of a host payload become host memory of the other device.
                descriptor, _ = import_source.parse_descriptor(imported.descriptor)
                allocation = host_file_import.as_host_memory(device, imported.payload, descriptor, imported.capacity)
                memory_type, handle_type = allocation.memory_type_index, HOST_ALLOCATION
            elif simple is not None:
                descriptor, memory_type = simple
            elif device.deferred is not None:
                descriptor, _ = import_source.parse_descriptor(imported.descriptor)
                memory_type = descriptor.memory_type_index
                later = partial(_check_later, device, handle_type, owner, imported, source)
                deferred = _deferred().DeferredCheck(imported, later, keep_resource)
            else:
                found = _found(handle_type, owner, imported, source)
                descriptor, dedicated = _check_payload(device, found)
                memory_type = cross_api.memory_type(device, descriptor)
            if at_first_use and allocation is None and device.descriptor_importer is not None:
                deferred = _deferred().DeferredByDescriptor(imported, cross_api.import_object)
            record = allocating.adopt_object(
                device,
                owner,
                imported,
                descriptor,
                memory_type,
                handle_type,
                dedicated,
                allocation=allocation,
                deferred=deferred,
            )
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
        keep_resource(record, dedicated)
    memory = HeldMemory(record, record.hold())
    if imported.object:
        device.open_payloads.remember(record, name, imported.reference)
    return memory


@cache
def _deferred() -> ModuleType:
    with late_imports():
        from extmem.core import deferred

    return deferred


def _found(handle_type: MemoryHandleType, owner: Manager, imported: Imported, source: object) -> Source:
    value = int(source) if isinstance(source, (NtHandle, KmtHandle)) else 0
    found = Source(handle_type, source if isinstance(source, str) else None, value)
    import_source.set_payload(found, owner, imported)
    return found


def _check_later(
    device: DeviceState, handle_type: MemoryHandleType, owner: Manager, imported: Imported, source: object
) -> tuple[int, ResourceObject | None]:
    """Check a payload of a deferred import. Return the memory type, and the recreated dedicated resource."""
    descriptor, dedicated = _check_payload(device, _found(handle_type, owner, imported, source))
    try:
        return cross_api.memory_type(device, descriptor), dedicated
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        raise


def import_stated(device: DeviceState, source: vk.ChainStruct, descriptor: Descriptor, make: Make[Made]) -> Made:
    """Import what `source` refers to, with the descriptor that the caller states. A dedicated resource is recreated."""
    info = vk.MemoryAllocateInfo(descriptor.allocation_size, descriptor.memory_type_index, source)
    # A device that imports by descriptor has no such resources.
    resource = _recreate_dedicated(device, descriptor, source) if device.descriptor_importer is None else None
    try:
        return allocating.allocate_memory(device, info, make, descriptor, resource)
    except BaseException:
        if resource is not None:
            resource.close()
        raise


def open_handle_fd(
    handle: FdHandle, first: DeviceState, choose: Callable[[Descriptor | None], DeviceState], make: Make[Made]
) -> Made:
    """Open the payload behind an fd, which is consumed at the end, on success.

    first: the device that examines the fd. choose: returns the device for a payload with this descriptor, or without.
    make: makes the result.
    Errors: DriverError, DescriptorError; RuleViolation for a payload of another device; as `Backend.import_fd`.
    """
    with Uses(first) as uses:
        held = host_file_import.open_file(first, handle, uses)
        if held is None:
            found = import_source.resolve_fd(first.backend, OPAQUE_FD, CallerFd(handle, uses), None)
            held = _open_fd(uses.add(choose(found.descriptor)), found)
    memory = make(*held)
    handle.consume()
    return memory


def _open_fd(device: DeviceState, found: Source) -> HeldMemory:
    descriptor, dedicated = _check_payload(device, found)
    try:
        memory_type = cross_api.memory_type(device, descriptor)
        record = allocating.adopt(device, found, descriptor.allocation_size, memory_type, dedicated)
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        raise
    if dedicated is not None:
        keep_resource(record, dedicated)
    return HeldMemory(record, record.hold())


def _check_payload(device: DeviceState, found: Source) -> tuple[Descriptor, ResourceObject | None]:
    """Check a payload that is opened on this device. Return its descriptor and the recreated dedicated resource.

    Errors: DescriptorError; RuleViolation for a payload of another device. The size and the memory type are those of
    the descriptor, so only another device or a dedicated resource can break a rule. Other descriptors are kept in
    `simple_payloads`.
    """
    descriptor = found.descriptor
    if found.error is not None:
        raise found.error
    if descriptor is None:
        raise DescriptorError("the payload carries no descriptor; state one with extmem.raw.import_payload")
    if device.descriptor_importer is not None:
        cross_api.check_device(device, descriptor)
    elif descriptor.dedicated is not None or not _same_device(device, descriptor):
        return descriptor, _check_by_descriptor(device, found, descriptor)
    device.simple_payloads.keep(found.descriptor_bytes, (descriptor, cross_api.memory_type(device, descriptor)))
    return descriptor, None


def _check_by_descriptor(device: DeviceState, found: Source, descriptor: Descriptor) -> ResourceObject | None:
    """Check the vkAllocateMemory that the descriptor implies. Return the recreated dedicated resource.

    The caller has passed only a device and a name or handle. So if a rule is broken on the payload's own device, the
    descriptor is wrong. Errors: DescriptorError then; else RuleViolation.
    """
    dedicated = None
    try:
        chain: vk.ChainStruct
        if found.imported is not None:
            # An import by ticket has neither a name nor a number: the reference is used in place of its handle.
            number = found.value or (0 if found.name is not None else found.imported.kmt or _ANY_HANDLE)
            chain = vk.ImportMemoryWin32HandleInfoKHR(HandleType(found.handle_type), number or None, found.name)
        else:
            fd = found.examined.fd if found.examined is not None else -1
            chain = vk.ImportMemoryFdInfoKHR(HandleType.OPAQUE_FD, fd)
        info = vk.MemoryAllocateInfo(descriptor.allocation_size, cross_api.memory_type(device, descriptor), chain)
        dedicated = _recreate_dedicated(device, descriptor, chain)
        allocating.check_allocation(device, info, dedicated, found)
    except BaseException as error:
        if dedicated is not None:
            dedicated.close()
        if not isinstance(error, (RuleViolation, UnsupportedError)):
            raise
        if not error.violations or not _may_be_of(device, descriptor):
            raise
        broken = "; ".join(f"{one.where}: {one.problem} ({one.vuid})" for one in error.violations)
        wrong = DescriptorError(
            f"the description of the payload cannot be true of a payload of {device.name!r}: {broken}. Its exporter "
            "wrote the description: export the payload anew, or state what it is with extmem.raw.import_payload"
        )
        wrong.violations = error.violations
        raise wrong from error
    return dedicated


def _may_be_of(device: DeviceState, descriptor: Descriptor) -> bool:
    """Return whether the descriptor states this device, or no device."""
    facts = device.facts
    return (
        descriptor.device_uuid in (None, facts.device_uuid)
        and descriptor.driver_uuid in (None, facts.driver_uuid)
        and descriptor.device_group in ((), (facts.device_uuid,))
    )


def _recreate_dedicated(device: DeviceState, descriptor: Descriptor, link: vk.ChainStruct) -> ResourceObject | None:
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
