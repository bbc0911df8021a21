"""Waits for names, leases, objects that the broker itself keeps, and names that were given to another object.

How this works. A process that waits for a name gets the read end of a pipe; the broker has the other end. When the wait
is over, a byte is written to it, and the process asks for the result (`EndWait`). The model has got the process its
reference by then, so the payload cannot end in between. The process ends the wait early by closing its end, which the
broker sees, whatever the process does or however it ends. The pipe is charged to the process like its other fds.

A lease (`leases`) has such a pipe, too: a byte comes when the process is the only one that may update the payload, and
the process gives the lease back by closing its end. If it has ended inside an update, the control page of the payload
is marked first, and then the next process gets the lease.

What is due later is done in `collect`, which is called after each reply: an export is published to those who wait when
its exporter has its reply. So an export that is undone, because its reply could not be sent, was not seen by anyone.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import os
import select
from typing import Any, Final

from extmem import wire
from extmem.broker.announcements import Answer, Received, no_descriptors
from extmem.broker.granting import Granting
from extmem.broker.leases import Leases
from extmem.broker.names_page import NamesPage
from extmem.broker.object_notes import ObjectNotes
from extmem.broker.sessions import Made, Session
from extmem.objects import ObjectKind, Reference, Refused, Status

__all__ = ["Naming"]

_MOST_WRITERS: Final = 16
"""Number of processes that one reply names."""


class Naming(Granting):
    """The handlers of these requests, and the state of the waits."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.page = NamesPage()
        self.leases = Leases()
        self.notes: ObjectNotes | None = None
        """Where a successor finds what clients cannot announce."""
        self._last_wait = 0
        self._pipes: dict[int, dict[int, tuple[int, int]]] = {}
        """Process → number of the wait → the write end of its pipe, and the user."""
        self._times: list[tuple[float, int]] = []
        """Heap of the times at which the keeping of objects ends, unless a process holds them by then."""
        self._ends: dict[int, float] = {}
        """Object → its time in the heap; other entries of it are from before a process opened it again."""

    # -- waits --------------------------------------------------------------------------------------------------------

    def _await_name(self, session: Session, m: wire.AwaitName, received: Received) -> Answer:
        number = self._last_wait + 1
        found = self.model.await_name(session.process, number, m.name, m.desired, m.object_kind)
        if found is not None:
            return self._imported(session, found)
        self._last_wait = number
        try:
            theirs = self._add_pipe(session, number)
        except BaseException:
            self.model.cancel_wait(session.process, number)
            raise
        session.made = Made(wait=number)
        return wire.Awaited(number), (theirs,)

    def _add_pipe(self, session: Session, number: int) -> int:
        """Return the read end of a new pipe, which the server closes once it is sent. Raises Refused."""
        uid, process = session.token.uid, session.process
        self.quota.take(uid, process)
        try:
            theirs, ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                self.loop.attend(ours, functools.partial(self._hung_up, process, number))
            except OSError:
                os.close(theirs)
                os.close(ours)
                raise
        except OSError as error:
            self.quota.give(uid, process)
            raise no_descriptors(error) from None
        self._pipes.setdefault(process, {})[number] = ours, uid
        return theirs

    def _end_wait(self, session: Session, m: wire.EndWait, received: Received) -> Answer:
        self._close_pipe(session.process, m.number)
        self._end_lease(session.process, m.number)  # a lease without its pipe would never end
        return self._imported(session, self.model.end_wait(session.process, m.number))

    def _hung_up(self, process: int, number: int) -> None:
        """Handle that the process has closed its end of the pipe, if it has: another pipe may have had the number of
        this one when the loop saw that.
        """
        fd, _ = self._pipes.get(process, {}).get(number, (-1, 0))
        if fd < 0:
            return
        pipe = select.poll()
        pipe.register(fd, 0)
        if pipe.poll(0):
            self.end_wait(process, number)
        self.collect()

    def end_wait(self, process: int, number: int) -> None:
        """End a wait whose result nobody wants."""
        self._close_pipe(process, number)
        self._end_lease(process, number)
        self.model.cancel_wait(process, number)

    def end_waits(self, process: int) -> None:
        """Close the pipes of a process that has ended. The model ends its waits. Its payloads must still exist."""
        for number in list(self._pipes.get(process, ())):
            self._close_pipe(process, number)
            self._end_lease(process, number)

    def _close_pipe(self, process: int, number: int) -> None:
        pipes = self._pipes.get(process, {})
        fd, uid = pipes.pop(number, (-1, 0))
        if not pipes:
            self._pipes.pop(process, None)
        if fd >= 0:
            self.loop.disregard(fd)
            os.close(fd)
            self.quota.give(uid, process)

    # -- leases -------------------------------------------------------------------------------------------------------

    def _check_updatable(self, reference: Reference) -> None:
        """Refuse what is not memory, and what was opened for reading only."""
        payload = reference.payload
        if payload.object_kind is not ObjectKind.MEMORY:
            raise Refused(
                Status.OBJECT_TYPE_MISMATCH, f"This is {payload.type.noun}, and only memory is updated. Signal it."
            )
        if not (reference.exporting or reference.granted & payload.type.modify):
            raise Refused(
                Status.ACCESS_DENIED,
                "This memory was opened for reading only, so it cannot be updated. Open it with Access.READ_WRITE, "
                "which its owner must grant.",
            )

    def _lease(self, session: Session, m: wire.Lease, received: Received) -> Answer:
        process = session.process
        reference = self.model.reference(process, m.reference)
        payload = reference.payload
        self._check_updatable(reference)
        try:
            page = self.payloads.control_identity(payload.id)
        except OSError as error:
            raise no_descriptors(error) from None
        self._last_wait = number = self._last_wait + 1
        theirs = self._add_pipe(session, number)
        session.made = Made(wait=number)
        if self.leases.enter(page, payload.id, process, number, session.credentials.pid):
            self._tell(process, number)
        return wire.Awaited(number), (theirs,)

    def _freeze(self, session: Session, m: wire.Freeze, received: Received) -> Answer:
        process = session.process
        first = self.model.reference(process, m.references[0])
        payload = first.payload
        self._check_updatable(first)
        try:
            page = self.payloads.control_identity(payload.id)
            together = self.payloads.with_page(page, payload.id)
            if self.payloads.is_frozen(payload.id):
                for one in together:
                    self.model.set_frozen(one, True)
                return wire.Writers(()), ()
        except OSError as error:
            raise no_descriptors(error) from None
        if self.leases.holder(page) != process:
            raise Refused(
                Status.INVALID_PARAMETER,
                "Only the process that has the lease of memory freezes it. Ask for the lease first.",
            )
        return wire.Writers(tuple(self.model.freeze(process, m.references, together)[:_MOST_WRITERS])), ()

    def _end_freeze(self, payload: int) -> None:
        """Decide by the seals whether a payload stays frozen, when the lease of the process ends that has frozen it."""
        if payload not in self.payloads or not self.model.is_frozen(payload):
            return
        with contextlib.suppress(OSError):  # it stays frozen
            frozen = self.payloads.is_frozen(payload)
            for one in self.payloads.with_page(self.payloads.control_identity(payload), payload):
                self.model.set_frozen(one, frozen)

    def _end_lease(self, process: int, number: int) -> None:
        """End a lease, if the number is one, and give it to the next. Its pipe is closed."""
        ended = self.leases.leave(process, number)
        if ended is None or not ended.held:
            return
        self.signalers.left_update(ended.payload, ended.pid)
        self._end_freeze(ended.payload)
        if ended.following is not None:
            self._tell(*ended.following)

    def _tell(self, process: int, number: int) -> None:
        """Tell a process that its wait is over, or that it has the lease."""
        fd, _ = self._pipes.get(process, {}).get(number, (-1, 0))
        with contextlib.suppress(OSError):  # the process has closed its end: the loop is about to see that
            os.write(fd, b"!")

    # -- kept and superseded objects ----------------------------------------------------------------------------------

    def _forget(self, session: Session, m: wire.Forget, received: Received) -> Answer:
        number = self.model.forget(session.process, m.name)
        if number and self.notes is not None and self.model.is_live(number):
            self.notes.note("forgotten", number)
        return wire.Value(int(number > 0)), ()

    def _is_superseded(self, session: Session, m: wire.IsSuperseded, received: Received) -> Answer:
        return wire.Value(int(self.model.is_superseded(session.process, m.reference))), ()

    def _watch_names(self, session: Session, m: wire.WatchNames, received: Received) -> Answer:
        try:
            return wire.NamesPage(), (self.page.read_only_fd(),)
        except OSError as error:
            raise no_descriptors(error) from None

    def settle(self, session: Session) -> None:
        """Record that the client has got the reply to its export that replaced another object."""
        session.replaced = False
        self.model.settle(session.process)

    def superseded(self) -> None:
        """Tell clients and a successor about the names that were given to another object, before the reply is sent."""
        for number, payload, is_so in self.model.take_superseded():
            self.page.add_one()
            self.signalers.wake_readers(payload)
            if self.notes is None:
                continue
            if is_so:
                self.notes.note("superseded", number)
            else:
                self.notes.undo(number)
        if self.notes is not None:
            self.notes.prune(self.model.is_live)

    # -- what is due later --------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """See `Announcements`; and publish names to those who wait for them."""
        super().collect()
        if not self.model.has_news:
            return
        self.superseded()
        now = self._now()
        for number, milliseconds in self.model.take_unused():
            end = self._ends[number] = now + milliseconds / 1000
            heapq.heappush(self._times, (end, number))
            self.loop.wake_at(end)
        for process, number in self.model.serve_waits():
            self._tell(process, number)

    def end_times(self, now: float) -> None:
        """End the keeping of objects whose time is over."""
        while self._times and self._times[0][0] <= now:
            end, number = heapq.heappop(self._times)
            if self._ends.get(number) == end:
                del self._ends[number]
                self.model.end_time(number)
        if self._times:
            self.loop.wake_at(self._times[0][0])

    def close(self) -> None:
        """Close all pipes and the page."""
        for process in list(self._pipes):
            self.end_waits(process)
        self.page.close()
