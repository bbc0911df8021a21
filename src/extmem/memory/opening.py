"""The everyday door: arrays in, arrays out, nothing to compute by hand, and each payload imported once per process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from extmem import arrays, vk
from extmem.broker.descriptors import Win32Payload
from extmem.errors import DescriptorError, HandleStateError, UnsupportedError
from extmem.handles import Access, FdHandle, KmtHandle, NtHandle
from extmem.handles.here import HERE
from extmem.manager import Imported, Manager, manager, start_time
from extmem.memory import allocating, arguments, exporting, foreign, host_files, importing, tracking
from extmem.memory.allocating import Everyday
from extmem.memory.descriptor import ArrayInfo, Descriptor
from extmem.memory.holding import Holding
from extmem.memory.memory import DeviceMemory, first_on

if TYPE_CHECKING:
    from extmem.devices.base import Driver
    from extmem.memory.device import Device
    from extmem.memory.importing import Source
    from extmem.memory.resources import Resource

__all__ = [
    "allocate",
    "describe",
    "examine",
    "find",
    "give_back",
    "import_stated",
    "known",
    "open_fd",
    "open_found",
    "open_on",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_NT, _KMT = HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT
_Feature = vk.ExternalMemoryFeatureFlagBits
_PLAIN = 512
_SOME_HANDLE = 4
_ALL_GRANTED = int(Access.MAXIMUM_ALLOWED)
_WRITING = int(Access.WRITE | Access.ALL)
_USAGE = (
    vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST | vk.BufferUsageFlagBits.STORAGE_BUFFER
)


def describe(
    device: Device,
    size: int,
    memory_type: int,
    handle_types: int,
    dedicated: Resource | None,
    *,
    payload_size: int | None = None,
    array: ArrayInfo | None = None,
    usage: int = 0,
    read_only: bool = False,
) -> Descriptor:
    """The self-description of a payload of this device."""
    types = device.facts.memory_types
    return Descriptor(
        handle_types=handle_types,
        allocation_size=size,
        payload_size=size if payload_size is None else payload_size,
        memory_type_index=memory_type,
        memory_property_flags=types[memory_type].property_flags if 0 <= memory_type < len(types) else 0,
        device_uuid=device.identity.device_uuid,
        driver_uuid=device.identity.driver_uuid if device.described is None else None,
        luid=device.identity.luid,
        device_name=device.identity.device_name,
        driver_name=device.identity.driver_name,
        dedicated=dedicated.facts.create_info if dedicated is not None else None,
        usage=usage,
        array=array,
        share=int(exporting.share_for(handle_types)),
        read_only=read_only,
        owner_pid=HERE.pid,
        owner_start_time=_started(HERE.pid),
        made_by_vulkan=device.described is None,
        producer=device.described.producer if device.described is not None else "",
    )


@lru_cache(maxsize=1)
def _started(pid: int) -> int:
    return start_time(pid)


def allocate(
    device: Device,
    shape: int | Sequence[int],
    dtype: object,
    *,
    name: str | None,
    access: int | None,
    security: str | None,
    inherit: bool,
    handle_types: int | None,
    memory_type: int | None,
    dedicated: bool | None,
) -> DeviceMemory:
    """`Device.allocate`: sizes and types from the device's own requirements, never from the shape."""
    extents, element = arguments.array_of(shape, dtype)
    name, access = arguments.name_of(name), arguments.access_of(access)
    arguments.check_share(name, access)
    nbytes = prod(extents) * arrays.itemsize(element)
    types = _usual_types(device) if handle_types is None else int(handle_types)
    if name is not None and handle_types is not None and not types & HandleType.OPAQUE_WIN32:
        raise UnsupportedError(
            f"only NT handles have names, and the handle types are {HandleType(types)!r}; "
            "add OPAQUE_WIN32 to them or drop the name",
            requires_one_of=["OPAQUE_WIN32"],
        )
    asked = types & int(_NT | _KMT) if handle_types is not None else 0
    if name is not None or security or inherit or access is not None:
        asked |= int(_NT)
    lacking = exporting.unable(device, asked, missing=True)
    if lacking:
        raise UnsupportedError(
            f"this memory is to be shared, and {lacking}; leave the name, rights and handle types away, or take "
            "another device (extmem.open_device(kind='host') shares everywhere)",
            requires_one_of=["a device that exports the handle type", "the host device"],
        )
    rights = int(Access.READ_WRITE if access is None else access)
    # What the device cannot export is refused below, with its rule; no driver is told of it.
    create = vk.BufferCreateInfo(
        size=nbytes, usage=_USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(exporting.able(device, types))
    )
    requirements = device.driver.buffer_requirements(create)
    kind = _memory_type(device, requirements.memory_type_bits) if memory_type is None else memory_type
    alone = (requirements.requires_dedicated or _is_alone(device, types)) if dedicated is None else dedicated
    buffer = device.create_buffer(create) if alone else None
    descriptor = describe(
        device,
        requirements.size,
        kind,
        types,
        buffer,
        payload_size=nbytes,
        array=ArrayInfo(extents, element, arrays.contiguous_strides(extents, arrays.itemsize(element))),
        usage=int(_USAGE),
        read_only=not rights & (Access.WRITE | Access.ALL),
    )
    rights, attributes = exporting.everyday_access(rights, name)
    if security is not None or inherit:
        attributes = vk.SecurityAttributes(
            security or (attributes.security_descriptor if attributes else None), inherit
        )
    export = vk.ExportMemoryAllocateInfo(types)
    unshared = name is None and attributes is None and types & HandleType.OPAQUE_WIN32 and access is None
    if types & HandleType.OPAQUE_WIN32:
        export.p_next = vk.ExportMemoryWin32HandleInfoKHR(attributes, rights, name)
    info = vk.MemoryAllocateInfo(requirements.size, kind, export)
    if buffer is not None:
        info.p_next = vk.MemoryDedicatedAllocateInfo(None, buffer, export)
    try:
        memory = allocating.allocate_memory(device, info, Everyday(descriptor, lazy_share=bool(unshared)))
    except BaseException:
        if buffer is not None:
            buffer.close()
        raise
    memory.holding.resource = buffer
    if not device.driver.allocates_zeroed:
        # Memory of one buffer is filled through that buffer, which may be smaller than its memory.
        room = memory.allocation_size if buffer is None else nbytes
        try:
            device.driver.fill(memory.holding.allocation, 0, room, 0)
        except BaseException:
            memory.close()
            raise
    return memory


