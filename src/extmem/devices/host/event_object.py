"""What binary semaphores and fences of the host have in common: a permanent payload, and a temporary one for a while.

A temporary payload is in force until the next wait (semaphore) or reset (fence) (S6 to S10).
"""

from __future__ import annotations

import sys
from typing import NoReturn

from extmem import vk
from extmem.devices.fd_copies import copy_of
from extmem.devices.host import sync_check
from extmem.devices.host.event import Event
from extmem.devices.host.physical import host_identity
from extmem.devices.host.timeline_page import open_page
from extmem.devices.sync import SyncSource
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.owning import Held, OwnedFd
from extmem.sharing.payload import Page, PayloadFd
from extmem.vk.handle_types import SyncHandleType

if sys.platform != "linux":
    raise ImportError("an eventfd is Linux's; extmem.devices.host picks what the platform has")

__all__ = ["EventObject", "no_win32", "refusal", "source_fd"]


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
        """The eventfd, borrowed. HandleStateError once closed."""
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
            imported = _event_of(source.payload, self.noun)
        else:
            fd = source_fd(source, self.noun)
            imported = Event(copy_of(fd), writable=source.writable)
        if source.temporary or source.signaled:
            self._temporary = imported
        else:
            self._permanent, self._temporary = imported, None

    def restore(self) -> None:
        """End a temporary import."""
        self._temporary = None

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
        self._permanent = self._temporary = None

    def gone(self) -> Exception:
        """See `Held`."""
        return HandleStateError(f"this {self.noun} is closed; create or import another one")


def _event_of(payload: PayloadFd, noun: str) -> Event:
    """Return the event of an import through the object manager, examined: other processes supplied its files."""
    examined = sync_check.examine_event(payload.fd)
    if examined.problem:
        raise refusal(examined.problem, noun)
    for page in payload.pages:
        found = sync_check.examine_page(page.handle)
        if found.problem:
            raise refusal(f"its companion page is refused: {found.problem}", noun)
        return Event(payload, open_page(copy_of(page.handle), page.writable and found.writable))
    return Event(payload)


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


def refusal(problem: str, noun: str) -> DriverError:
    """Return the error to raise for an import that is refused."""
    command = f"vkImport{noun.capitalize()}FdKHR"
    return DriverError(
        f"{command}: VK_ERROR_INVALID_EXTERNAL_HANDLE: {problem}",
        result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
        command=command,
        devices=[host_identity().device_name],
    )


def no_win32() -> UnsupportedError:
    """Return the error to raise where a HANDLE of a driver is asked for."""
    return UnsupportedError(
        "the host device has no driver that makes HANDLEs; on this system the object manager shares the fd",
        requires_one_of=["the object manager"],
    )
