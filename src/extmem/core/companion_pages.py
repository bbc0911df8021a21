"""The companion pages of memory in this process: made for a new payload, given to its export, found at its import.

How this works. A descriptor lists the roles of its payload's pages, in their order (`Descriptor.pages`); the object
manager carries the pages beside the payload. A page with final contents (TABLE) is read-only to everybody. A page of
counters (CONTROL) may be written by importers with the right to change the payload, and the kernel enforces it.

`CompanionPages` belongs to a memory record. It holds the files of the pages until the record is released. All imports
of a payload in this process have the same files, so each page is mapped once, whatever the number of imports: the file
refers to the mapping, and the mapping ends with its last user.

A payload that came by file descriptor has no pages, since a descriptor is one file.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from extmem.devices.host import late
from extmem.errors import DescriptorError, HandleStateError
from extmem.sharing import control_page
from extmem.sharing.kinds import PageRole
from extmem.sharing.payload import Page, PayloadFd

if TYPE_CHECKING:
    from extmem.devices.host.system import FileMapping
    from extmem.owning import OwnedFd

__all__ = ["CompanionPages", "counting", "create", "new_control_page", "of_import"]

_FINAL = frozenset((PageRole.TABLE,))
"""The roles of pages that nobody writes to after the export."""


class _File:
    """One page: its file, a hold on it, and the mapping once there is one."""

    __slots__ = ("hold", "mapping", "owner", "writable")

    def __init__(self, owner: OwnedFd, writable: bool) -> None:
        self.hold: memoryview | None = owner.hold()
        self.owner = owner
        self.writable = writable
        self.mapping: FileMapping | None = None


class CompanionPages:
    """The pages of one payload. Ownership: released by `close`, or when it is garbage-collected.

    Threads: every method may be called from any thread; the record is held meanwhile.
    """

    __slots__ = ("_files", "table")

    def __init__(self, pages: Sequence[tuple[PageRole, OwnedFd, bool]]) -> None:
        """pages: for each one its role, its file, and whether this process may write to it. Errors: HandleStateError
        if a file is closed.
        """
        self._files: dict[PageRole, _File] = {role: _File(owner, writable) for role, owner, writable in pages}
        self.table: Any = None
        """The table, once `core.tables` has read and checked it."""

    def owners(self) -> list[tuple[PageRole, OwnedFd, bool]]:
        """Return role, file, and whether it may be written, of each page, as the constructor takes them."""
        return [(role, file.owner, file.writable) for role, file in list(self._files.items())]

    @property
    def roles(self) -> tuple[int, ...]:
        """The roles of the pages in their order, as a descriptor lists them."""
        return tuple(map(int, self._files))

    def __contains__(self, role: PageRole) -> bool:
        return role in self._files

    def exported(self) -> tuple[Page, ...]:
        """Return the pages for `Manager.export`. The numbers are borrowed."""
        return tuple(
            Page(file.owner.fd, role is PageRole.LIFELINE, by_rights=role is PageRole.CONTROL)
            for role, file in list(self._files.items())
        )

    def file(self, role: PageRole) -> OwnedFd:
        """Return the owner of the file of a page, borrowed. Errors: as `is_writable`."""
        return self._file(role).owner

    def is_writable(self, role: PageRole) -> bool:
        """Return whether this process may write to the page. Errors: HandleStateError without this page."""
        return self._file(role).writable

    def size(self, role: PageRole) -> int:
        """Return the bytes of the page, whole pages of the system. Errors: as `is_writable`."""
        return late.system.page_file_size(self._file(role).owner.fd)

    def read(self, role: PageRole, limit: int) -> bytes:
        """Return a private copy of the page, which nobody else can change.

        limit: DescriptorError for a larger page, of which nothing is read then. Other errors: as `is_writable`;
        OutOfMemoryError.
        """
        size = self.size(role)
        if size > limit:
            raise DescriptorError(
                f"the page {role.name} of the payload has {size} bytes, and at most {limit} are read; its exporter "
                "wrote it: export the payload anew"
            )
        return late.system.read_page_file(self._file(role).owner.fd, size)

    def map(self, role: PageRole) -> FileMapping:
        """Return the page, mapped; read-only unless `is_writable`. It stays mapped as long as the result is alive.

        Errors: as `is_writable`; OutOfMemoryError.
        """
        file = self._file(role)
        mapping = file.mapping
        if mapping is None:
            shared = file.owner.mapping
            mapping = shared() if shared is not None else None
            if mapping is None:
                mapping = late.system.map_file(file.owner.fd, self.size(role), file.writable)
                file.owner.mapping = ref(mapping)
            file.mapping = mapping
        return mapping

    def is_sealed(self, role: PageRole) -> bool:
        """Return whether the kernel lets nobody write to the page any more. Errors: as `is_writable`."""
        return late.system.is_sealed(self._file(role).owner.fd)

    def seal(self, role: PageRole) -> bool:
        """Let nobody write to the page any more. Return False if somebody has mapped it for writing.

        The caller ensures that nothing of this process uses its mapping, which ends here. Errors: as `is_writable`;
        OSError.
        """
        file = self._file(role)
        file.mapping = None
        if not late.system.seal(file.owner.fd):
            return False
        file.writable = False
        return True

    def close(self) -> None:
        """End the holds. A file is closed when no other import holds it. Safe to call twice."""
        self._files.clear()
        self.table = None

    def _file(self, role: PageRole) -> _File:
        file = self._files.get(role)
        if file is None:
            raise HandleStateError(
                f"this memory has no page {role.name}: it was closed, its exporter made none, or it came by file "
                "descriptor, which does not carry pages; open it by name, NT handle or pickle"
            )
        return file


def create(contents: Mapping[PageRole, bytes | memoryview], sddl: str | None = None) -> CompanionPages:
    """Make the pages of a new payload, in this order. Pages are rounded up to whole pages of the system.

    contents: the first bytes of each page; all bytes of a page that is final. sddl: the security of the payload.
    Errors: OutOfMemoryError; nothing was created then.
    """
    made = []
    for role, first_bytes in contents.items():
        final = role in _FINAL
        made.append((role, late.system.create_page_file(first_bytes, final=final, sddl=sddl), not final))
    return CompanionPages(made)


def counting(sddl: str | None = None) -> CompanionPages:
    """Return the control page of a new payload, alone. Errors: as `create`."""
    return create({PageRole.CONTROL: new_control_page(0)}, sddl)


def new_control_page(arrays: int) -> bytes:
    """Return the contents of a control page for so many named arrays."""
    return control_page.new(arrays, secrets.token_bytes(control_page.ID_SIZE))


def of_import(roles: Sequence[int], payload: PayloadFd) -> CompanionPages | None:
    """Return the pages that came with a payload; None if they did not come.

    roles: those in its descriptor. The payload is borrowed; the pages stay valid after its end.
    """
    owners = payload.page_owners
    if not owners or len(owners) != len(roles):
        return None
    found = zip(map(PageRole, roles), owners, strict=True)
    # Windows opens all pages with the rights of the importer.
    return CompanionPages([(role, owner, writable and role not in _FINAL) for role, (owner, writable) in found])
