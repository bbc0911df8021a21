"""A payload's files in this process: each is open once, however many imports use it.

On Windows a payload's file is the HANDLE of its section.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from extmem.errors import HandleStateError
from extmem.owning import OwnedFd
from extmem.vk.handle_types import MemoryHandleType

__all__ = ["FilesAgain", "Page", "PayloadFd", "Win32Payload"]


class Page(msgspec.Struct, frozen=True):
    """A companion page of a payload, such as a table or a control page: a small sealed memory file."""

    handle: int
    """Its file descriptor, borrowed."""
    writable: bool
    """Whether importers may write to it: every importer whatever its rights on the payload are, unless `by_rights`. Of
    a page that was imported: whether this process may."""
    by_rights: bool = False
    """Whether it is writable only for importers whose rights on the payload include the right to change it."""


class FilesAgain(Protocol):
    """An import whose file descriptors were closed, since it can export new ones."""

    @property
    def alive(self) -> bool:
        """Whether it still exists."""

    def fds(self) -> list[OwnedFd]:
        """Return new ones, which the caller owns; an empty list once it has ended. Errors: those of the driver."""


class PayloadFd:
    """The hold of one import on the files of its payload.

    Ownership: the descriptors are borrowed, valid until `close` (or the loss of this object). Other imports of the
    payload in this process may share them.
    """

    __slots__ = ("_holds", "_page_modes", "_rest", "shared", "writable")

    def __init__(
        self, shared: OwnedFd, writable: bool, rest: Sequence[OwnedFd] = (), page_modes: Sequence[int] = ()
    ) -> None:
        """shared: the owner of the first handle; rest: those of the others. page_modes: for each companion page, which
        are the last handles, the mode in which it was opened: 1 read-only, 2 writable.
        """
        self._holds: list[memoryview] | None = list(map(OwnedFd.hold, (shared, *rest)))
        self._rest = rest
        self._page_modes = page_modes
        self.shared: OwnedFd | None = shared
        """The owner of the first handle; None once closed. Not for users."""
        self.writable = writable
        """Whether it was opened for writing: the kernel refuses writable mappings otherwise (host payloads)."""

    @property
    def fd(self) -> int:
        """The first descriptor, to be used but not closed. HandleStateError once closed."""
        shared = self.shared
        if shared is None:
            raise HandleStateError("this payload's descriptor is closed; import the payload again")
        return shared.fd

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors of all handles, companion pages aside, in the order of the export; as `fd`."""
        data = 1 + len(self._rest) - len(self._page_modes)
        return (self.fd, *(one.fd for one in self._rest))[:data]

    @property
    def pages(self) -> tuple[Page, ...]:
        """The companion pages; as `fd`."""
        first = self.fd  # raises once closed
        fds = (first, *(one.fd for one in self._rest))[1 + len(self._rest) - len(self._page_modes) :]
        return tuple(Page(fd, mode == 2) for fd, mode in zip(fds, self._page_modes, strict=True))

    def page_files(self) -> tuple[Sequence[OwnedFd], Sequence[int], list[memoryview]]:
        """Return the owners of the companion pages, their modes, and the holds on them, for code that keeps them longer
        than this hold; nothing once closed.
        """
        holds, count = self._holds, len(self._page_modes)
        if holds is None or not count:
            return (), (), []
        return self._rest[-count:], self._page_modes, holds[-count:]

    def fileno(self) -> int:
        """`fd`, under the name that `os` functions use."""
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.shared is None

    def close(self) -> None:
        """End the hold. The descriptors are closed when their last user has ended its own. Safe to call twice."""
        self._holds = self.shared = None
        self._rest = ()

    def __repr__(self) -> str:
        state = "closed" if self.shared is None else f"fd {self.shared.fd}"
        return f"<PayloadFd {state}, {'writable' if self.writable else 'read-only'}>"


class Win32Payload(PayloadFd):
    """The hold of one import on a payload that a GPU driver of Windows created. `fd` is an NT handle of it.

    A payload that is shared by KMT number has no handle: `fd` is -1.
    """

    __slots__ = ("handle_type", "name", "number")

    def __init__(
        self,
        shared: OwnedFd,
        writable: bool,
        handle_type: MemoryHandleType,
        number: int = 0,
        name: str | None = None,
        pages: Sequence[OwnedFd] = (),
        page_modes: Sequence[int] = (),
    ) -> None:
        """pages, page_modes: the companion pages, as in `PayloadFd`."""
        super().__init__(shared, writable, pages, page_modes)
        self.handle_type = handle_type
        """What it is to the driver (VkExternalMemoryHandleTypeFlagBits)."""
        self.number = number
        """Its KMT number; 0 for one that has NT handles."""
        self.name = name
        """The name by which the program opened it, as the program spelled it; None for an import by handle or number.
        """
