"""`Device.allocate`: memory for an array. The device's own requirements say its size and type, not the shape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from extmem import vk
from extmem.core import allocating, arguments, creating, describing, exporting, rule_facts
from extmem.core.allocating import ArrayTerms
from extmem.core.memory_object import MemoryObject
from extmem.errors import UnsupportedError
from extmem.handles import Access
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.dtypes import itemsize
from extmem.sharing.layout import contiguous_strides
from extmem.vk.handle_types import (
    NO_TYPES,
    OPAQUE_FD,
    OPAQUE_WIN32,
    OPAQUE_WIN32_TYPES,
    MemoryHandleType,
    common,
    union,
)
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.memory_record import HeldMemory
    from extmem.owning import Uses

__all__ = ["allocate"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_USUAL = union(OPAQUE_WIN32, OPAQUE_FD)
_USAGE = (
    vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST | vk.BufferUsageFlagBits.STORAGE_BUFFER
)


def allocate(
    device: DeviceState,
    uses: Uses,
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
) -> HeldMemory:
    """See `Device.allocate`. uses: hold the device."""
    extents, element = arguments.array_of(shape, dtype)
    name = arguments.name_of(name)
    access = None if access is None else arguments.access_of(access)
    arguments.check_share(name, access)
    item = itemsize(element)
    nbytes = prod(extents) * item
    # Without handle types: NT handles, and file descriptors where the device has them; none where it shares none.
    requested = _USUAL if handle_types is None else arguments.types_of(handle_types)
    sharing = rule_facts.sharing(device, requested)
    types = sharing.exportable if handle_types is None else requested
    if name is not None and handle_types is not None and not types & OPAQUE_WIN32:
        raise UnsupportedError(
            f"only NT handles have names, and the handle types are {types_text(types)}; "
            "add OPAQUE_WIN32 to them or drop the name",
            requires_one_of=["OPAQUE_WIN32"],
        )
    asked = common(types, OPAQUE_WIN32_TYPES) if handle_types is not None else NO_TYPES
    if name is not None or security or inherit or access is not None:
        asked = MemoryHandleType(asked | OPAQUE_WIN32)
    lacking = exporting.unable(device, asked, missing=True) if asked & ~sharing.exportable else ""
    if lacking:
        raise UnsupportedError(
            f"this memory is to be shared, and {lacking}; leave the name, rights and handle types away, or take "
            "another device (extmem.open_device(kind='host') shares everywhere)",
            requires_one_of=["a device that exports the handle type", "the host device"],
        )
    rights = int(Access.READ_WRITE if access is None else access)
    # What the device cannot export is refused below, with its rule; no driver is told of it.
    create = vk.BufferCreateInfo(
        size=nbytes, usage=_USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(HandleType(sharing.exportable))
    )
    requirements = device.backend.buffer_requirements(create)
    kind = _memory_type(device, requirements.memory_type_bits) if memory_type is None else memory_type
    if dedicated is None:
        dedicated = requirements.requires_dedicated or bool(sharing.dedicated_only & types)
    buffer = creating.create_buffer(device, create) if dedicated else None
    descriptor = describing.describe(
        device,
        requirements.size,
        kind,
        types,
        buffer,
        payload_size=nbytes,
        array=ArrayInfo(extents, element, contiguous_strides(extents, item)),
        usage=int(_USAGE),
        read_only=not rights & (Access.WRITE | Access.ALL),
    )
    rights, attributes = exporting.everyday_access(rights, name)
    if security is not None or inherit:
        attributes = vk.SecurityAttributes(
            security or (attributes.security_descriptor if attributes else None), inherit
        )
    export = vk.ExportMemoryAllocateInfo(types)
    unshared = name is None and attributes is None and types & OPAQUE_WIN32 and access is None
    if types & OPAQUE_WIN32:
        export.p_next = vk.ExportMemoryWin32HandleInfoKHR(attributes, rights, name)
    info = vk.MemoryAllocateInfo(requirements.size, kind, export)
    if buffer is not None:
        info.p_next = vk.MemoryDedicatedAllocateInfo(None, buffer, export)
    try:
        array_terms = ArrayTerms(descriptor, lazy_share=bool(unshared))
        memory, _ = allocating.allocate_in(uses, device, info, array_terms, resource=buffer)
    except BaseException:
        if buffer is not None:
            buffer.close()
        raise
    if not device.backend.allocates_zeroed:
        # Memory of one buffer is filled through that buffer, which may be smaller than its memory.
        room = memory.record.size if buffer is None else nbytes
        try:
            device.backend.fill(memory.record.allocation, 0, room, 0)
        except BaseException:
            MemoryObject(*memory).close()
            raise
    return memory


def _memory_type(device: DeviceState, bits: int) -> int:
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
