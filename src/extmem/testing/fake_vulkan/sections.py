"""Payloads on Windows: sections, which are shared by handles and names of the kernel.

How this works. A real driver's payloads are kernel objects of a type of their own, `DxgkSharedResource`. Python cannot
make those, so these are sections, and while a fake is installed extmem calls the kernel through `SectionObjects`: it
recognizes a fake's sections by their tag, opens them by name in any case, and translates rights.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("sections are Windows's; on Linux the fake driver shares memory files")

from extmem.devices import host
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.manager.windows import driver_memory, rights
from extmem.objects import MEMORY, Status
from extmem.sharing.kinds import ObjectKind
from extmem.testing.fake_vulkan.tags import DIRTY, GARBAGE, SIZE, SYNC_MAGIC, SYNC_SIZE, Tag, unpack

__all__ = ["CASELESS", "FilePayload", "SectionObjects", "read_tag"]

CASELESS = 0x40
"""OBJ_CASE_INSENSITIVE."""
_READ = sections.QUERY | sections.MAP_READ


def read_tag(handle: int) -> Tag | None:
    """Return the tag of the section behind the handle; None if no fake driver made it. Raises no error for any handle.

    The handle needs no rights, because a driver accesses its memory whatever rights a handle has.
    """
    try:
        if calls.type_of(handle) != "Section":
            return None
        readable = calls.duplicate(handle, _READ)
    except StatusError:
        return None
    try:
        facts = sections.facts(readable)
        return unpack(sections.peek(readable, facts.size - sections.PAGE, SIZE)) if facts.anonymous else None
    except StatusError:
        return None
    finally:
        calls.close_handle(readable)


def is_sync(handle: int) -> bool:
    """Return whether a section is the page of a fake's semaphore or fence."""
    try:
        readable = calls.duplicate(handle, _READ)
    except StatusError:
        return False
    try:
        return sections.facts(readable).size == SYNC_SIZE and sections.peek(readable, 0, len(SYNC_MAGIC)) == SYNC_MAGIC
    except StatusError:
        return False
    finally:
        calls.close_handle(readable)


class SectionObjects(driver_memory.DriverObjects):
    """A fake driver's kernel objects."""

    def kind_of(self, value: int) -> str:
        """Return `DxgkSharedResource` for a fake's memory, `DxgkSharedSyncObject` for its semaphores and fences,
        otherwise the kernel's type name.
        """
        kind = super().kind_of(value)
        if kind != "Section":
            return kind
        if read_tag(value) is not None:
            return MEMORY.name
        return driver_memory.SYNC_TYPE if is_sync(value) else kind

    def open_named(self, path: str, access: int, flags: int = 0, kind: ObjectKind = ObjectKind.MEMORY) -> int:
        """See `DriverObjects`. Access 0 to an existing name, and sections that no fake made, are refused (B11, B18)."""
        handle = sections.open_named(path, access or sections.QUERY, flags | CASELESS)
        known = read_tag(handle) is not None if kind is ObjectKind.MEMORY else is_sync(handle)
        if not known or not access:
            calls.close_handle(handle)
            raise StatusError(Status.ACCESS_DENIED if not access else Status.OBJECT_TYPE_MISMATCH)
        return handle

    def to_kernel(self, mask: int, kind: ObjectKind = ObjectKind.MEMORY) -> int:
        """Return the mask as rights of a section."""
        return (rights.MEMORY_SECTION if kind is ObjectKind.MEMORY else rights.TIMELINE).to_kernel(mask)

    def from_kernel(self, granted: int, kind: ObjectKind = ObjectKind.MEMORY) -> int:
        """Return the rights of a section as those of an object of this kind."""
        return (rights.MEMORY_SECTION if kind is ObjectKind.MEMORY else rights.TIMELINE).from_kernel(granted)


class FilePayload:
    """A section. Owns its handle, `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls, tag: Tag, path: str | None = None, security: int = 0) -> FilePayload:
        """Make new memory with arbitrary contents, as a driver may.

        path: the full path of its name; None for none. security: the address of a security descriptor; 0 for the
            default one.
        Errors: OSError; StatusError for a name that it cannot have.
        """
        whole = -(-tag.size // sections.PAGE) * sections.PAGE
        try:
            handle = sections.create(whole + sections.PAGE, path, security, CASELESS)
        except StatusError as error:
            if path is None:
                raise OSError(str(error)) from error
            raise
        payload = cls(handle)
        dirty = bytes([GARBAGE]) * min(tag.size, DIRTY)
        payload.write(0, dirty)
        payload.write(tag.size - len(dirty), dirty)
        sections.poke(handle, whole, tag.pack())
        return payload

    def _room(self) -> int:
        return sections.facts(self.fd).size

    def read(self, offset: int, size: int) -> bytes:
        """See `Payload`. Bytes past the end of a section that is too short are zero; a real device would fault."""
        existing = max(0, min(size, self._room() - offset))
        return (sections.peek(self.fd, offset, existing) if existing else b"").ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """See `Payload`. Bytes past the end of a section that is too short are lost."""
        room = max(0, self._room() - offset)
        if room and data:
            sections.poke(self.fd, offset, data[:room])

    def map(self, size: int) -> tuple[int, object]:
        """See `Payload`. The mapping is read-only if the handle has no right to write. Errors: OSError."""
        writable = bool(calls.basic(self.fd).granted & sections.MAP_WRITE)
        mapping = host.map_file(self.fd, size, writable)
        return mapping.address, mapping

    def close(self) -> None:
        """See `Payload`."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            calls.close_handle(fd)