def _usual_types(device: Device) -> int:
    """NT handles, and file descriptors where the device has them; nothing where it shares nothing."""
    usual = (int(HandleType.OPAQUE_WIN32), int(HandleType.OPAQUE_FD))
    return sum(kind for kind in usual if device.transfer_capability(kind).features & _Feature.EXPORTABLE)


def _is_alone(device: Device, types: int) -> bool:
    """Whether the device shares these types as dedicated allocations alone."""
    return any(
        device.transfer_capability(bit).features & _Feature.DEDICATED_ONLY for bit in tracking.single_bits(types)
    )


def _memory_type(device: Device, bits: int) -> int:
    """The device's own memory where it has any, and of that what the host sees, unless that is a small window."""
    types = device.facts.memory_types
    allowed = [index for index in range(len(types)) if bits >> index & 1]
    local = [i for i in allowed if types[i].property_flags & vk.MemoryPropertyFlagBits.DEVICE_LOCAL] or allowed
    largest = max(types[i].heap_size for i in local)
    visible = [
        i
        for i in local
        if types[i].property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE and types[i].heap_size == largest
    ]
    return (visible or local)[0]


def open_on(device: Device, source: str | NtHandle | KmtHandle | FdHandle, access: int | None) -> DeviceMemory:
    """`Device.open`, the whole way."""
    if isinstance(source, str):
        source = str.__str__(source)  # of a subclass, too
    if isinstance(source, FdHandle):
        return host_files.open_file(device, source) or open_fd(device, examine(device.driver, source))
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
        return owner, owner.import_by_name(source, _ALL_GRANTED if rights is None else rights)
    if isinstance(source, NtHandle):
        value = int(source)
        owner = source.table if isinstance(source.table, Manager) else manager()
        return owner, owner.import_by_handle(value)
    if isinstance(source, KmtHandle):
        owner = manager()
        return owner, owner.import_by_kmt(int(source))
    raise TypeError(
        f"cannot open {source!r}: pass a name, an NtHandle, a KmtHandle or an FdHandle; "
        "raw numbers become handles through extmem.raw"
    )


