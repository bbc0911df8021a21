"""What the broker knows besides the object manager's model, and how clients bring it back after a restart.

How this works. A killed broker's clients announce to the next one what they hold: payloads with their descriptors,
then the shared objects on them, memory objects, handles, tickets; each is one request, and `Announced` ends it
(`server`). The model checks what can be checked; a refused announcement costs the client that one thing and nothing
else.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

from extmem.broker import wire
from extmem.broker.descriptors import OwnedFd
from extmem.broker.payloads import Payloads, inspect, is_writable
from extmem.broker.sessions import Session
from extmem.broker.tickets import Tickets
from extmem.broker.wire import READ_ONLY, READ_WRITE
from extmem.errors import PeerProtocolError
from extmem.objects import (
    HandleRecord,
    MemoryRecord,
    ObjectManager,
    ObjectRecord,
    PayloadRecord,
    Refused,
    Share,
    Status,
    TicketRecord,
)

__all__ = ["DONE", "Announcing", "Answer", "Facts", "has", "no_descriptors", "take"]

Answer: TypeAlias = tuple[wire.Reply, int | None]
"""A reply and the descriptor to send beside it (borrowed)."""

DONE: Final = wire.Done()
_PRUNE: Final = 64


class Facts:
    """What the broker knows of a payload besides its descriptor; `records` are the objects', ready to be sent."""

    __slots__ = ("description", "kind", "records", "stated", "strict_kmt")

    def __init__(self, description: bytes, kind: int, stated: int, *, strict_kmt: bool) -> None:
        self.description = description
        self.kind = kind
        self.stated = stated
        self.strict_kmt = strict_kmt
        self.records: dict[int, bytes] = {}


class Announcing:
    """The broker's knowledge, and the handlers of announcements."""

    def __init__(self, model: ObjectManager, payloads: Payloads, tickets: Tickets, now: Callable[[], float]) -> None:
        self.model = model
        self.payloads = payloads
        self.tickets = tickets
        self._now = now
        self.facts: dict[int, Facts] = {}
        self.processes: dict[int, int] = {}
        """Pid → the object manager's id of the process (the latest, if it has several connections)."""
        self.watch_process: Callable[[int], None] = _ignore
        """The server waits for this pidfd."""
        self.add_descendant: Callable[[socket.socket, int, Session], None] = _ignore_descendant
        """The server serves this end of the connection of a child of that session's process."""
        self.wake_at: Callable[[float], None] = _ignore_time
        """The server's loop has something to do at that time."""
        self.payload_changed: Callable[[], None] = _ignore_change
        """A payload may be sent with another descriptor from now on."""

    def collect(self) -> None:
        """Close the descriptors of payloads that nobody holds any more."""
        released = self.model.take_released()
        if released:
            self.payloads.drop(released)
            for payload in released:
                self.facts.pop(payload, None)

    # -- announcements after a restart --------------------------------------------------------------------------------

    def _announce_payload(self, session: Session, m: wire.AnnouncePayload, received: OwnedFd | None) -> Answer:
        fd = take(received)
        try:
            kind, identity = inspect(m.kind, fd, m.identity, session.token.uid)
            record = PayloadRecord(
                m.payload, identity, m.descriptor, Share(m.share), m.writable, m.kmt or None, m.strict_kmt
            )
            back = self.model.restore_payload(session.process, record)
        except BaseException:
            os.close(fd)
            raise
        has(session, back.payload, READ_WRITE if is_writable(kind, fd) else READ_ONLY)
        self.payloads.add(back.payload, kind, fd)
        self.payloads.upgrade(back.payload, session.token.uid)
        self.payload_changed()
        if back.payload not in self.facts:
            self.facts[back.payload] = Facts(m.descriptor, kind, m.identity, strict_kmt=m.strict_kmt)
        return wire.PayloadBack(back.payload, back.kmt or 0), None

    def _announce_object(self, session: Session, m: wire.AnnounceObject, received: OwnedFd | None) -> Answer:
        r = wire.decode_record(m.record)
        kept = self.model.restore_object(
            session.process, ObjectRecord(r.object, r.payload, r.name, r.owner, r.sddl, r.writable)
        )
        return wire.Value(int(kept)), None

    def _announce_memory(self, session: Session, m: wire.AnnounceMemory, received: OwnedFd | None) -> Answer:
        self.model.restore_memory(
            session.process, MemoryRecord(m.memory, m.payload, m.object or None, m.exporting, m.granted, m.inherit)
        )
        return DONE, None

    def _announce_handle(self, session: Session, m: wire.AnnounceHandle, received: OwnedFd | None) -> Answer:
        self.model.restore_handle(session.process, HandleRecord(m.handle, m.object, m.granted, m.inherit, m.protect))
        return DONE, None

    def _announce_ticket(self, session: Session, m: wire.AnnounceTicket, received: OwnedFd | None) -> Answer:
        ticket = int.from_bytes(m.ticket, "big")
        if self.tickets.was_claimed(ticket):
            return DONE, None
        self.model.restore_ticket(
            session.process, TicketRecord(ticket, m.what, m.payload, m.object or None, m.granted, m.demoted)
        )
        if not m.demoted:
            self.wake_at(self.tickets.offered(ticket, session.process, self._now()))
            if m.pid:
                self.bind(session, ticket, m.pid)
        return DONE, None

    def _announce_claimed(self, session: Session, m: wire.AnnounceClaimed, received: OwnedFd | None) -> Answer:
        self.tickets.claimed_before(int.from_bytes(m.ticket, "big"))
        return DONE, None

    def bind(self, session: Session, ticket: int, pid: int) -> None:
        """Bind a ticket to a process, and watch that. Refused for a ticket that is not the session's in flight."""
        try:
            fresh = self.tickets.bind(ticket, pid, session.process)
        except ProcessLookupError:
            self.model.withdraw(session.process, ticket)
            return
        except OSError as error:
            raise no_descriptors(error) from None
        if fresh is not None:
            self.watch_process(fresh)

    def record(self, facts: Facts, shared: int | None) -> bytes:
        """The shared object's record, encoded; empty for none."""
        if shared is None:
            return b""
        found = facts.records.get(shared)
        if found is None:
            if len(facts.records) >= _PRUNE:
                facts.records.clear()  # most are of objects that have ended; the living are made again when asked for
            r = self.model.object_record(shared)
            found = wire.encode(wire.ObjectRecord(r.object, r.payload, r.name, r.owner, r.sddl, r.writable))
            facts.records[shared] = found
        return found


def has(session: Session, payload: int, mode: int) -> None:
    """The client has a descriptor of the payload from now on."""
    session.held[payload] = session.held.get(payload, 0) | mode


def take(fd: OwnedFd | None) -> int:
    """The descriptor that came with a request; closing it is the caller's duty."""
    if fd is None:
        raise PeerProtocolError("a payload was announced without its file descriptor")
    return fd.take()


def no_descriptors(error: OSError) -> Refused:
    """The refusal for a broker that has no descriptors or memory left."""
    return Refused(
        Status.INSUFFICIENT_RESOURCES,
        f"The broker is out of resources ({error.strerror}). Free shared memory, or raise the limit of open files "
        "(ulimit -n) where the broker is started.",
    )


def _ignore(pidfd: int) -> None:
    """Before a server is there."""


def _ignore_descendant(sock: socket.socket, process: int, parent: Session) -> None:
    """Before a server is there."""


def _ignore_time(when: float) -> None:
    """Before a server is there."""


def _ignore_change() -> None:
    """Before a server is there."""
