"""Tickets: a reference in flight to another process, for pickling.

How this works. The sender `offer`s something that it holds and sends the ticket, an unguessable number, by any channel.
Until the receiver claims it, the ticket itself keeps the payload alive. It ends when it is claimed (once), withdrawn,
or when its time is over; the caller of this module decides when that is. While the sender lives, a ticket whose time is
over is only demoted: it keeps nothing alive, and can still be claimed while something else keeps the payload alive, so
that a slow receiver of a live payload gets it. A demoted ticket ends with the object manager: it is not announced to
the next one.

A ticket outlives its sender: a worker may end before its result is read. It then keeps the payload, and the shared
object with its rights, but neither its name nor its KMT number: those belong to live processes. Tickets count against
the user of their sender. Where a user has too many, demoted tickets are dropped, the oldest first.
"""

from __future__ import annotations

from typing import Final

import msgspec

from extmem.objects.entities import Payload, Process, SharedObject, Ticket, User
from extmem.objects.handles import Handles
from extmem.objects.lifetimes import DEMOTED_TICKET, KMT_TICKET, NT_TICKET, ORPHANED_TICKET
from extmem.objects.object_types import OBJECT_TYPES
from extmem.objects.references import References
from extmem.objects.results import Claimed
from extmem.objects.status import Refused, Status

__all__ = ["Tickets"]

_TICKET_RANGE: Final = 1 << 128


