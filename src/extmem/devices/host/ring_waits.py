"""Waits for timeline pages in an event loop by an io_uring, without a thread.

How this works. Each event loop that waits has a ring, whose descriptor it polls. The ring sleeps on the sequence of a
page, once for all coroutines that wait for the page. A page that nobody waits for any more stays armed until the next
`_tidy`, so that a loop that waits again and again arms it once for each signal. `_tidy` drops the ring when nobody
waits, and with it all that is armed.

A second thread would have to be woken by the kernel, and would wake the thread of the event loop then: each wake takes
several times as long as this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, ref

from extmem.devices.host.io_ring import MOST, IoRing, usable

if sys.platform != "linux":
    raise ImportError("io_uring is Linux's; extmem.devices.host picks what the platform has")

if TYPE_CHECKING:
    import asyncio

    from extmem.devices.host.page_signals import PageSignals
    from extmem.devices.host.page_watch import Watch

__all__ = ["RingWaits", "waits_of_loop"]

_LINGER_S: Final = 0.2

_rings: WeakKeyDictionary[asyncio.AbstractEventLoop, RingWaits] = WeakKeyDictionary()


def waits_of_loop(loop: asyncio.AbstractEventLoop) -> RingWaits | None:
    """Return the waits of an event loop; None if a ring cannot be used there."""
    found = _rings.get(loop)
    if found is None and usable():
        try:
            found = RingWaits(loop)
        except (OSError, ValueError, NotImplementedError):  # no descriptors, no memory, no readers in this loop
            return None
        _rings[loop] = found
    return found


class RingWaits:
    """The waits of one event loop, and their ring. All calls are made in its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._watches: dict[Watch, None] = {}
        self._tidy_is_due = False
        self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with a ring that sleeps on nothing. Errors: OSError."""
        self._ring = ring = IoRing()
        self._armed: dict[PageSignals, int] = {}
        """Page → the tag of its sleep."""
        self._pages: dict[int, PageSignals] = {}
        """Tag → page."""
        self._tags = 0
        loop.add_reader(ring.fd, _calling(ref(self)))

    def add(self, watch: Watch) -> bool:
        """Complete the watch when it is over; the caller checks it once more after this. Return False if it cannot."""
        self._watches[watch] = None
        if watch.page in self._armed or self._arm(watch.page):
            return True
        self.remove(watch)
        return False

    def remove(self, watch: Watch) -> None:
        """Forget a watch, completed or not."""
        self._watches.pop(watch, None)
        if not self._tidy_is_due:
            loop = self._loop()
            if loop is not None and not loop.is_closed():
                self._tidy_is_due = True
                loop.call_later(_LINGER_S, self._tidy)

    def _arm(self, page: PageSignals) -> bool:
        if len(self._armed) >= MOST:
            return False
        self._tags = tag = self._tags + 1
        self._armed[page], self._pages[tag] = tag, page
        try:
            self._ring.sleep_on(page.sequence, page.sequence_number, tag)
        except OSError:
            del self._armed[page], self._pages[tag]
            return False
        return True

    def look(self) -> None:
        """Complete the watches that are over, and arm the pages of the others again."""
        pages = [self._pages.pop(tag) for tag, _ in self._ring.completed()]
        for page in pages:
            del self._armed[page]
        for page in {watch.page for watch in self._watches if not watch.is_over()}:
            if page not in self._armed and not self._arm(page):
                for watch in [watch for watch in self._watches if watch.page is page]:
                    watch.finish()  # it looks again, and waits by the thread
        for watch in [watch for watch in self._watches if watch.is_over()]:  # after the sequences were read
            self.remove(watch)
            watch.finish()

    def _tidy(self) -> None:
        """Drop the ring if nobody waits; take another one if it sleeps on pages that nobody waits for."""
        self._tidy_is_due = False
        loop = self._loop()
        if loop is None:
            return
        before = self._ring
        if not self._watches:
            _rings.pop(loop, None)
        elif self._armed.keys() <= {watch.page for watch in self._watches}:
            return
        else:
            try:
                self._begin(loop)
            except OSError:
                return  # it goes on with what it has
        loop.remove_reader(before.fd)
        self.look()


def _calling(waits: ref[RingWaits]) -> Callable[[], None]:
    """Return a function that calls `look`, and does not keep the waits alive."""

    def call() -> None:
        found = waits()
        if found is not None:
            found.look()

    return call


def _forget_after_fork() -> None:
    """The event loops of the parent do not run in the child of a fork."""
    _rings.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
