"""`Device.allocate`: memory for an array. Its size and memory type are those that the device requires for a buffer."""

from __future__ import annotations

from collections.abc import Sequence

from extmem import vk
from extmem.arguments import check_flag
from extmem.core import (
    allocating,
    arguments,
    companion_pages,
    creating,
    describing,
    everyday_names,
    exporting,
    memory_types,
    rule_facts,
)
from extmem.core.allocating import ArrayTerms
from extmem.core.device_state import DeviceState
from extmem.core.memory_record import HeldMemory
from extmem.errors import UnsupportedError
from extmem.handles import Access
from extmem.manager import manager
from extmem.owning import Uses, late_imports
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.keeping import NOT_KEPT
from extmem.sharing.layout import Axes
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
    order: str | None,
    strides: Axes,
    row_pitch: int | None,
    name: str | None,
    access: int | None,
    security: str | None,
    inherit: bool,
    handle_types: int | None,
    memory_type: int | None,
    dedicated: bool | None,
    replace: bool = False,
    keep: object = None,
) -> HeldMemory:
    """See `Device.allocate`. uses: hold the device."""
    if inherit is not False:
        check_flag(inherit, "inherit")
    if dedicated is not None:
        check_flag(dedicated, "dedicated")
    array = arguments.array_of(shape, dtype, order, strides, row_pitch)
    nbytes = array.nbytes
    name = arguments.name_of(name)
    if name is not None and "@" in name:
        everyday_names.everyday_name(name)
    kept = NOT_KEPT
    if keep is not None or replace is not False:
        with late_imports():
            from extmem.core import naming

        kept = naming.keep_of(keep)
        naming.refuse_terms(name, replace, kept)
    access = None if access is None else arguments.access_of(access)
    arguments.check_share(name, access)
    # Without handle types: NT handles and file descriptors, each if the device can export it.
    requested = _USUAL if handle_types is None else arguments.types_of(handle_types)
    sharing = rule_facts.sharing(device, requested)
    types = sharing.exportable if handle_types is None else requested
    if name is not None and handle_types is not None and not types & OPAQUE_WIN32:
        raise UnsupportedError(
            f"only NT handles have names, and the handle types are {types_text(types)}; "
            "add OPAQUE_WIN32 to them or drop the name",
            requires_one_of=["OPAQUE_WIN32"],
        )
    required = common(types, OPAQUE_WIN32_TYPES) if handle_types is not None else NO_TYPES
    if name is not None or security or inherit or access is not None:
        required = MemoryHandleType(required | OPAQUE_WIN32)
    obstacle = exporting.export_obstacle(device, required, missing=True) if required & ~sharing.exportable else ""
    if obstacle:
        raise UnsupportedError(
            f"this memory is to be shared, and {obstacle}; omit the name, rights and handle types, or take another "
            "device (extmem.open_device(kind='host') shares everywhere)",
            requires_one_of=["a device that exports the handle type", "the host device"],
        )
    rights = int(Access.READ_WRITE if access is None else access)
    # A type that the device cannot export is refused below, with its rule; no driver gets it.
    create = vk.BufferCreateInfo(
        size=nbytes, usage=_USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(HandleType(sharing.exportable))
    )
    requirements = device.backend.buffer_requirements(create)
    if memory_type is None:
        memory_type = memory_types.choose(device, requirements.memory_type_bits)
    if dedicated is None:
        dedicated = requirements.requires_dedicated or bool(sharing.dedicated_only & types)
    buffer = creating.create_buffer(device, create) if dedicated else None
    read_only = not rights & (Access.WRITE | Access.ALL)
    rights, attributes = exporting.high_level_access(rights, name)
    if security is not None or inherit:
        attributes = vk.SecurityAttributes(
            security or (attributes.security_descriptor if attributes else None), inherit
        )
    pages = None
    if types & OPAQUE_WIN32 and describing.needs_control_page(device):
        stated = attributes.security_descriptor if attributes is not None else None
        pages = companion_pages.counting(manager().security_text(stated))
    descriptor = describing.describe(
        device,
        requirements.size,
        memory_type,
        types,
        buffer,
        payload_size=nbytes,
        array=ArrayInfo(array.shape, array.element.text, array.strides),
        usage=int(_USAGE),
        read_only=read_only,
        pages=pages.roles if pages is not None else (),
    )
    export = vk.ExportMemoryAllocateInfo(types)
    if types & OPAQUE_WIN32:
        export.p_next = vk.ExportMemoryWin32HandleInfoKHR(attributes, rights, name)
    info = vk.MemoryAllocateInfo(requirements.size, memory_type, export)
    if buffer is not None:
        info.p_next = vk.MemoryDedicatedAllocateInfo(None, buffer, export)
    lazy_share = bool(types & OPAQUE_WIN32) and name is None and attributes is None and access is None
    try:
        memory, _ = allocating.allocate_in(
            uses,
            device,
            info,
            ArrayTerms(descriptor, lazy_share, pages=pages, replace=replace, keep=kept),
            resource=buffer,
        )
    except BaseException:
        if buffer is not None:
            buffer.close()
        raise
    return memory
