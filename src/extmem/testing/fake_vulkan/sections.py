"""Payloads on Windows: sections, which are shared by the kernel's own handles and names.

How this works. A real driver's payloads are kernel objects of a type of their own, `DxgkSharedResource`. Python cannot
make those, so these are sections, and `SectionObjects` stands between extmem and the kernel while a fake is installed:
it tells a fake's sections from all others by their tag, opens them ignoring case, and translates rights.
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
from extmem.testing.fake_vulkan.tags import DIRTY, GARBAGE, SIZE, Tag, unpack

__all__ = ["CASELESS", "FilePayload", "SectionObjects", "read_tag"]

CASELESS = 0x40
"""OBJ_CASE_INSENSITIVE."""
_LOOK = sections.QUERY | sections.MAP_READ


def read_tag(handle: int) -> Tag | None:
    """What the section behind the handle says of itself; None for what no fake driver made. Never raises for what it
    finds, and needs no rights: a driver reaches its memory whatever a handle allows.
    """
    try:
        if calls.type_of(handle) != "Section":
            return None
        looking = calls.duplicate(handle, _LOOK)
    except StatusError:
        return None
    try:
        found = sections.facts(looking)
        return unpack(sections.peek(looking, found.size - sections.PAGE, SIZE)) if found.anonymous else None
    except StatusError:
        return None
    finally:
        calls.close_handle(looking)


class SectionObjects(driver_memory.DriverObjects):
    """A fake driver's kernel objects."""

    def kind_of(self, value: int) -> str:
        """`DxgkSharedResource` for a fake's payload, else what the kernel says."""
        kind = super().kind_of(value)
        return MEMORY.name if kind == "Section" and read_tag(value) is not None else kind

    def open_named(self, path: str, access: int, flags: int = 0) -> int:
        """See `DriverObjects`. Access 0 is refused where the name exists, and a section of another maker (B11, B18)."""
        found = sections.open_named(path, access or sections.QUERY, flags | CASELESS)
        if read_tag(found) is None or not access:
            calls.close_handle(found)
            raise StatusError(Status.ACCESS_DENIED if not access else Status.OBJECT_TYPE_MISMATCH)
        return found

    def to_kernel(self, mask: int) -> int:
        """As a section's rights."""
        return rights.to_section(mask)

    def from_kernel(self, granted: int) -> int:
        """From a section's rights."""
        return rights.from_section(granted)


class FilePayload:
    """A section. Owns its handle, `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls, tag: Tag, path: str | None = None, security: int = 0) -> FilePayload:
        """New memory, full of garbage as a driver's may be. Errors: OSError, StatusError for a name that it cannot get.

        path: the full path of its name; None for none. security: the address of a security descriptor, 0 for the
        default.
        """
        whole = -(-tag.size // sections.PAGE) * sections.PAGE
        try:
            handle = sections.create(whole + sections.PAGE, path, security, CASELESS)
        except StatusError as error:
            if path is None:
                raise OSError(str(error)) from error
            raise
        made = cls(handle)
        dirty = bytes([GARBAGE]) * min(tag.size, DIRTY)
        made.write(0, dirty)
        made.write(tag.size - len(dirty), dirty)
        sections.poke(handle, whole, tag.pack())
        return made

    def _room(self) -> int:
        return sections.facts(self.fd).size

    def read(self, offset: int, size: int) -> bytes:
        """See `Payload`. Bytes past the end of too short a section are zero, where a real device would fault."""
        there = max(0, min(size, self._room() - offset))
        return (sections.peek(self.fd, offset, there) if there else b"").ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """See `Payload`. What is past the end of too short a section is lost."""
        room = max(0, self._room() - offset)
        if room and data:
            sections.poke(self.fd, offset, data[:room])

    def map(self, size: int) -> tuple[int, object]:
        """See `Payload`. Errors: OSError for too short a section. Read-only where the handle allows no more."""
        writable = bool(calls.basic(self.fd).granted & sections.MAP_WRITE)
        mapping = host.map_file(self.fd, size, writable)
        return mapping.address, mapping

    def close(self) -> None:
        """See `Payload`."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            calls.close_handle(fd)