def known(device: Device, name: str, access: int | None) -> DeviceMemory | None:
    """What this process has imported under that name already. A name that we pin leads where it led (B73)."""
    reference = device.live.get(name)
    holding = reference() if reference is not None else None
    if holding is None or holding.pid != HERE.pid:
        return None
    if access is not None and holding.writable != bool(int(access) & _WRITING):
        return None  # other rights than those that we have: the object manager decides
    return _joined(holding)


def _joined(holding: Holding) -> DeviceMemory | None:
    try:
        return DeviceMemory(holding)
    except HandleStateError:
        return None  # the last user is closing it in this moment


def open_found(
    device_of: Callable[[bytes], Device], owner: Manager, imported: Imported, source: object
) -> DeviceMemory:
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
        holding = allocating.adopt_object(
            device, owner, imported, descriptor, foreign.memory_type(device, descriptor), kind, dedicated
        )
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        give_back(owner, imported)
        raise
    if dedicated is not None:
        holding.dedicated, holding.resource = dedicated.facts, dedicated
    memory = first_on(holding)
    if imported.object:
        device.remember(holding, name)
    return memory


def _undescribed(source: object) -> DescriptorError:
    return DescriptorError(
        f"nothing here describes the GPU memory behind {source!r}: another program exported it, or its exporter is "
        "gone; state its size, memory type and device with extmem.raw.import_payload(device, handle, Descriptor(...)) "
        "(extmem.open_handle gives a handle for a name), or import it with vk.ImportMemoryWin32HandleInfoKHR"
    )


def import_stated(device: Device, source: vk.ChainStruct, descriptor: Descriptor) -> DeviceMemory:
    """Import what `source` leads to with the descriptor that the caller states; the dedicated resource is made anew."""
    info = vk.MemoryAllocateInfo(descriptor.allocation_size, descriptor.memory_type_index, source)
    resource: Resource | None = None
    if device.described is not None:
        pass  # it knows no such resources; what it is told is in the descriptor
    elif isinstance(descriptor.dedicated, vk.BufferCreateInfo):
        resource = device.create_buffer(descriptor.dedicated)
        source.p_next = vk.MemoryDedicatedAllocateInfo(None, resource)
    elif isinstance(descriptor.dedicated, vk.ImageCreateInfo):
        resource = device.create_image(descriptor.dedicated)
        source.p_next = vk.MemoryDedicatedAllocateInfo(resource, None)
    try:
        memory = allocating.allocate_memory(device, info, stated=descriptor)
    except BaseException:
        if resource is not None:
            resource.close()
        raise
    memory.holding.resource = resource
    return memory


def _bridged(device: Device, owner: Manager, imported: Imported, name: str | None) -> DeviceMemory:
    """A host payload on another device: its pages, imported as host memory, where they are."""
    descriptor, _ = importing.described(imported.descriptor)
    allocation = host_files.as_host_memory(device, imported.payload, descriptor, imported.capacity)
    size, kind = allocation.size, allocation.memory_type_index
    as_host = int(HandleType.HOST_ALLOCATION)
    holding = allocating.imported_holding(device, owner, imported, allocation, descriptor, size, kind, as_host)
    memory = first_on(holding)
    if imported.object:
        device.remember(holding, name)
    return memory


def _rejoined(device: Device, owner: Manager, imported: Imported, name: str | None) -> DeviceMemory | None:
    """Another name or handle for what this process has imported already, with the same rights."""
    reference = device.live.get(imported.object)
    live = reference() if reference is not None else None
    if live is None or live.writable != imported.payload.writable or live.pid != HERE.pid:
        return None
    memory = _joined(live)
    if memory is not None:
        give_back(owner, imported)
        device.remember(live, name)
    return memory


def give_back(owner: Manager, imported: Imported) -> None:
    """A reference that is not needed after all."""
    imported.payload.close()
    owner.free(imported.memory)


