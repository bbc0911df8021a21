"""Which processes have the pages of semaphores and fences, and the marks that tell waiters of the end of one.

How this works. A semaphore or fence has a page of `sharing.timeline_page`: the payload itself for a timeline of the
host, else its first companion page. Signalers enter themselves into the table of the page. The process that shares the
payload first is entered here, as its creator. `has` records each process that got the page. When such a process ends
(`ended`), or closes the payload (`closed`), its entry is removed and the page is marked where the waiters are concerned
(`timeline_page`). A process that ends without closing is a death, unless it has written before that it ends normally;
one that closes or ends normally and leaves no signaler has closed it.

A process that may signal and ends before its first signal is not in the table. Its end concerns the waiters if it was
probably the one they wait for: nobody in the table has signaled, and at most one other process may.

After a broker was killed, the next one compares the tables of the restored pages with its clients (`recovered`): the
signalers that neither came back nor live have died meanwhile.

What is in a page is the word of the processes that may signal: a wrong table delays or invents news for that payload's
own waiters, and concerns no other payload. A page that cannot be written is left as it is.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from extmem.broker import timeline_marks
from extmem.broker.fd_inspection import Given
from extmem.broker.payload_fds import PayloadFds
from extmem.broker.sessions import Session
from extmem.objects import ObjectKind, Refused, Status
from extmem.sharing import control_page, timeline_page
from extmem.sharing.kinds import Backing
from extmem.wire.process_start import start_time

__all__ = ["Signalers", "check_kind"]

_PAGES: Final = 16
"""Number of pages that are marked in one step."""


class _Who(NamedTuple):
    """A process as the pages name it: the pid in its own pid namespace, and its start time."""

    pid: int
    start: int


class Signalers:
    """The processes that have pages."""

    def __init__(self, payloads: PayloadFds) -> None:
        self._payloads = payloads
        self._pages: dict[int, dict[int, bool]] = {}
        """Process → its payloads with a page → whether it may signal."""
        self._who: dict[int, _Who] = {}
        self._may_signal: Counter[int] = Counter()
        """Payload → how many processes may signal it."""

    def has(self, session: Session, payload: int, signal: bool, *, created: bool = False) -> None:
        """Record that a process has the page of a payload. signal: whether it may signal.

        created: it shares the payload first, and is entered into the page as its creator.
        """
        if self._payloads.page(payload) is None:
            return
        process = session.process
        pages = self._pages.setdefault(process, {})
        if signal and not pages.get(payload):
            self._may_signal[payload] += 1
        pages[payload] = pages.get(payload, False) or signal
        who = self._who.get(process)
        if who is None or not who.start:
            pid = session.credentials.pid
            who = self._who[process] = _Who(_own_pid(pid), start_time(pid))
            timeline_marks.prepare()
        if created:
            self._change(payload, functools.partial(_created, who))

    def undone(self, process: int, payload: int) -> None:
        """Record that a process did not get the page after all."""
        self._without(payload, self._pages.get(process, {}).pop(payload, False))

    def closed(self, process: int, payload: int) -> None:
        """Record that a process has closed the payload, and tell the waiters if no signaler is left."""
        signal = self._pages.get(process, {}).pop(payload, None)
        if signal is None:
            return
        others = self._without(payload, signal)
        self._change(payload, functools.partial(_closed, self._who[process], others))

    def ended(self, process: int) -> Iterator[None]:
        """Tell the waiters of all pages of a process that it has ended, in steps. Its payloads must still exist."""
        pages, who = self._pages.pop(process, {}), self._who.pop(process, None)
        for done, (payload, signal) in enumerate(pages.items(), 1):
            others = self._without(payload, signal)
            if who is not None and payload in self._payloads:
                last = signal and others <= 1
                self._change(payload, functools.partial(_died, who, last))
            if not done % _PAGES:
                yield

    def recovered(self) -> Iterator[None]:
        """Tell the waiters of restored pages which signalers did not survive the killed broker, in steps."""
        payloads = {payload for pages in self._pages.values() for payload in pages}
        for done, payload in enumerate(payloads, 1):
            if payload in self._payloads:
                self._change(payload, functools.partial(_compared, frozenset(self._who.values())))
            if not done % _PAGES:
                yield

    def wake_readers(self, payload: int) -> None:
        """Wake those who wait for a change of memory, so that they look at what is in no page of it."""
        self._change_control(payload, _nothing_to_write)

    def left_update(self, payload: int, pid: int) -> None:
        """Tell the readers of memory that a process has ended inside an update, if it has."""
        self._change_control(payload, functools.partial(control_page.mark_torn, pid=pid, since=time.monotonic_ns()))

    def _change_control(self, payload: int, edit: timeline_marks.Edit) -> None:
        if payload not in self._payloads:
            return
        with contextlib.suppress(OSError):  # as in `_change`
            found = self._payloads.control_page(payload)
            if found is not None:
                timeline_marks.change(found[0], edit, found[1])

    def value(self, payload: int) -> int | None:
        """Return the value of the page; None for a payload without one."""
        fd = self._payloads.page(payload) if payload in self._payloads else None
        return None if fd is None else timeline_marks.value_of(fd)

    def _without(self, payload: int, signal: bool) -> int:
        """Record that a process does not have the page any more. Return how many others may signal."""
        others = self._may_signal[payload] - signal
        if others > 0:
            self._may_signal[payload] = others
        else:
            del self._may_signal[payload]
        return others

    def _change(self, payload: int, edit: timeline_marks.Edit) -> None:
        fd = self._payloads.page(payload)
        if fd is not None:
            with contextlib.suppress(OSError):  # it may not be written, or the system refuses: no other client's loss
                timeline_marks.change(fd, edit)


def check_kind(object_kind: int, given: Given, fds: Sequence[int]) -> None:
    """Refuse files that cannot be of an object of that kind."""
    sync = object_kind in (ObjectKind.SEMAPHORE, ObjectKind.FENCE)
    if not sync and given.backing is not Backing.HOST_EVENT:
        return
    page = fds[-len(given.pages)] if given.pages else fds[0] if given.backing is Backing.HOST_FILE else -1
    if not sync:
        problem = "An eventfd is a semaphore or a fence, not memory. Share it as what it is."
    elif given.backing is Backing.HOST_FILE and object_kind == ObjectKind.FENCE:
        problem = "A fence of the host is an eventfd, and a memory file was sent. Send an eventfd."
    elif page >= 0 and not timeline_marks.is_page(page):
        problem = (
            f"The page of a semaphore or fence has less than {timeline_page.PAGE_SIZE} bytes. Send a page of that size."
        )
    else:
        return
    raise Refused(Status.INVALID_PARAMETER, problem)


def _nothing_to_write(page: memoryview) -> bool:
    return True


def _created(who: _Who, page: memoryview) -> bool:
    timeline_page.enter(page, *who, creator=True)
    return False


def _closed(who: _Who, others: int, page: memoryview) -> bool:
    """others: how many other processes may signal."""
    left = timeline_page.leave(page, *who)
    # A creator that is left has not signaled. If nobody else may, it is probably the one that waits.
    harmless = 0 if left.creator else 1 if left.creators else others
    if not left.found or left.signalers or others > harmless:
        return False
    timeline_page.mark_gone(page, who.pid, time.monotonic_ns(), closed=True)
    return True


def _died(who: _Who, last: bool, page: memoryview) -> bool:
    """last: whether it might signal, and at most one other process may."""
    left = timeline_page.leave(page, *who, dead=True)
    if left.found:
        concerns = left.end_matters
    else:
        concerns = last and not left.signalers and not timeline_page.read(page).marked
    if not concerns:
        return False
    timeline_page.mark_gone(page, who.pid, time.monotonic_ns(), exited=left.leaving)
    return True


def _compared(here: frozenset[_Who], page: memoryview) -> bool:
    """here: the processes that have announced."""
    told = False
    for one in timeline_page.signalers(page):
        who = _Who(one.pid, one.start)
        if not one.dead and who not in here and start_time(one.pid) != one.start:
            told |= _died(who, False, page)
    return told


def _own_pid(pid: int) -> int:
    """Return the pid that a process has in its own pid namespace; `pid` where that is unknown."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            _, found, rest = file.read().partition(b"\nNSpid:")
    except OSError:
        return pid
    return int(rest.partition(b"\n")[0].split()[-1]) if found else pid
