"""Tickets: a reference in flight to another process, for pickling.

How this works. The sender `offer`s something it holds and sends the ticket, an unguessable number, by any road. Until
the receiver claims it, the ticket itself keeps the thing alive. It ends when it is claimed (once), withdrawn, or when
its time is over; whoever runs this says when that is. While the sender lives, a ticket whose time is over is only
demoted: it keeps nothing any more, but can still be claimed while the thing lives otherwise, so that a slow receiver of
living memory is not punished. A demoted ticket ends with the object manager: it is not announced to the next one.

A ticket outlives its sender: a worker may end before its result is read. It then keeps the payload, and the shared
object with its rights, but neither its name nor its KMT number: those belong to living processes. Tickets count against
their sender's user. Where a user has too many, demoted ones make room, the oldest first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from extmem.objects.entities import Payload, Process, SharedObject, Ticket, User
from extmem.objects.lifetimes import KEEPS, Holder, Keeps
from extmem.objects.memories import Memories
from extmem.objects.results import TYPE_NAME, Claimed
from extmem.objects.status import Refused, Status

__all__ = ["Tickets"]

_NT: Final = KEEPS[Holder.NT_TICKET]
_KMT: Final = KEEPS[Holder.KMT_TICKET]
_ORPHANED: Final = KEEPS[Holder.ORPHANED_TICKET]
_DEMOTED: Final = KEEPS[Holder.DEMOTED_TICKET]
_TICKET_RANGE: Final = 1 << 128


class Tickets(Memories):
    """Operations on tickets."""

    def offer(
        self, process: int, *, memory: int | None = None, handle: int | None = None, kmt: int | None = None
    ) -> int:
        """A ticket (128 random bits) for exactly one of: a memory object, a handle of the caller, a live KMT number.

        The claimer gets the same rights: for exporting memory those of its handles. Refused INVALID_HANDLE,
        INVALID_PARAMETER, OBJECT_TYPE_MISMATCH, ACCESS_DENIED (memory without READ_CONTROL), QUOTA_EXCEEDED.
        """
        sender = self._process(process)
        if (memory is not None) + (handle is not None) + (kmt is not None) != 1:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"A ticket stands for one thing; given were memory={memory}, handle={handle}, kmt={kmt}. Pass "
                "exactly one.",
            )
        self._ticket_room(sender.token.uid)
        if memory is not None:
            found = self._memory(sender, memory)
            self._check_readable(found.granted)
            return self._issue(sender, "memory", found.payload, found.object, found.granted)
        if handle is not None:
            entry = sender.table.find(handle)
            if not isinstance(entry.object, SharedObject):
                raise Refused(
                    Status.OBJECT_TYPE_MISMATCH,
                    f"The handle {handle:#x} refers to an object of type {entry.object.type_name}, not {TYPE_NAME}.",
                )
            return self._issue(sender, "handle", entry.object.payload, entry.object, entry.granted)
        payload = self._kmt.find(kmt if kmt is not None else 0)
        return self._issue(sender, "kmt", payload, None, self._kmt_rights(payload))

    def claim(self, process: int, ticket: int) -> Claimed:
        """Take what a ticket stands for, once. Handles come with flags 0 and the rights of the source.

        Refused INVALID_HANDLE for a ticket that is unknown, used, withdrawn or whose thing is gone; ACCESS_DENIED for
        another user (uid 0 may); QUOTA_EXCEEDED, then the ticket stays.
        """
        claimer = self._process(process)
        found = self._tickets.get(ticket)
        if found is None:
            raise Refused(
                Status.INVALID_HANDLE,
                "The ticket is not in flight: it was claimed before (each can be claimed once), withdrawn, or nobody "
                "has claimed it in time. Send the object again, and have the receiver read it sooner.",
            )
        if claimer.token.uid not in (0, found.user.uid):
            raise Refused(
                Status.ACCESS_DENIED,
                f"User {claimer.token.uid} can't claim what user {found.user.uid} sent. Open the memory by name.",
            )
        claimed = replace(self._claim(claimer, found), ticket=found)
        self._drop_ticket(found)
        return claimed

    def put_back(self, process: int, claimed: Claimed) -> Ticket | None:
        """Undo a claim whose answer did not arrive: what it made ends, and the ticket is in flight again. The ticket,
        unless it is in flight already, or its payload has ended since (a KMT number that was claimed kept nothing).
        """
        claimer = self._process(process)
        ticket = claimed.ticket if isinstance(claimed.ticket, Ticket) and not self._has(claimed.ticket) else None
        if ticket is not None and self._payloads.get(ticket.payload.id) is not ticket.payload:
            ticket = None
        if ticket is not None:
            if ticket.sender is not None and ticket.sender.ended:
                ticket.sender = None
                ticket.keeps = _ORPHANED if ticket.keeps.payload else _DEMOTED
            self._put_ticket(ticket)
        if claimed.imported is not None:
            self._free(claimer, claimed.imported.memory)
        if claimed.handle is not None:
            self._close(claimer, claimed.handle)
        return ticket

    def withdraw(self, process: int, ticket: int) -> bool:
        """The sender takes its ticket back. False when it is not in flight any more. Refused ACCESS_DENIED for
        another's.
        """
        sender = self._process(process)
        found = self._tickets.get(ticket)
        if found is None:
            return False
        if found.sender is not sender:
            whose = "one that has ended" if found.sender is None else f"process {found.sender.pid}'s"
            raise Refused(Status.ACCESS_DENIED, f"The ticket is {whose}. Only the sender withdraws it.")
        self._drop_ticket(found)
        return True

    def cancel(self, ticket: int) -> None:
        """The ticket ends, whosever it is. Nothing happens if it is not in flight any more."""
        found = self._tickets.get(ticket)
        if found is not None:
            self._drop_ticket(found)

    def expire(self, ticket: int) -> bool:
        """The ticket's time is over: it is demoted, or ends if its sender has. Whether it is still in flight."""
        found = self._tickets.get(ticket)
        if found is None:
            return False
        if found.sender is None:
            self._drop_ticket(found)
        elif found.keeps.payload:
            kept, found.keeps = found.keeps, _DEMOTED
            found.user.weak[ticket] = found
            self._release(kept, found.payload, found.object)
        return self._has(found)

    def _has(self, ticket: Ticket) -> bool:
        return ticket.id in self._tickets

    def _claim(self, claimer: Process, ticket: Ticket) -> Claimed:
        shared, payload = ticket.object, ticket.payload
        if ticket.kind == "handle" and shared is not None:
            return Claimed(handle=self._add_handle(claimer, shared, ticket.granted, 0))
        if shared is not None:
            return Claimed(imported=self._import_nt(claimer, shared, ticket.granted))
        if ticket.kind == "memory":
            return Claimed(imported=self._import_kmt(claimer, payload))
        return Claimed(kmt=self._live_number(payload))

    @staticmethod
    def _live_number(payload: Payload) -> int:
        if payload.kmt is None:  # strict, and its exporter freed it while the ticket was on its way
            raise Refused(
                Status.INVALID_HANDLE,
                "The KMT number died on its way: its exporter freed the memory (strict_kmt). Keep the exporter's "
                "memory alive.",
            )
        return payload.kmt

    def _issue(self, sender: Process, kind: str, payload: Payload, shared: SharedObject | None, granted: int) -> int:
        while (number := self._random(_TICKET_RANGE)) in self._tickets or not number:
            pass
        keeps = self._ticket_keeps(shared)
        self._put_ticket(Ticket(number, User(sender.token.uid), sender, kind, payload, shared, granted, keeps))
        return number

    @staticmethod
    def _ticket_keeps(shared: SharedObject | None) -> Keeps:
        return _KMT if shared is None else _NT

    def _put_ticket(self, ticket: Ticket) -> None:
        ticket.user = self._users.setdefault(ticket.user.uid, ticket.user)
        self._retain(ticket.keeps, ticket.payload, ticket.object)
        self._tickets[ticket.id] = ticket
        ticket.user.tickets[ticket.id] = ticket
        if not ticket.keeps.payload:
            ticket.user.weak[ticket.id] = ticket
        if ticket.sender is not None:
            ticket.sender.tickets[ticket.id] = ticket
        target = ticket.payload if ticket.object is None else ticket.object
        target.tickets[ticket.id] = ticket

    def _ticket_room(self, uid: int) -> None:
        user = self._users.get(uid)
        if user is None or len(user.tickets) < self.limits.tickets:
            return
        for oldest in user.weak.values():
            self._drop_ticket(oldest)
            return
        raise Refused(
            Status.QUOTA_EXCEEDED,
            f"Processes of user {uid} have sent {len(user.tickets)} objects that nobody has received yet, as many as "
            "one user's may. Have the receivers take them, or send fewer at once: those that nobody takes in time make "
            "room.",
        )
