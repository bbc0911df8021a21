"""`Event`: the payload of a binary semaphore or a fence of the host, an eventfd: signaled while it can be read.

How this works. A signal writes the greatest number that an eventfd can hold. The kernel refuses a second one until the
first was consumed, and a read consumes it: both are atomic, whichever processes do them, and whoever is killed. The
eventfd does not block, and is polled.

An eventfd has no read-only form, so the rights of its importers are known to the library only. The end of a signaler is
told by a companion page (`sharing.timeline_page`), which is made when the payload is shared.

An event is not closed: its file is closed when the last reference to it ends. So a method that runs in another thread
keeps the file that it uses.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
from typing import Final

from extmem.devices.fd_copies import copy_of
from extmem.devices.host import sync_check
from extmem.devices.host.memfd import out_of_memory
from extmem.devices.host.page_signals import gone_error, lock, no_right
from extmem.devices.host.sync_errors import refusal
from extmem.devices.host.timeline_page import TimelinePage, create_companion_page, open_page
from extmem.owning import OwnedFd
from extmem.sharing.payload import Page, PayloadFd
from extmem.sharing.terms import ShareTerms

if sys.platform != "linux":
    raise ImportError("an eventfd is Linux's; extmem.devices.host picks what the platform has")

__all__ = ["Event", "wait_events"]

_SIGNALED: Final = 2**64 - 2
_FLAGS: Final = os.EFD_CLOEXEC | os.EFD_NONBLOCK
_SLICE_MS = 500
_SLICE_OF_SHARED_MS = 20
"""Longest poll in milliseconds, if a companion page tells of the end of a signaler."""


class Event:
    """An eventfd, and its companion page if it is shared; see the module."""

    __slots__ = ("_file", "_page", "_page_file", "_payload", "writable")

    def __init__(self, source: OwnedFd | PayloadFd, page: TimelinePage | None = None, *, writable: bool = True) -> None:
        """source: the eventfd, or an import's hold on it, which the event owns from now on. page: of an import."""
        self._file = source if isinstance(source, OwnedFd) else source.shared
        self._payload = source if isinstance(source, PayloadFd) else None
        self._page: TimelinePage | None = None
        if page is not None:
            self._use(page)
        self._page_file: OwnedFd | None = None
        self.writable = writable if self._payload is None else self._payload.writable
        """Whether it was imported with the right to signal."""

    @classmethod
    def create(cls, signaled: bool, command: str, terms: ShareTerms | None = None, *, fence: bool = False) -> Event:
        """Create a payload. terms, fence: unused: the object manager names it. Errors: OutOfMemoryError."""
        try:
            made = cls(OwnedFd.of(os.eventfd, 0, _FLAGS))
        except OSError as error:
            raise out_of_memory(error, command, "an eventfd") from error
        if signaled:
            os.eventfd_write(made.fd, _SIGNALED)
        return made

    @classmethod
    def of_import(cls, payload: PayloadFd, noun: str) -> Event:
        """Return the event of an import through the object manager, examined: other processes supplied its files."""
        examined = sync_check.examine_event(payload.fd)
        if examined.problem:
            raise refusal(examined.problem, noun)
        for page in payload.pages:
            found = sync_check.examine_page(page.handle)
            if found.problem:
                raise refusal(f"its companion page is refused: {found.problem}", noun)
            return cls(payload, open_page(copy_of(page.handle), page.writable and found.writable))
        return cls(payload)

    @classmethod
    def of_fd(cls, fd: int, writable: bool) -> Event:
        """Return the event of an examined fd, of which it has a duplicate. Errors: OutOfMemoryError."""
        return cls(copy_of(fd), writable=writable)

    @property
    def fd(self) -> int:
        """The eventfd, borrowed."""
        file = self._file
        return -1 if file is None else file.fd

    @property
    def pages(self) -> tuple[Page, ...]:
        """The companion page, which is made at the first use. Errors: OutOfMemoryError."""
        if self._payload is not None:
            return self._payload.pages
        with lock:
            file = self._page_file
            if file is None:
                file = create_companion_page(None)
                self._use(open_page(file))
                self._page_file = file
        return (Page(file.fd, True, True),)

    def _use(self, page: TimelinePage) -> None:
        page.add_user()
        self._page = page

    def is_signaled(self) -> bool:
        """Whether it can be read."""
        return bool(_poll([self.fd], 0))

    def signal(self) -> bool:
        """Make it signaled. Return whether it was not. Errors: AccessDeniedError without the right to signal."""
        self.check_right()
        page = self._page
        if page is not None and page.writable:
            page.announce_signal()
        try:
            os.eventfd_write(self.fd, _SIGNALED)
        except BlockingIOError:
            return False
        return True

    def check_right(self) -> None:
        """Raise AccessDeniedError without the right to signal."""
        if not self.writable:
            raise no_right()

    def consume(self) -> bool:
        """Make it unsignaled. Return whether it was signaled."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def take(self, deadline: int | None = None) -> bool:
        """Wait until it is signaled and consume the signal; False after the deadline. Errors: as `wait_events`.

        Other processes may consume a signal before this one.
        """
        while wait_events([self], any_of=False, deadline=deadline):
            if self.consume():
                return True
        return False

    def let_go(self) -> None:
        """End its use of the page. The object manager tells the waiters that this process has closed it.

        Waits that still run use the page.
        """
        page = self._page
        if page is not None:
            page.drop_user()

    def check_signaler(self, what: str) -> None:
        """Raise PeerGoneError if it is not signaled, and the process that would signal it has ended."""
        page = self._page
        facts = page.facts if page is not None else None
        if facts is not None and facts.abandoned and not self.is_signaled():
            raise gone_error(facts, what=what)


def wait_events(events: list[Event], *, any_of: bool, deadline: int | None = None, what: str = "the semaphore") -> bool:
    """Wait until the events are signaled, or any of them. Return whether they are; False after the deadline.

    deadline: of `time.monotonic_ns`; one that has passed polls, None is no limit. what: for the error's message.
    Errors: PeerGoneError if one of them (any: each of them) is not signaled, and its signaler has ended.
    """
    missing = events
    while missing:
        left = _SLICE_MS if all(one._page is None for one in missing) else _SLICE_OF_SHARED_MS
        if deadline is not None:
            left = min(left, max(0, math.ceil((deadline - time.monotonic_ns()) / 1e6)))
        readable = _poll([one.fd for one in missing], left)
        if readable and any_of:
            return True
        missing = [one for one in missing if one.fd not in readable]
        lost = [one for one in missing if one._page is not None and one._page.facts.abandoned]
        if lost and (len(lost) == len(missing) or not any_of):
            lost[0].check_signaler(what)
        if missing and deadline is not None and time.monotonic_ns() >= deadline:
            return False
    return True


def _poll(fds: list[int], milliseconds: int) -> set[int]:
    """Return those of the fds that can be read within the time."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, found in poll.poll(milliseconds) if found & select.POLLIN}
