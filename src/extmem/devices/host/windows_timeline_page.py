"""`TimelinePage` on Windows: a mapped page of a timeline, by which processes signal a value and wait for it.

How this works. `page_signals` has the signals, and `wake_events` how waiters are woken. There is no broker that tells
the end of a signaler. So a waiter waits for the processes in the page's table, too: the kernel signals a process when
it has ended, whatever ended it. The first waiter that may write the page marks it there; others know it for themselves.
A process that closes or loses its last object of a page leaves the table, and marks the page as closed if no signaler
is left.

One process has one `TimelinePage` for a section and a right, however often it imports the payload: the sections are
found by the id in the page, and compared by the kernel.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Final
from weakref import WeakSet, WeakValueDictionary

import msgspec

from extmem.devices.host import wake_events
from extmem.devices.host.page_signals import PageSignals, lock
from extmem.devices.host.windows_mapping import FileMapping, map_file
from extmem.errors import HandleStateError
from extmem.handles._win32 import calls, sections, waitables
from extmem.handles._win32.tables import kernel32
from extmem.manager.windows import processes, status_errors, sync_payloads
from extmem.objects import Status
from extmem.owning import OwnedDescriptor, OwnedFd, Owner, cleanup_thread
from extmem.sharing import timeline_page as layout
from extmem.sharing.terms import ShareTerms

if sys.platform != "win32":
    raise ImportError("sections are Windows's; extmem.devices.host picks what the platform has")

import ctypes

__all__ = [
    "SLICE_NS",
    "TimelinePage",
    "Watched",
    "copy_of_page",
    "create_companion_page",
    "create_page",
    "milliseconds_left",
    "open_page",
    "sleep_on_pages",
    "watch",
]

ID: Final = 2048
"""Offset of the page's id, by which its waiters are woken: `wake_events.ID_SIZE` random bytes."""
SLICE_NS: Final = 500_000_000
"""Longest sleep in nanoseconds."""
_MOST_PROCESSES = 16
"""How many signalers of one page a wait watches."""
_SEQUENCE, _STATE, _MARKS = layout.SEQUENCE // 4, layout.STATE // 4, layout.MARKS // 4
_WATCH_RIGHTS = waitables.SYNCHRONIZE | 0x1000  # PROCESS_QUERY_LIMITED_INFORMATION

_pages: WeakValueDictionary[tuple[bytes, bool], TimelinePage] = WeakValueDictionary()


def create_page(value: int = 0, descriptor: bytes = b"", terms: ShareTerms | None = None) -> OwnedFd:
    """Create the section of a page with this value. Return its handle, which the caller owns; open it by `open_page`.

    terms: its name and security, if it is shared from the start. Errors: as `sync_payloads.create_timeline`.
    """
    return _initialized(sync_payloads.create_timeline(descriptor, terms), value)


def create_companion_page(terms: ShareTerms | None, value: int = 0) -> OwnedFd:
    """Create the section of a companion page, whose rights are those of its payload: terms has its security.

    Errors: as `sync_payloads.create_page`.
    """
    return _initialized(sync_payloads.create_page(terms.sddl if terms is not None else None), value)


def copy_of_page(handle: int) -> OwnedFd:
    """Return a duplicate of the handle of a page, owned by the caller."""
    return OwnedDescriptor(status_errors.duplicate(handle, options=calls.SAME_ACCESS))


def _initialized(section: int, value: int) -> OwnedFd:
    """Own a new section and write what its page begins with; this process is entered as the creator."""
    made = OwnedDescriptor(section)
    page = bytearray(layout.PAGE_SIZE)
    page[layout.VALUE : layout.VALUE + 8] = value.to_bytes(8, sys.byteorder)
    page[ID : ID + wake_events.ID_SIZE] = secrets.token_bytes(wake_events.ID_SIZE)
    layout.enter(memoryview(page), os.getpid(), processes.start_time(os.getpid()), creator=True)
    try:
        sections.poke(made.fd, 0, bytes(page))
    except calls.StatusError as error:
        made.close()
        raise status_errors.out_of_memory(error, "vkCreateSemaphore", "a view of a page") or status_errors.other(
            error, "A page of a timeline cannot be mapped."
        ) from None
    return made


