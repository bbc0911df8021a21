r"""Tickets on Windows: the receiver fetches a handle from the sender. No service is needed, and no process closes a
handle of another one.

How this works. For each ticket the sender keeps a duplicate of the handle, the companion pages of its payload, and two
events whose names contain the ticket's 128 random bits::

    sender                                            receiver
    handle in flight, events .offer (set), .done      opens .offer, takes it (a wait resets it: one wins)
                                                      opens the sender, duplicates the handle, checks it,
                                                      opens the pages
    mail  <------------------------------------------ sets .done and the sender's mail event
    closes handle and events

A thread of the sender, which exists only while a ticket is in flight, waits for its mail event and for the processes
that tickets are bound to. When such a process ends, at any step, the sender closes the ticket; it does so too after a
minute without a claim, if it no longer holds the memory itself. The receiver identifies the sender by pid and creation
time, and opens it with PROCESS_DUP_HANDLE only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from extmem.errors import ObjectManagerError
from extmem.handles._win32 import calls
from extmem.handles._win32.tables import HANDLE, kernel32
from extmem.manager.windows import names, processes, status_errors
from extmem.manager.windows.section_frame import FRAME
from extmem.objects import Status, error_for
from extmem.owning import Lock, OwnedFd

__all__ = ["HANDLE_KIND", "KMT_KIND", "MEMORY_KIND", "NUMBERED_KIND", "InFlight", "Ticket", "fetch", "parse"]

MEMORY_KIND, HANDLE_KIND, KMT_KIND = 1, 2, 3
NUMBERED_KIND = 4
"""Memory that a GPU driver shares by number. The number does not keep it alive, so no handle is in flight."""
_KINDS = (MEMORY_KIND, HANDLE_KIND, KMT_KIND, NUMBERED_KIND)
_LAYOUT = struct.Struct("<BBIQQQ16s16s")
_VERSION = 1
_MINUTE = 60.0
_CHILD_INTERVAL = 0.05
_MAX_CHILDREN = 60  # WaitForMultipleObjects takes 64
T = TypeVar("T")
_WAIT, _SIGNAL = 0x0010_0000, 0x0002
_INFINITE = 0xFFFF_FFFF


class Ticket(msgspec.Struct, frozen=True):
    """The contents of a ticket."""

    kind: int
    pid: int
    created: int
    value: int
    """The handle in flight, in the sender's table; or the KMT number."""
    object: int
    """The id of the shared object that it refers to; 0 if it has none."""
    secret: bytes
    mail: bytes
    frame: bytes = b""
    """The description of a GPU driver's payload, which cannot contain it, as `section_frame.pack` encodes it."""

    def pack(self) -> bytes:
        """Return the bytes that are sent."""
        fixed = _LAYOUT.pack(
            _VERSION, self.kind, self.pid, self.value, self.created, self.object, self.secret, self.mail
        )
        return fixed + self.frame


def parse(data: bytes) -> Ticket:
    """Return the ticket in untrusted bytes. InvalidHandleError for bytes that are not a ticket."""
    frame = data[_LAYOUT.size :]
    if len(data) >= _LAYOUT.size and data[0] not in (0, _VERSION):
        raise error_for(
            Status.INVALID_HANDLE,
            f"The ticket has format {data[0]}, and this process reads format {_VERSION}: its sender has another "
            "version of extmem. Use the same version of extmem in both processes.",
        )
    if len(data) < _LAYOUT.size or len(frame) > FRAME or not data[0] or data[1] not in _KINDS:
        raise error_for(
            Status.INVALID_HANDLE,
            f"these {len(data)} bytes are not a ticket, which has {_LAYOUT.size} bytes in format {_VERSION} and a "
            f"description of at most {FRAME} bytes after them. Pass the sender's ticket.",
        )
    _, kind, pid, value, created, shared, secret, mail = _LAYOUT.unpack_from(data)
    return Ticket(kind, pid, created, value, shared, secret, mail, frame)


def _event_path(secret: bytes, what: str) -> str:
    return f"{names.session_directory(calls.session(os.getpid()))}extmem.ticket.{secret.hex()}.{what}"