def _unfold(device: Device, owner: Manager, imported: Imported, source: object) -> tuple[Descriptor, Resource | None]:
    """The descriptor of a payload that this device has not met, judged; the identical dedicated resource, made anew.

    Errors: DescriptorError, RuleViolation. Size and memory type are the descriptor's own, so only another device or a
    dedicated resource can break a rule: what has neither is kept as plain.
    """
    descriptor, _ = importing.described(imported.descriptor)
    if device.described is not None:
        foreign.check_device(device, descriptor)
        if descriptor.dedicated is None:
            _keep_plain(device, imported.descriptor, descriptor)
        return descriptor, None
    if descriptor.dedicated is None and _same_device(device, descriptor):
        _keep_plain(device, imported.descriptor, descriptor)
        return descriptor, None
    value = int(source) if isinstance(source, (NtHandle, KmtHandle)) else 0
    kind = int(_NT if imported.object else _KMT)
    found = importing.found_object(owner, imported, kind, source if isinstance(source, str) else None, value)
    return descriptor, _judge_by_descriptor(device, found, descriptor)


def _keep_plain(device: Device, octets: bytes, descriptor: Descriptor) -> None:
    if len(device.plain) >= _PLAIN:
        device.plain.clear()
    device.plain[octets] = descriptor


def examine(driver: Driver, source: FdHandle) -> Source:
    """What a file descriptor leads to. Errors: DriverError, DescriptorError; the fd stays the caller's."""
    found = importing.resolve_fd(driver, vk.ImportMemoryFdInfoKHR(HandleType.OPAQUE_FD, source), None)
    if found.error is not None:
        raise found.error
    return found


def open_fd(device: Device, found: Source) -> DeviceMemory:
    """Import with what the payload's own descriptor says. The fd is consumed at the end, on success."""
    descriptor = found.descriptor
    if descriptor is None:
        raise DescriptorError("the payload carries no descriptor; state one with extmem.raw.import_payload")
    dedicated = None
    if device.described is not None:
        foreign.check_device(device, descriptor)
    elif descriptor.dedicated is not None or not _same_device(device, descriptor):
        dedicated = _judge_by_descriptor(device, found, descriptor)
    try:
        kind = foreign.memory_type(device, descriptor)
        holding = allocating.adopt(device, found, descriptor.allocation_size, kind, dedicated)
    except BaseException:
        if dedicated is not None:
            dedicated.close()
        raise
    holding.resource = dedicated
    memory = first_on(holding)
    payload = found.fd_handle.payload if found.fd_handle is not None else None
    like = device.described is not None or _same_device(device, descriptor)
    if payload is not None and found.writable and descriptor.dedicated is None and like:
        _keep_plain(device, payload.descriptor, descriptor)
    found.commit()
    return memory


def _judge_by_descriptor(device: Device, found: Source, descriptor: Descriptor) -> Resource | None:
    """What vkAllocateMemory would have been given, judged; the identical dedicated resource, made anew."""
    chain: vk.ChainStruct
    if found.imported is not None:
        # What came by a ticket was neither named nor numbered: the reference itself stands in for its handle.
        number = found.value or (0 if found.name is not None else found.imported.kmt or _SOME_HANDLE)
        chain = vk.ImportMemoryWin32HandleInfoKHR(HandleType(found.handle_type), number or None, found.name)
    else:
        chain = vk.ImportMemoryFdInfoKHR(HandleType.OPAQUE_FD, found.fd)
    info = vk.MemoryAllocateInfo(descriptor.allocation_size, foreign.memory_type(device, descriptor), chain)
    dedicated: Resource | None = None
    if isinstance(descriptor.dedicated, vk.BufferCreateInfo):
        dedicated = device.create_buffer(descriptor.dedicated)
        chain.p_next = vk.MemoryDedicatedAllocateInfo(None, dedicated)
    elif isinstance(descriptor.dedicated, vk.ImageCreateInfo):
        dedicated = device.create_image(descriptor.dedicated)
        chain.p_next = vk.MemoryDedicatedAllocateInfo(dedicated, None)
    allocating.judge(device, info, dedicated, found)
    return dedicated


def _same_device(device: Device, descriptor: Descriptor) -> bool:
    facts = device.facts
    return (
        descriptor.device_uuid == facts.device_uuid
        and descriptor.driver_uuid == facts.driver_uuid
        and 0 <= descriptor.memory_type_index < len(facts.memory_types)
    )