class Tickets(Handles, References):
    """Operations on tickets."""

    def offer(
        self, process: int, *, reference: int | None = None, handle: int | None = None, kmt: int | None = None
    ) -> int:
        """Return a ticket (128 random bits) for exactly one of: a reference, a handle of the caller, a live KMT number.

        The claimer gets the same rights: for an exporting reference, those of its handles. Refused INVALID_HANDLE,
        INVALID_PARAMETER, OBJECT_TYPE_MISMATCH, ACCESS_DENIED (a reference without READ_CONTROL), QUOTA_EXCEEDED.
        """
        sender = self._process(process)
        if (reference is not None) + (handle is not None) + (kmt is not None) != 1:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"A ticket is for one thing; given were reference={reference}, handle={handle}, kmt={kmt}. Pass "
                "exactly one.",
            )
        self._ticket_room(sender.token.uid)
        if reference is not None:
            found = self._reference(sender, reference)
            self._check_readable(found.granted, found.payload.type)
            return self._issue(sender, "reference", found.payload, found.object, found.granted)
        if handle is not None:
            entry = sender.table.find(handle)
            if not isinstance(entry.object, SharedObject):
                raise Refused(
                    Status.OBJECT_TYPE_MISMATCH,
                    f"The handle {handle:#x} refers to an object of type {entry.object.type.name}, which extmem does "
                    f"not share. Pass a handle to {' or '.join(known.noun for known in OBJECT_TYPES.values())}.",
                )
            return self._issue(sender, "handle", entry.object.payload, entry.object, entry.granted)
        payload = self._kmt.find(kmt if kmt is not None else 0)
        return self._issue(sender, "kmt", payload, None, self._kmt_rights(payload))

    def claim(self, process: int, ticket: int) -> Claimed:
        """Take what a ticket is for, once. A handle has flags 0 and the rights of the source.

        Refused INVALID_HANDLE for a ticket that is unknown, used or withdrawn, or whose payload has ended;
        ACCESS_DENIED for another user (uid 0 may claim it); QUOTA_EXCEEDED, then the ticket stays.
        """
        claimer = self._process(process)
        found = self._tickets.get(ticket)
        if found is None:
            raise Refused(
                Status.INVALID_HANDLE,
                "The ticket is not in flight: it was claimed before (each can be claimed once), withdrawn, or not "
                "claimed in time. Send the object again, and have the receiver read it sooner.",
            )
        if claimer.token.uid not in (0, found.user.uid):
            raise Refused(
                Status.ACCESS_DENIED,
                f"User {claimer.token.uid} cannot claim what user {found.user.uid} sent. Open it by name.",
            )
        claimed = msgspec.structs.replace(self._claim(claimer, found), ticket=found)
        self._drop_ticket(found)
        return claimed

    def put_back(self, process: int, claimed: Claimed) -> Ticket | None:
        """Undo a claim whose reply did not arrive: what it created ends, and the ticket is in flight again.

        Return the ticket; None if it is in flight already, or if its payload has ended since (a claimed KMT number
        keeps nothing alive).
        """
        self._process(process)
        ticket = (
            claimed.ticket if isinstance(claimed.ticket, Ticket) and claimed.ticket.id not in self._tickets else None
        )
        if ticket is not None and self._payloads.get(ticket.payload.id) is not ticket.payload:
            ticket = None
        if ticket is not None:
            if ticket.sender is not None and ticket.sender.ended:
                ticket.sender = None
                ticket.keeps = ORPHANED_TICKET if ticket.keeps.payload else DEMOTED_TICKET
            self._put_ticket(ticket)
        if claimed.imported is not None:
            self.undo_reference(process, claimed.imported.reference)
        if claimed.handle is not None:
            self.discard_handle(process, claimed.handle)
        return ticket

    def withdraw(self, process: int, ticket: int) -> bool:
        """End a ticket of the calling process. Return False when it is not in flight any more.

        Refused ACCESS_DENIED for a ticket of another process.
        """
        sender = self._process(process)
        found = self._tickets.get(ticket)
        if found is None:
            return False
        if found.sender is not sender:
            whose = "a process that has ended" if found.sender is None else f"process {found.sender.pid}"
            raise Refused(Status.ACCESS_DENIED, f"The ticket is of {whose}. Only its sender can withdraw it.")
        self._drop_ticket(found)
        return True

    def cancel(self, ticket: int) -> None:
        """End a ticket of any process. Nothing happens if it is not in flight any more."""
        found = self._tickets.get(ticket)
        if found is not None:
            self._drop_ticket(found)

    def expire(self, ticket: int) -> bool:
        """End the time of a ticket. It is demoted, or ends if its sender has ended. Return whether it is in flight."""
        found = self._tickets.get(ticket)
        if found is None:
            return False
        if found.sender is None:
            self._drop_ticket(found)
        elif found.keeps.payload:
            kept, found.keeps = found.keeps, DEMOTED_TICKET
            found.user.weak[ticket] = found
            self._release(kept, found.payload, found.object)
        return ticket in self._tickets

    def _claim(self, claimer: Process, ticket: Ticket) -> Claimed:
        shared, payload = ticket.object, ticket.payload
        if ticket.source == "handle" and shared is not None:
            return Claimed(handle=self._add_handle(claimer, shared, ticket.granted, 0))
        if shared is not None:
            return Claimed(imported=self._import_nt(claimer, shared, ticket.granted))
        if ticket.source == "reference":
            return Claimed(imported=self._import_kmt(claimer, payload))
        return Claimed(kmt=self._live_number(payload))

    @staticmethod
    def _live_number(payload: Payload) -> int:
        if payload.kmt is None:  # strict, and its exporter freed it while the ticket was on its way
            raise Refused(
                Status.INVALID_HANDLE,
                "The KMT number ended in flight: its exporter freed the payload (strict_kmt). Keep the exporter's "
                "payload alive.",
            )
        return payload.kmt

    def _issue(self, sender: Process, source: str, payload: Payload, shared: SharedObject | None, granted: int) -> int:
        while (number := self._random(_TICKET_RANGE)) in self._tickets or not number:
            pass
        keeps = KMT_TICKET if shared is None else NT_TICKET
        self._put_ticket(Ticket(number, User(sender.token.uid), sender, source, payload, shared, granted, keeps))
        return number

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
            f"Processes of user {uid} have sent {len(user.tickets)} objects that were not received yet, the limit of "
            "one user. Have the receivers take them, or send fewer at once: those that are not taken in time make "
            "room.",
        )