def _not_in_flight() -> ObjectManagerError:
    return error_for(
        Status.INVALID_HANDLE,
        "The ticket is not in flight: it was claimed before (each can be claimed once), withdrawn, not claimed in "
        "time, or its sender has ended: on Windows a ticket ends with its sender. Send the object again, and keep "
        "the sending process running until it has arrived (let a worker wait for a message from the receiver), or "
        "allocate the memory in the process that stays and let the worker fill it.",
    )


def fetch(ticket: Ticket, fits: Callable[[int], bool], take: Callable[[int], T]) -> T:
    """Claim a ticket, once. Return what `take` returns.

    fits: whether a handle refers to what was sent. take: gets the handle in this process, and owns it from then on,
        also after an error. The sender keeps the companion pages until it returns.
    Errors: InvalidHandleError where the ticket is not in flight (any more); AccessDeniedError for another user's; those
        of `take`.
    """
    with contextlib.ExitStack() as stack:

        def event(secret: bytes, role: str, access: int) -> int:
            try:
                opened = calls.open_event(_event_path(secret, role), access)
            except calls.StatusError as error:
                if error.status == Status.OBJECT_NAME_NOT_FOUND:
                    raise _not_in_flight() from None
                raise status_errors.other(error, f"A ticket's event ({role}) cannot be opened.") from None
            stack.callback(calls.close_handle, opened)
            return opened

        # All events are opened first: if the sender were not notified of the claim, it would hold the handle for a
        # minute.
        offer = event(ticket.secret, "offer", _WAIT | _SIGNAL)
        signals = [event(ticket.secret, "done", _SIGNAL), event(ticket.mail, "mail", _SIGNAL)]
        if kernel32.WaitForSingleObject(offer, 0) != 0:
            raise _not_in_flight()
        try:
            value = _duplicated(ticket, fits)
        except BaseException:
            kernel32.SetEvent(offer)  # the intended receiver may still claim it
            raise
        try:
            return take(value)
        finally:
            for signal in signals:
                kernel32.SetEvent(signal)


def _duplicated(ticket: Ticket, fits: Callable[[int], bool]) -> int:
    with processes.opened_process(ticket.pid, ticket.created) as sender:
        try:
            value = calls.duplicate(ticket.value, options=calls.SAME_ACCESS, source=sender)
        except calls.StatusError as error:
            if error.status == Status.INVALID_HANDLE:
                raise _not_in_flight() from None
            raise status_errors.other(error, f"The handle cannot be fetched from process {ticket.pid}.") from None
    with calls.closed_on_error(value):
        if not fits(value):
            raise _not_in_flight()
    return value


class _Flight(msgspec.Struct, eq=False):
    """One ticket of this process that is not claimed yet. Owns its handles."""

    handle: int
    offer: int
    done: int
    shared: int
    deadline: float
    child: int = 0
    """A handle to the process that it is bound to; 0 for an unbound ticket."""
    starting_child: weakref.ref[object] | None = None
    """The object of a child that is being started and does not have a pid yet."""
    pages: Sequence[OwnedFd] = ()
    """The companion pages, which end with the last process that has them open."""

    def take_back(self) -> bool:
        """End the ticket, and return True, unless a process has begun to claim it."""
        return bool(kernel32.WaitForSingleObject(self.offer, 0) == 0)

    def close(self) -> None:
        for handle in (self.handle, self.offer, self.done, self.child):
            if handle:
                calls.close_handle(handle)
        for page in self.pages:
            page.close()


