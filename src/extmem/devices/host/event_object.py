"""What binary semaphores and fences of the host have in common: a permanent payload, and a temporary one for a while.

A temporary payload is in force until the next wait (semaphore) or reset (fence) (S6 to S10).
"""

from __future__ import annotations

from typing import NoReturn

from extmem.devices.fd_copies import copy_of
from extmem.devices.host.sync_errors import no_win32, refusal
from extmem.devices.host.sync_system import Event
from extmem.devices.sync import SyncSource
from extmem.errors import HandleStateError, UnsupportedError
from extmem.owning import Held, OwnedFd
from extmem.sharing.payload import Page
from extmem.vk.handle_types import SyncHandleType

__all__ = ["EventObject", "source_fd"]


class EventObject(Held):
    """A binary semaphore or a fence. Ownership: until `close`."""

    __slots__ = ("_permanent", "_temporary")

    noun = "semaphore"
    """For messages."""
    sync_fd = 0x10
    """The bit of its handle type SYNC_FD."""
    raw = 0
    """0: there is no driver."""
    stated_identity = 0
    """0: the kernel identifies an eventfd."""

    def __init__(self, permanent: Event) -> None:
        super().__init__()
        self._permanent: Event | None = permanent
        self._temporary: Event | None = None

    @property
    def keeper(self) -> Held:
        """See `NativeSync`."""
        return self

    @property
    def payload(self) -> Event:
        """The payload in force. HandleStateError once closed."""
        payload = self._temporary or self._permanent
        if payload is None:
            raise self.gone()
        return payload

    @property
    def permanent(self) -> Event:
        """The permanent payload. HandleStateError once closed."""
        payload = self._permanent
        if payload is None:
            raise self.gone()
        return payload

    @property
    def temporary(self) -> bool:
        """Whether a temporary payload is in force."""
        return self._temporary is not None

    @property
    def fd(self) -> int:
        """The eventfd or HANDLE, borrowed. HandleStateError once closed."""
        return self.payload.fd

    @property
    def pages(self) -> tuple[Page, ...]:
        """The page that tells of the end of a signaler."""
        return self.payload.pages

    def check_right(self) -> None:
        """Raise AccessDeniedError without the right to signal."""
        self.payload.check_right()

    def import_payload(self, source: SyncSource) -> None:
        """See `NativeSync`. SYNC_FD with -1 is a temporary payload that is signaled."""
        if source.signaled:
            imported = Event.create(True, f"vkImport{self.noun.capitalize()}FdKHR")
        elif source.payload is not None:
            imported = Event.of_import(source.payload, self.noun)
        else:
            imported = Event.of_fd(source_fd(source, self.noun), source.writable)
        self.restore()
        if source.temporary or source.signaled:
            self._temporary = imported
        else:
            before, self._permanent = self._permanent, imported
            if before is not None:
                before.let_go()

    def restore(self) -> None:
        """End a temporary import."""
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            temporary.let_go()

    def export_fd(self, handle_type: SyncHandleType) -> OwnedFd | None:
        """See `NativeSync`. SYNC_FD: None of a signaled payload, which is consumed; others have no such fd."""
        payload = self.payload
        if handle_type != self.sync_fd:
            return copy_of(payload.fd)
        if not payload.consume():
            raise UnsupportedError(
                f"the host device exports a {self.noun} as SYNC_FD only while it is signaled, as fd -1: it has no "
                "files of pending signals; signal it first, or export it as OPAQUE_FD",
                requires_one_of=["OPAQUE_FD"],
            )
        self.restore()
        return None

    def export_win32(self, handle_type: SyncHandleType) -> NoReturn:
        """Raise UnsupportedError: this system has no HANDLEs; the object manager shares the fd."""
        raise no_win32()

    def close(self) -> None:
        """See `NativeSync`."""
        self.end()

    def give_back(self) -> None:
        """See `Held`. The files are closed when the methods that use them have ended."""
        for payload in (self._permanent, self._temporary):
            if payload is not None:
                payload.let_go()
        self._permanent = self._temporary = None

    def gone(self) -> Exception:
        """See `Held`."""
        return HandleStateError(f"this {self.noun} is closed; create or import another one")


def source_fd(source: SyncSource, noun: str) -> int:
    """Return the examined fd of an import. Errors: DriverError, UnsupportedError for handles and names."""
    examined = source.fd
    if examined is None:
        raise UnsupportedError(
            f"the host device imports a {noun} by fd, or through the object manager; it has no driver to whom a name "
            "or HANDLE could be given",
            requires_one_of=["OPAQUE_FD"],
        )
    if examined.problem:
        raise refusal(examined.problem, noun)
    return examined.fd