def open_page(file: OwnedFd, writable: bool = True, offset: int = 0) -> TimelinePage:
    """Return the page of a section, mapped. The handle is borrowed, and held while it is used.

    writable: whether to signal. offset: 0, the only one here. The caller has examined the section.
    Errors: AccessDeniedError; OutOfMemoryError.
    """
    with file.use(), lock:
        mapping = map_file(file.fd, layout.PAGE_SIZE, writable)
        key = (ctypes.string_at(mapping.address + ID, wake_events.ID_SIZE), writable)
        page = _pages.get(key)
        if page is None or not page.is_of(file):
            page = _pages[key] = TimelinePage(mapping, key[0], file)
        return page


class _Bell(msgspec.Struct, frozen=True):
    """What a signal rings: the words of the page, and the common part of its events' paths."""

    words: memoryview
    path: str


class Watched(msgspec.Struct, frozen=True):
    """A signaler that a wait watches."""

    process: int
    """A handle that is signaled when it has ended; owned by the page."""
    page: TimelinePage
    pid: int
    start: int


class TimelinePage(PageSignals):
    """A mapped page; see the module. Made by `open_page`."""

    __slots__ = ("_ended", "_known", "_member", "_noted", "_sections", "_users", "path")

    def __init__(self, mapping: FileMapping, page_id: bytes, section: OwnedFd) -> None:
        view = memoryview((ctypes.c_char * layout.PAGE_SIZE).from_address(mapping.address)).cast("B")
        super().__init__(mapping, view if mapping.writable else view.toreadonly())
        self.path = wake_events.path_of(page_id)
        """The common part of the paths of its events."""
        self._bell = _Bell(self._words, self.path)
        self._sections: WeakSet[OwnedFd] = WeakSet([section])
        """Owners of handles of its section. Those that are open are compared with the handles of later imports."""
        self._known: dict[tuple[int, int], OwnedFd | None] = {}
        """Handles of signalers, by pid and start time; None for one that has ended, or cannot be watched."""
        self._ended: tuple[int, int, int, bool] | None = None
        """The pid of a signaler that has ended, the time when that was noticed, the sequence then, and whether it ended
        normally: known in this process alone, which may not write the page."""
        self._noted = 0
        self._users = 0
        self._member: Owner | None = None
        """Owes that this process leaves the table; None without users, or without the right to signal."""

    def is_of(self, section: OwnedFd) -> bool:
        """Return whether a handle is of the page's section, as far as that can be found out. It is kept in mind."""
        for known in list(self._sections):
            with contextlib.suppress(HandleStateError), known.use():
                if not calls.same_object(known.fd, section.fd):
                    return False
                self._sections.add(section)
                return True
        return False

    @property
    def marked(self) -> bool:
        """See `PageSignals`."""
        return self._words[_STATE] != 0 or self._ended is not None

    @property
    def marks(self) -> int:
        """See `PageSignals`; with what this process alone knows."""
        return self._words[_MARKS] + self._noted

    @property
    def facts(self) -> layout.Facts:
        """See `PageSignals`; with what this process alone knows of the end of a signaler."""
        facts = layout.read(self._words.cast("B"))
        ended = self._ended
        if ended is None or facts.state != layout.State.ALIVE:
            return facts
        pid, since, sequence, exited = ended
        if facts.sequence != sequence:  # somebody has signaled since
            self._ended = None
            return facts
        flags = layout.Flags.CLOSED | layout.Flags.EXITED if exited else 0
        state = int(layout.State.GONE)
        return msgspec.structs.replace(facts, state=state, pid=pid, since=since, reached=facts.value, flags=int(flags))

    # Signaling.

    @staticmethod
    def _ring(bell: _Bell, /) -> None:
        number = bell.words[_SEQUENCE]
        bell.words[_SEQUENCE] = (number + 1) & 0xFFFF_FFFF
        # What was signaled is in the page: without the event, the waiters see it at the end of their slice.
        with contextlib.suppress(calls.StatusError):
            wake_events.set_event_of_step(bell.path, number)

    def _start_time(self) -> int:
        return processes.start_time(os.getpid())

    def _table_locked(self) -> contextlib.AbstractContextManager[None]:
        return wake_events.table_locked(self.path)

    def add_user(self) -> None:
        """See `PageSignals`. If the users are lost, the cleanup thread makes the process leave the table."""
        with lock:
            self._users += 1
            if self._member is None and self.writable:
                self._member = Owner((cleanup_thread.step(partial(_leave_if_unused, self._mapping, self._bell)),))

    def drop_user(self) -> None:
        """See `PageSignals`: the process leaves the table, and marks the page if no signaler is left there."""
        with lock:
            self._users -= 1
            member = self._member
            if self._users or member is None:
                return
            _leave(self._bell)
            self._claims.clear()
            self._member = None
            member.forget()

    # For control pages.

    @staticmethod
    def barrier() -> None:
        """Order the reads before this call before those after it, on every processor."""
        kernel32.FlushProcessWriteBuffers()

    def own_facts(self) -> tuple[int, int, int]:
        """Return pid and start time of this process, and the number of its pid namespace: there is one."""
        return os.getpid(), processes.start_time(os.getpid()), 1

    def has_ended(self, pid: int, start: int, namespace: int) -> bool:
        """Return whether a process has ended, as far as this process can see."""
        if not pid or namespace != 1:
            return False
        try:
            process = OwnedDescriptor(calls.open_process(pid, _WATCH_RIGHTS))
        except calls.StatusError as error:
            return error.status in (Status.INVALID_CID, Status.INVALID_PARAMETER)
        try:
            return calls.creation_time(process.fd) != start or processes.ended(process.fd)
        finally:
            process.close()

    # Waiting.

    def nudge(self) -> None:
        """See `PageSignals`."""
        with contextlib.suppress(calls.StatusError):
            wake_events.nudge_step(self.path, self.sequence_number, lambda: self.sequence_number)

    def sleep(self, expected: int, deadline: int | None = None) -> bool:
        """See `PageSignals`."""
        return sleep_on_pages([(self, expected)], deadline)

    def wait(self, value: int, deadline: int | None = None) -> bool:
        """Wait until the value is reached. Return whether it is; False after the deadline.

        deadline: of `time.monotonic_ns`; one that has passed polls, None is no limit. Signal handlers run meanwhile.
        Errors: PeerGoneError if the value is not reached, and the process that would signal it has ended.
        """
        values, words = self._values, self._words
        if values[0] >= value:
            return True
        while True:
            expected = words[_SEQUENCE]
            if values[0] >= value:
                return True
            if words[_STATE] or self._ended is not None:
                self.check_signaler(value)
            if not sleep_on_pages(((self, expected),), deadline):
                return values[0] >= value

    def watched(self) -> list[Watched]:
        """Return the signalers whose end a wait has to hear, other processes alone.

        One that has ended already is marked as such. Creators that have not signaled count while there is no signaler.
        """
        living = [one for one in layout.signalers(self._words.cast("B")) if not one.dead]
        counting = [one for one in living if not one.creator] or living
        found = []
        for one in counting[:_MOST_PROCESSES]:
            if one.pid == os.getpid():
                continue
            key = (one.pid, one.start)
            if key not in self._known:
                self._known[key] = self._opened(one.pid, one.start)
            process = self._known[key]
            if process is not None:
                found.append(Watched(process.fd, self, one.pid, one.start))
        return found

    def _opened(self, pid: int, start: int) -> OwnedFd | None:
        """Return a handle of a process; None, and mark its end, if it has ended; None for another user's process."""
        try:
            process = OwnedDescriptor(calls.open_process(pid, _WATCH_RIGHTS))
        except calls.StatusError as error:
            if error.status in (Status.INVALID_CID, Status.INVALID_PARAMETER):
                self._note_end(pid, start)
            return None
        if calls.creation_time(process.fd) == start:
            return process
        process.close()  # its pid was used again
        self._note_end(pid, start)
        return None

    def note_end(self, pid: int, start: int) -> None:
        """Mark the page: this signaler has ended. Wake the waiters."""
        self._known[pid, start] = None
        self._note_end(pid, start)

    def _note_end(self, pid: int, start: int) -> None:
        since = time.monotonic_ns()
        if not self.writable:
            left = layout.leave(memoryview(bytearray(self._words.cast("B"))), pid, start)
            if left.end_matters:  # one that closed it before has no entry any more
                self._ended = (pid, since, self.sequence_number, left.leaving)
                self._noted += 1
            return
        page = self._words.cast("B")
        with self._table_locked():
            left = layout.leave(page, pid, start, dead=True)
            if left.end_matters:
                layout.mark_gone(page, pid, since, exited=left.leaving)
        if left.end_matters:
            self._ring(self._bell)


