"""Memory that is shared once it has its contents: allocate, fill, publish.

How this works. A name appears after the last byte is written, so the memory is allocated without a share, and the
object manager hears of it at the end. Where the system names memory at its creation (Windows), it has the name from the
beginning, and gets its description at the end: without it nobody can open the memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from extmem import vk
from extmem.core import (
    allocating,
    arguments,
    companion_pages,
    creating,
    describing,
    everyday_names,
    exporting,
    memory_types,
    naming,
    rule_facts,
)
from extmem.core.allocating import ArrayTerms
from extmem.core.device_state import DeviceState
from extmem.core.memory_object import MemoryObject
from extmem.core.memory_record import HeldMemory
from extmem.errors import UnsupportedError
from extmem.handles import Access
from extmem.manager import ShareTerms
from extmem.owning import Uses
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.keeping import Keep
from extmem.sharing.kinds import PageRole
from extmem.vk.handle_types import OPAQUE_FD, OPAQUE_WIN32, union

__all__ = ["How", "Unpublished", "allocate", "how", "publish"]

_USUAL = union(OPAQUE_WIN32, OPAQUE_FD)
_USAGE = (
    vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST | vk.BufferUsageFlagBits.STORAGE_BUFFER
)


class How(msgspec.Struct, frozen=True):
    """How something is shared; made by `how`."""

    name: str | None
    access: int
    """The rights that others get."""
    keep: Keep
    replace: bool


def how(name: str | None, access: int | None, keep: object = None, replace: bool = False) -> How:
    """Return the checked arguments of a call that shares. access: None is `Access.READ`.

    Errors: TypeError, ValueError; NameInvalidError; UnsupportedError for `keep` and `replace` on Windows.
    """
    text, rights = everyday_names.everyday_name(name), arguments.access_of(Access.READ if access is None else access)
    kept = naming.keep_of(keep)
    arguments.check_share(text, rights)
    naming.refuse_terms(text, replace, kept)
    return How(text, rights, kept, replace)


class Unpublished(msgspec.Struct, frozen=True):
    """Memory that nobody else can open yet, and the terms on which `publish` shares it."""

    memory: HeldMemory
    terms: ShareTerms


def allocate(
    device: DeviceState,
    uses: Uses,
    size: int,
    how: How,
    *,
    array: ArrayInfo | None = None,
    pages: Mapping[PageRole, bytes] | None = None,
    stamps: int = 0,
) -> Unpublished:
    """Return new memory of `size` bytes, set to zero, with the contents of its companion pages.

    uses: hold the device. array: the array in it, for the descriptor. stamps: how many named arrays are in it, for the
    control page.
    Errors: UnsupportedError for a device that exports nothing to the object manager; OutOfMemoryError; on Windows
    those of the name.
    """
    sharing = rule_facts.sharing(device, _USUAL)
    types = sharing.exportable
    if not types & OPAQUE_WIN32:
        obstacle = exporting.export_obstacle(device, OPAQUE_WIN32)
        raise UnsupportedError(
            f"this is to be shared, and {obstacle}; take another device (extmem.open_device(kind='host') shares "
            "everywhere)",
            requires_one_of=["a device that exports OPAQUE_WIN32", "the host device"],
        )
    create = vk.BufferCreateInfo(
        size=size,
        usage=_USAGE,
        p_next=vk.ExternalMemoryBufferCreateInfo(vk.ExternalMemoryHandleTypeFlagBits(int(types))),
    )
    requirements = device.backend.buffer_requirements(create)
    memory_type = memory_types.choose(device, requirements.memory_type_bits)
    dedicated = requirements.requires_dedicated or bool(sharing.dedicated_only & types)
    buffer = creating.create_buffer(device, create) if dedicated else None
    try:
        rights, attributes = exporting.high_level_access(how.access, how.name)
        stated = vk.ExportMemoryWin32HandleInfoKHR(attributes, rights, how.name)
        terms = exporting.terms_of(types, stated)
        if terms is None:  # pragma: no cover  (types contain OPAQUE_WIN32)
            raise UnsupportedError("no handle type with a name is exported", requires_one_of=["OPAQUE_WIN32"])
        if how.name is not None:
            terms = msgspec.structs.replace(terms, replace=how.replace, keep=how.keep)
        contents = dict(pages or {})
        if contents or describing.needs_control_page(device):
            contents[PageRole.CONTROL] = companion_pages.new_control_page(stamps)
        made = companion_pages.create(contents, terms.sddl) if contents else None
        descriptor = describing.describe(
            device,
            requirements.size,
            memory_type,
            types,
            buffer,
            payload_size=size,
            array=array,
            usage=int(_USAGE),
            read_only=not rights & (Access.WRITE | Access.ALL),
            pages=made.roles if made is not None else (),
        )
        export = vk.ExportMemoryAllocateInfo(vk.ExternalMemoryHandleTypeFlagBits(int(types)))
        info = vk.MemoryAllocateInfo(requirements.size, memory_type, export)
        if buffer is not None:
            info.p_next = vk.MemoryDedicatedAllocateInfo(None, buffer, export)
        array_terms = ArrayTerms(
            descriptor,
            True,
            pages=made,
            terms=msgspec.structs.replace(terms, late=True) if how.name is not None else None,
        )
        memory, _ = allocating.allocate_in(uses, device, info, array_terms, resource=buffer)
    except BaseException:
        if buffer is not None:
            buffer.close()
        raise
    if not device.backend.allocates_zeroed:
        whole = memory.record.size if buffer is None else size
        try:
            device.backend.fill(memory.record.allocation, 0, whole, 0)
        except BaseException:
            MemoryObject(*memory).close()
            raise
    return Unpublished(memory, terms)


def publish(made: Unpublished) -> None:
    """Share the memory, whose contents are complete: from here on others can open it.

    Errors: NameTakenError, NameInvalidError, AccessDeniedError …; it is not shared then.
    """
    exporting.publish(made.memory.record, made.terms)