class InFlight:
    """The tickets of this process, and the thread that waits for their end."""

    def __init__(self, still_held: Callable[[int], bool]) -> None:
        """still_held: whether this process holds memory of that object."""
        self._still_held = still_held
        self._lock = Lock()
        self._flights: dict[bytes, _Flight] = {}
        self._mail = 0
        self._mail_secret = b""
        self._reaper: threading.Thread | None = None

    def handles(self) -> dict[int, int]:
        """Return the handles in flight, with the objects that they refer to."""
        with self._lock:
            return {flight.handle: flight.shared for flight in self._flights.values()}

    def send(self, kind: int, handle: int, shared: int, frame: bytes = b"", pages: Sequence[OwnedFd] = ()) -> bytes:
        """Return a ticket for a handle, which it owns from now on, also after an error, as it owns the companion pages.

        frame: see `Ticket`.
        """
        secret, started = secrets.token_bytes(16), processes.start_time(os.getpid())
        flight = _Flight(handle, 0, 0, shared, time.monotonic() + _MINUTE, pages=pages)
        try:
            flight.offer = calls.create_event(_event_path(secret, "offer"), manual=False, signaled=True)
            flight.done = calls.create_event(_event_path(secret, "done"), manual=True, signaled=False)
            with self._lock:
                if not self._mail:
                    self._mail_secret = secrets.token_bytes(16)
                    path = _event_path(self._mail_secret, "mail")
                    self._mail = calls.create_event(path, manual=False, signaled=False)
                self._flights[secret] = flight
                ticket = Ticket(kind, os.getpid(), started, handle, shared, secret, self._mail_secret, frame)
                if self._reaper is None:
                    self._reaper = threading.Thread(target=self._wait, name="extmem tickets", daemon=True)
                    self._reaper.start()
        except calls.StatusError as error:
            flight.close()
            raise status_errors.other(error, "A ticket's events cannot be created.") from None
        return ticket.pack()

    def bind(self, secret: bytes, pid: int) -> None:
        """Bind the ticket to a process. Errors: as `processes.open_to_wait`."""
        child = processes.open_to_wait(pid)
        with self._lock:
            flight = self._flights.get(secret)
            if flight is None or flight.child:
                calls.close_handle(child)
            else:
                flight.child = child
            self._wake()

    def bind_when_born(self, secret: bytes, child: object) -> None:
        """Bind the ticket to a child whose object gets a `pid` soon."""
        pid = getattr(child, "pid", None)
        if isinstance(pid, int):
            self.bind(secret, pid)
            return
        with self._lock:
            flight = self._flights.get(secret)
            if flight is not None:
                flight.starting_child = weakref.ref(child)
            self._wake()

    def withdraw(self, secret: bytes) -> bool:
        """Withdraw a ticket. Return False if it is claimed, or being claimed."""
        with self._lock:
            flight = self._flights.get(secret)
            if flight is None or not flight.take_back():
                return False
            del self._flights[secret]
            flight.close()
            self._wake()
            return True

    def clear(self) -> None:
        """Withdraw all tickets."""
        for secret in list(self._flights):
            self.withdraw(secret)

    def _wake(self) -> None:
        if self._mail:
            kernel32.SetEvent(self._mail)

    # The thread.

    def _wait(self) -> None:
        while True:
            with self._lock:
                self._reap()
                if not self._flights:
                    calls.close_handle(self._mail)
                    self._mail, self._reaper = 0, None
                    return
                children = list({flight.child for flight in self._flights.values() if flight.child})
                handles = [self._mail, *children[:_MAX_CHILDREN]]
                patience = self._patience(too_many=len(children) > _MAX_CHILDREN)
            # A child's handle is closed by this thread or by `withdraw`, which wakes it: a wait on a closed handle
            # fails at once, and the next round uses the current handles.
            kernel32.WaitForMultipleObjects(len(handles), (HANDLE * len(handles))(*handles), False, patience)

    def _patience(self, *, too_many: bool) -> int:
        """Return the milliseconds until the next deadline."""
        if too_many or any(flight.starting_child is not None for flight in self._flights.values()):
            return int(_CHILD_INTERVAL * 1000)
        due = [flight.deadline for flight in self._flights.values() if not flight.child]
        return max(10, int((min(due) - time.monotonic()) * 1000)) if due else _INFINITE

    def _reap(self) -> None:
        for secret, flight in list(self._flights.items()):
            if flight.starting_child is not None:
                self._check_child(flight)
            if self._is_over(flight):
                del self._flights[secret]
                flight.close()

    def _check_child(self, flight: _Flight) -> None:
        child = flight.starting_child() if flight.starting_child is not None else None
        pid = getattr(child, "pid", None)
        if child is not None and pid is None:
            return
        flight.starting_child = None
        try:
            flight.child = processes.open_to_wait(int(pid)) if pid is not None else 0
        except ObjectManagerError:
            pid = None  # it has ended already
        if pid is None:
            flight.deadline = 0.0

    def _is_over(self, flight: _Flight) -> bool:
        if kernel32.WaitForSingleObject(flight.done, 0) == 0:
            return True
        if flight.child:
            return processes.ended(flight.child)
        if time.monotonic() < flight.deadline or flight.starting_child is not None:
            return False
        if flight.deadline and self._still_held(flight.shared):
            flight.deadline = time.monotonic() + _MINUTE  # the memory is alive in any case
            return False
        return True