def _leave(bell: _Bell) -> None:
    """Remove this process from the table of a page, and mark the page if no signaler is left there."""
    page, pid = bell.words.cast("B"), os.getpid()
    with wake_events.table_locked(bell.path):
        left = layout.leave(page, pid, processes.start_time(pid))
        last = left.found and not left.signalers and not left.creators
        if last:
            layout.mark_gone(page, pid, time.monotonic_ns(), closed=True)
    if last:
        TimelinePage._ring(bell)


def _leave_if_unused(mapping: FileMapping, bell: _Bell) -> None:
    """Leave a page that the program has lost, unless it has been opened again. mapping: held until then."""
    key = (ctypes.string_at(mapping.address + ID, wake_events.ID_SIZE), True)
    with lock:
        if key not in _pages:
            _leave(bell)


def sleep_on_pages(pages: Sequence[tuple[TimelinePage, int]], deadline: int | None = None, alarm: int = 0) -> bool:
    """Sleep while the sequences of all these pages have the expected numbers. Return whether to try again.

    It may return early (Ctrl-C, the end of a slice, a signaler that has ended): the caller looks again, and calls
    again. deadline: of `time.monotonic_ns`; None for none. False only if it has passed. alarm: a handle that ends the
    sleep, too; 0 for none.
    """
    left = milliseconds_left(deadline)
    if left <= 0:
        return False
    some = pages[: waitables.MOST // 2]
    if len(some) < len(pages):
        left = min(left, 5)
    with contextlib.ExitStack() as stack:
        handles = []
        try:
            for page, expected in some:
                event = wake_events.event_of_step(page.path, expected)
                stack.callback(calls.close_handle, event)
                handles.append(event)
        except calls.StatusError as error:
            raise status_errors.other(error, "An event to wait for a timeline cannot be created.") from None
        if alarm:
            handles.append(alarm)
        watched = watch([page for page, _ in some], waitables.MOST - len(handles))
        if watched is None or any(page.sequence_number != expected for page, expected in some):
            return True
        answer = waitables.wait_any([*handles, *(one.process for one in watched)], left)
    if answer >= len(handles):
        ended = watched[answer - len(handles)]
        ended.page.note_end(ended.pid, ended.start)
    return True


def watch(pages: Sequence[TimelinePage], most: int) -> list[Watched] | None:
    """Return the signalers of all these pages that a wait watches; None if the end of one was noticed just now."""
    before = [page.facts.abandoned for page in pages]
    watched = [one for page in pages for one in page.watched()]
    return watched[:most] if before == [page.facts.abandoned for page in pages] else None


def milliseconds_left(deadline: int | None) -> int:
    """Return how long to sleep at most: until the deadline, or one slice; 0 if the deadline has passed."""
    if deadline is None:
        return SLICE_NS // 1_000_000
    return min(SLICE_NS // 1_000_000, max(0, math.ceil((deadline - time.monotonic_ns()) / 1e6)))
