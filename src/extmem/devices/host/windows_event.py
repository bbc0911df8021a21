"""`Event` on Windows: the payload of a binary semaphore (a semaphore of the kernel) or of a fence (an event).

How this works. The limit of the kernel's semaphore is 1, and a wait takes it: exactly one wait takes each signal,
whichever processes wait, and whoever is killed. The event is reset by hand, so a wait for a fence changes nothing. The
kernel enforces the rights of both. The end of a signaler is told as for timelines, by a companion page with the table
of signalers (`windows_timeline_page`); a payload that cannot be shared has none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from extmem.devices.host.page_signals import gone_error, no_right
from extmem.devices.host.sync_errors import refusal
from extmem.devices.host.windows_timeline_page import (
    TimelinePage,
    copy_of_page,
    create_companion_page,
    milliseconds_left,
    open_page,
    watch,
)
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles._win32 import calls, waitables
from extmem.manager.windows import sync_payloads
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.payload import Page, PayloadFd
from extmem.sharing.terms import ShareTerms

if sys.platform != "win32":
    raise ImportError("these are objects of Windows; extmem.devices.host picks what the platform has")

__all__ = ["Event", "wait_events"]

_TYPES = {False: "Semaphore", True: "Event"}
_MOST_EVENTS = waitables.MOST // 2
_SLICE_OF_MANY_MS = 5


class Event:
    """A kernel object, and its companion page if it is shared; see the module."""

    __slots__ = ("_fence", "_file", "_page", "_page_file", "_payload", "_terms", "writable")

    def __init__(self, source: OwnedFd | PayloadFd, fence: bool, *, terms: ShareTerms | None = None) -> None:
        """source: the handle, or an import's hold on it, which the event owns from now on."""
        self._file = source if isinstance(source, OwnedFd) else source.shared
        self._payload = source if isinstance(source, PayloadFd) else None
        self._fence = fence
        self._terms = terms
        self._page: TimelinePage | None = None
        self._page_file: OwnedFd | None = None
        self.writable = True if self._payload is None else self._payload.writable
        """Whether it was imported with the right to signal."""

    @classmethod
    def create(cls, signaled: bool, command: str, terms: ShareTerms | None = None, *, fence: bool = False) -> Event:
        """Create a payload. terms: its name and security, if it is shared. Errors: as `sync_payloads`."""
        create = sync_payloads.create_fence if fence else sync_payloads.create_semaphore
        return cls(OwnedDescriptor(create(terms, signaled=signaled)), fence, terms=terms)

    @classmethod
    def of_import(cls, payload: PayloadFd, noun: str) -> Event:
        """Return the event of an import through the object manager, examined. Errors: DriverError."""
        fence = noun == "fence"
        kind = calls.type_of(payload.fd)
        if kind != _TYPES[fence]:
            raise refusal(
                f"the handle refers to an object of type {kind}, and a {noun} of the host is of type {_TYPES[fence]}; "
                "pass what was exported as one",
                noun,
            )
        made = cls(payload, fence)
        for page in payload.pages:
            file = copy_of_page(page.handle)
            made._use(open_page(file, page.writable))
            made._page_file = file
            break
        return made

    @classmethod
    def of_fd(cls, fd: int, writable: bool) -> NoReturn:
        """Raise UnsupportedError: no fd of the C runtime is a payload."""
        raise UnsupportedError(
            f"fd {fd} is no semaphore or fence: on Windows they are imported by NT handle, KMT number or name",
            requires_one_of=["OPAQUE_WIN32", "OPAQUE_WIN32_KMT"],
        )

    def _use(self, page: TimelinePage) -> None:
        page.add_user()
        self._page = page

    @property
    def fd(self) -> int:
        """The handle, borrowed."""
        file = self._file
        return -1 if file is None else file.fd

    @property
    def page(self) -> TimelinePage | None:
        """The companion page, mapped; None without one."""
        return self._page

    @property
    def pages(self) -> tuple[Page, ...]:
        """The companion page, which is made at the first use; none for what cannot be shared."""
        if self._payload is not None:
            return self._payload.pages
        if self._terms is None:
            return ()
        if self._page_file is None:
            file = create_companion_page(self._terms)
            self._use(open_page(file))
            self._page_file = file
        return (Page(self._page_file.fd, True, True),)

    def is_signaled(self) -> bool:
        """Whether a fence is signaled. A semaphore's signal can only be taken: False."""
        return self._fence and waitables.take(self.fd)

    def signal(self) -> bool:
        """Make it signaled. Return whether it was not (a fence: True). Errors: AccessDeniedError without the right."""
        self.check_right()
        page = self._page
        if page is not None and page.writable:
            page.announce_signal()
        if self._fence:
            waitables.set_event(self.fd)
            return True
        return waitables.release(self.fd)

    def check_right(self) -> None:
        """Raise AccessDeniedError without the right to signal."""
        if not self.writable:
            raise no_right()

    def consume(self) -> bool:
        """Make it unsignaled. Return whether it was signaled."""
        return waitables.reset(self.fd) if self._fence else waitables.take(self.fd)

    def take(self, deadline: int | None = None) -> bool:
        """Wait until it is signaled; a semaphore's signal is consumed. False after the deadline.

        Errors: PeerGoneError if it is not signaled, and its signaler has ended.
        """
        return _wait([self], deadline, "the semaphore") is not None

    def let_go(self) -> None:
        """Leave the table of signalers, if this was the last user of the page in this process."""
        page, self._page = self._page, None
        if page is not None:
            page.drop_user()


def wait_events(events: Sequence[Event], *, any_of: bool, deadline: int | None = None, what: str = "the fence") -> bool:
    """Wait until the fences are signaled, or any of them. Return whether they are; False after the deadline.

    deadline: of `time.monotonic_ns`; one that has passed polls, None is no limit. what: for the error's message.
    Errors: PeerGoneError if one of them (any: each of them) is not signaled, and its signaler has ended.
    """
    missing = list(events)
    while missing:
        found = _wait(missing, deadline, what, any_of=any_of)
        if found is None:
            return False
        if any_of:
            return True
        missing.remove(found)
    return True


def _wait(events: Sequence[Event], deadline: int | None, what: str, *, any_of: bool = False) -> Event | None:
    """Wait until one of the events is signaled, and return it; None after the deadline. A semaphore is taken.

    any_of: whether one is enough, so that PeerGoneError is for the end of the signalers of all.
    """
    while True:
        for event in events:
            if event.fd < 0:
                raise HandleStateError(f"{what} is closed; create or import another one")
            if waitables.take(event.fd):
                return event
        lost = [one for one in events if (page := one.page) is not None and page.facts.abandoned]
        if lost and (not any_of or len(lost) == len(events)):
            page = lost[0].page
            if page is not None:
                raise gone_error(page.facts, what=what)
        left = milliseconds_left(deadline)
        if left <= 0:
            return None
        found = _sleep(events, left)
        if found is not None:
            return found


def _sleep(events: Sequence[Event], left: int) -> Event | None:
    """Sleep until one of the events is signaled, and return it; None if something else happened."""
    some = events[:_MOST_EVENTS]
    watched = watch([page for event in some if (page := event.page) is not None], waitables.MOST - len(some))
    if watched is None:
        return None
    if len(some) < len(events):
        left = min(left, _SLICE_OF_MANY_MS)
    answer = waitables.wait_any([*(one.fd for one in some), *(one.process for one in watched)], left)
    if 0 <= answer < len(some):
        return some[answer]
    if answer >= len(some):
        ended = watched[answer - len(some)]
        ended.page.note_end(ended.pid, ended.start)
    return None
