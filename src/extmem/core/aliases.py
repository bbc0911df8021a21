"""A name for a part of a payload: another payload of the same memory, with a descriptor of its own.

How this works. The object manager identifies a payload by the list of its files. The alias has the files of the memory,
and a table page of its own, which contains the layout again; so it is another payload there, with its own name, rights
and lifetime. Its descriptor has the part: offset, size and array. Who opens it maps the same memory, all of it: the
name of a part protects the rest from nobody. On Windows memory of the host keeps the name and the description
that it was created with, and a driver's memory its name: only a part of the latter is shared there, without a name.
"""

from __future__ import annotations

import msgspec

from extmem.core import companion_pages, exporting, opening
from extmem.core.companion_pages import CompanionPages
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.core.sharing_arrays import How
from extmem.errors import UnsupportedError
from extmem.handles import Access, HandleEntry
from extmem.manager import Reference, manager
from extmem.objects import Share
from extmem.sharing import table
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.kinds import Backing, PageRole
from extmem.sharing.table import Entry, Table

__all__ = ["share_part"]


def share_part(record: MemoryRecord, array: ArrayInfo, offset: int, size: int, how: How) -> HeldMemory:
    """Share a part of a payload. Return new memory of it, on the same device; the name ends with its last holder.

    offset, size: bytes of the payload that the array takes. The caller holds the record.
    Errors: NameTakenError, NameInvalidError; UnsupportedError for memory without a file, and on Windows for memory of
    the host and for a name.
    """
    owner = record.manager or manager()
    backing = record.device.backend.payload_backing
    if not owner.has_broker and (how.name is not None or backing is Backing.HOST_FILE):
        named = f" as {how.name!r}" if how.name is not None else ""
        raise UnsupportedError(
            f"on Windows memory keeps the name and the description that it was created with, so a part of it cannot be "
            f"shared{named}; share the memory by name, and take the part where it is opened: extmem.open(name)[2:5]; "
            "or send the part, which can be pickled; or share a copy: extmem.share(part, copy=True)",
            requires_one_of=["the whole memory", "pickle", "copy=True"],
        )
    kept = record.pages.owners() if record.pages is not None else []
    entry = Entry("", array.dtype, array.shape, 0, size, array.strides)
    own = companion_pages.create({PageRole.TABLE: table.encode(Table((entry,), 1))})
    pages = CompanionPages.of([*(page for page in kept if page[0] is not PageRole.TABLE), *own.owners()])
    rights, attributes = exporting.high_level_access(how.access, how.name)
    descriptor = msgspec.structs.replace(
        record.descriptor,
        payload_offset=record.descriptor.payload_offset + offset,
        payload_size=max(size, 1),
        array=array,
        image=None,
        read_only=record.descriptor.read_only or not rights & (Access.WRITE | Access.ALL),
        pages=pages.roles,
    )
    reference = Reference(owner)
    try:
        handles = exporting.PayloadHandles(record)
        try:
            owner.export(
                handles.numbers,
                descriptor.encode(),
                share=Share.NT,
                name=how.name,
                access=rights,
                sddl=attributes.security_descriptor if attributes is not None else None,  # type: ignore[arg-type]
                inherit=False,
                strict_kmt=record.device.strict_kmt,
                backing=backing,
                identity=record.allocation.stated_identity,
                pages=pages.exported(),
                reference=reference,
                replace=how.replace,
                keep=how.keep,
            )
        finally:
            handles.close()
        # By a handle, which has an owner: a ticket would keep the part for a minute after an exception.
        handle = HandleEntry(owner)
        try:
            owner.get_handle(reference.number, handle)
            imported = owner.import_by_handle(handle.value, Reference(owner))
        finally:
            handle.close()
        return opening.open_payload(lambda _: record.device, owner, imported, how.name)
    finally:
        reference.give_back()
        pages.close()
