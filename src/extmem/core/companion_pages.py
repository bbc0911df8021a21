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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from extmem.devices.host import late
from extmem.errors import DescriptorError, HandleStateError
from extmem.owning import OwnedFd, late_imports
from extmem.sharing.kinds import PageRole
from extmem.sharing.payload import Page, PayloadFd

if TYPE_CHECKING:
    from extmem.devices.host.system import FileMapping

__all__ = ["CompanionPages", "counting", "create", "new_control_page", "of_import"]

_FINAL = frozenset((PageRole.TABLE,))
"""The roles of pages that nobody writes to after the export."""


class _File:
    """One page: its file, which the pages hold, and the mapping once there is one."""

    __slots__ = ("mapping", "owner", "writable")

    def __init__(self, owner: OwnedFd, writable: bool) -> None:
        self.owner = owner
        self.writable = writable
        self.mapping: FileMapping | None = None


class CompanionPages:
    """The pages of one payload. Ownership: released by `close`, or when it is garbage-collected.

    Threads: every method may be called from any thread; the record is held meanwhile.
    """

    __slots__ = ("_holds", "_made", "_modes", "_owners", "roles", "table")

    def __init__(
        self,
        roles: Sequence[int],
        owners: Sequence[OwnedFd],
        modes: Sequence[int],
        holds: list[memoryview] | None = None,
    ) -> None:
        """For each page its role, its file, and its mode: 1 read-only, 2 writable unless its contents are final.

        holds: those on the files; None to hold them now. Errors: HandleStateError if a file is closed.
        """
        self._holds = [owner.hold() for owner in owners] if holds is None else holds
        self._owners = owners
        self._modes = modes
        self._made: dict[PageRole, _File] | None = None
        self.roles: tuple[int, ...] = tuple(roles)
        """The roles of the pages in their order, as a descriptor lists them."""
        self.table: Any = None
        """The table, once `core.tables` has read and checked it."""

    @classmethod
    def of(cls, pages: Sequence[tuple[PageRole, OwnedFd, bool]]) -> CompanionPages:
        """Return the pages of which each has this role, this file, and whether this process may write to it."""
        return cls([int(one[0]) for one in pages], [one[1] for one in pages], [1 + one[2] for one in pages])

    @property
    def _files(self) -> dict[PageRole, _File]:
        # Made at the first use, since most programs that open a payload use no page of it.
        made = self._made
        if made is None:
            columns = zip(map(PageRole, self.roles), self._owners, self._modes, strict=True)
            made = {role: _File(owner, mode == 2 and role not in _FINAL) for role, owner, mode in columns}
            self._made = made
        return made

    def owners(self) -> list[tuple[PageRole, OwnedFd, bool]]:
        """Return role, file, and whether it may be written, of each page, as `of` takes them."""
        return [(role, file.owner, file.writable) for role, file in list(self._files.items())]

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
        return late.page_system.page_file_size(self._file(role).owner.fd)

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
        return late.page_system.read_page_file(self._file(role).owner.fd, size)

    def map(self, role: PageRole) -> FileMapping:
        """Return the page, mapped; read-only unless `is_writable`. It stays mapped as long as the result is alive.

        Errors: as `is_writable`; DescriptorError for a file without a whole page; OutOfMemoryError.
        """
        file = self._file(role)
        mapping = file.mapping
        if mapping is None:
            shared = file.owner.mapping
            mapping = shared() if shared is not None else None
            if mapping is None:
                size = self.size(role)
                if not size:
                    raise DescriptorError(
                        f"the page {role.name} of the payload is too small for one; its exporter made it: export the "
                        "payload anew"
                    )
                mapping = late.system.map_file(file.owner.fd, size, file.writable)
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

    def look_at_seal(self, role: PageRole) -> bool:
        """Return whether the page is sealed, and record it: an exception may come between the seal and its record.

        Errors: as `is_writable`.
        """
        sealed = self.is_sealed(role)
        if sealed:
            file = self._file(role)
            file.mapping, file.writable = None, False
        return sealed

    def close(self) -> None:
        """End the holds. A file is closed when no other import holds it. Safe to call twice."""
        self._made = {}
        self._owners = self._modes = ()
        self._holds = []
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
        made.append((role, late.page_system.create_page_file(first_bytes, final=final, sddl=sddl), not final))
    return CompanionPages.of(made)


def counting(sddl: str | None = None) -> CompanionPages:
    """Return the control page of a new payload, alone. Errors: as `create`."""
    return create({PageRole.CONTROL: new_control_page(0)}, sddl)


def new_control_page(arrays: int) -> bytes:
    """Return the contents of a control page for so many named arrays."""
    with late_imports():
        import secrets

        from extmem.sharing import control_page

    return control_page.new(arrays, secrets.token_bytes(control_page.ID_SIZE))


def of_import(roles: Sequence[int], payload: PayloadFd) -> CompanionPages | None:
    """Return the pages that came with a payload; None if they did not come.

    roles: those in its descriptor. The payload is borrowed; the pages stay valid after its end.
    """
    owners, modes, holds = payload.page_files()
    if not owners or len(owners) != len(roles):
        return None
    return CompanionPages(roles, owners, modes, holds)
