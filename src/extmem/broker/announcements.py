"""The state that the broker has besides the object manager's model, and how clients restore it after a restart.

How this works. Each reply that gives a process a reference or a handle carries a signed record of it (`signing`). The
clients of a killed broker announce to its successor, during the recovery window only (`client_journal`): first their
records, each with the file descriptors of its payload, then their references, handles and tickets. Each is one request,
and `Announced` is the last (`recovery`). A record must have a valid signature, and its holder must be the sender's
user. The file descriptors must be of the files that the record states. A driver's file has no inode of its own, so
there the user who exported the payload (or root) must announce first, and other clients are asked to announce again
later. A client can restore only what a record that it announced covers. If an announcement is refused, the client loses
that one reference, handle or ticket and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from extmem import wire
from extmem.broker.fd_closer import FdCloser
from extmem.broker.fd_inspection import Given, inspect
from extmem.broker.fd_quota import FdQuota
from extmem.broker.payload_fds import PayloadFds
from extmem.broker.processes import ProcessKey
from extmem.broker.sessions import Session
from extmem.broker.signalers import Signalers, check_kind
from extmem.broker.signing import Signer, digest, digest_of_files
from extmem.broker.tickets import Tickets
from extmem.errors import PeerProtocolError
from extmem.objects import (
    OBJECT_TYPES,
    HandleRecord,
    Identity,
    ObjectKind,
    ObjectManager,
    ObjectRecord,
    ObjectType,
    PayloadRecord,
    ReferenceRecord,
    Refused,
    Share,
    Status,
    TicketRecord,
    checked_keep,
    known_kind,
)
from extmem.owning import OwnedFd
from extmem.sharing.kinds import Backing

__all__ = ["DONE", "Announcements", "Answer", "Facts", "Loop", "no_descriptors"]

Answer: TypeAlias = tuple[wire.Reply, Sequence[int]]
"""A reply and the file descriptors to send beside it (borrowed)."""
Received: TypeAlias = Sequence[OwnedFd]
"""The file descriptors that came with a request."""

DONE: Final = wire.Done()
_PRUNE: Final = 64
_HELD: Final = 256
_FEWER: Final = "Free shared memory, or raise the limit of open files (ulimit -n) where the broker is started."
_WAYS_OUT: Final = {
    errno.ETOOMANYREFS: "The processes of its user have reached the limit of file descriptors that were sent and not "
    "yet received. End the processes that do not receive them, and try again."
}


class Facts:
    """What the broker stores of a payload besides its files. `records` are the signed records, by their contents."""

    __slots__ = ("backing", "description", "object_kind", "records", "stated", "strict_kmt", "type", "uid")

    def __init__(
        self,
        description: bytes,
        object_kind: ObjectKind,
        backing: Backing,
        stated: int,
        uid: int,
        *,
        strict_kmt: bool,
    ) -> None:
        self.description = description
        self.object_kind = object_kind
        self.type: ObjectType = OBJECT_TYPES[object_kind]
        self.uid = uid
        self.backing = backing
        self.stated = stated
        self.strict_kmt = strict_kmt
        self.records: dict[tuple[int, int, int, bool], bytes] = {}


class Loop(msgspec.Struct, frozen=True):
    """The functions of the server's loop that requests need."""

    watch_process: Callable[[int], None]
    """Wait for this pidfd."""
    add_descendant: Callable[[socket.socket, int, Session], Session | None]
    """Serve this end of the connection of a child of that session's process."""
    drop: Callable[[Session], None]
    """Close a client's connection."""
    wake_at: Callable[[float], None]
    """Run the timed work at that time."""
    payload_changed: Callable[[], None]
    """Called when the file descriptors of a payload have been replaced."""
    attend: Callable[[int, Callable[[], None]], None]
    """Call a function when the other end of this pipe is closed. Raises OSError where the system refuses."""
    disregard: Callable[[int], None]
    """Do not wait for this file descriptor any more; it is about to be closed."""


class Announcements:
    """The state besides the model, and the handlers of announcements."""

    def __init__(
        self,
        model: ObjectManager,
        payloads: PayloadFds,
        tickets: Tickets,
        closer: FdCloser,
        signer: Signer,
        quota: FdQuota,
        now: Callable[[], float],
        loop: Loop,
    ) -> None:
        self.quota = quota
        self.model = model
        self.signer = signer
        self.payloads = payloads
        self.signalers = Signalers(payloads)
        self._closer = closer
        self.tickets = tickets
        self._now = now
        self.facts: dict[int, Facts] = {}
        self.processes: dict[ProcessKey, int] = {}
        """The object manager's id of each process (of the latest connection, if it has several)."""
        self.loop = loop

    def dispose(self, session: Session, fds: Iterable[int]) -> None:
        """Close file descriptors that a client sent and that do not belong to a payload."""
        for fd in fds:
            if self._closer.dispose(fd, session.token.uid):
                session.strange = True

    def collect(self) -> None:
        """After a reply: close the file descriptors of payloads without a holder."""
        released = self.model.take_released()
        if released:
            self.payloads.drop(released)
            for payload in released:
                self.facts.pop(payload, None)

    # -- announcements after a restart --------------------------------------------------------------------------------

    def _announce_record(self, session: Session, m: wire.AnnounceRecord, received: Received) -> Answer:
        fds = self.take(session, m.handles, received)
        uid = session.token.uid
        try:
            record = self.signer.verify(m.record)
            given = self._check(session, record, m, fds)
            if given is None:
                self.dispose(session, fds)
                return wire.RecordBack(0, 0, False), ()
            with self.on_account(session, given.identity):
                restored = PayloadRecord(
                    record.payload,
                    given.identity,
                    m.descriptor,
                    Share(record.share),
                    record.writable,
                    record.kmt or None,
                    record.strict_kmt,
                    record.uid,
                    known_kind(record.object_kind),
                )
                back = self.model.restore_payload(session.process, restored)
        except BaseException:
            self.dispose(session, fds)
            raise
        self.payloads.add(back.payload, given, fds, uid, session.process)
        if record.writable:
            self.payloads.upgrade(back.payload, uid)
        self.sent(session, back.payload, given)
        self.loop.payload_changed()
        if back.payload not in self.facts:
            self.facts[back.payload] = Facts(
                m.descriptor,
                known_kind(record.object_kind),
                given.backing,
                record.stated,
                record.uid,
                strict_kmt=record.strict_kmt,
            )
        self.has_page(session, back.payload, record.granted)
        named = not record.object or self.model.restore_object(
            session.process,
            ObjectRecord(
                record.object,
                record.payload,
                record.name,
                record.owner,
                record.sddl,
                record.writable,
                record.born,
                (record.publisher, record.publisher_start),
                checked_keep(record.keep, record.keep_ms),
            ),
        )
        session.proven.setdefault((record.payload, record.object), set()).add((record.granted, record.exporting))
        return wire.RecordBack(back.payload, back.kmt or 0, named), ()

    def sent(self, session: Session, payload: int, given: Given) -> None:
        """Record that the client has sent file descriptors of the payload, and so has them.

        Those of a frozen payload can be open for writing, and are of no use for that: the client gets others when it
        imports the payload for reading.
        """
        frozen = False
        if not given.writable:
            with contextlib.suppress(OSError):  # nobody gains a right: the kernel has the seals
                frozen = self.payloads.is_frozen(payload)
        if frozen:
            self.model.set_frozen(payload, True)
        else:
            self.has(session, payload, wire.READ_WRITE if given.writable else wire.READ_ONLY)

    def _check(
        self, session: Session, record: wire.HolderRecord, m: wire.AnnounceRecord, fds: Sequence[int]
    ) -> Given | None:
        """Inspect the file descriptors of a record. Return None if another client must announce the payload first."""
        uid = session.token.uid
        if record.holder != uid:
            raise _unproven(f"the record is of user {record.holder}, and you are user {uid}")
        if digest(m.descriptor) != record.digest:
            raise _unproven("the descriptor differs from the record's")
        if len(fds) != record.handles:
            raise _unproven(f"{len(fds)} handles came, and the record is of {record.handles}")
        pid = session.credentials.pid
        given = inspect(record.backing, fds, record.stated, record.uid, pid, record.pages)
        check_kind(record.object_kind, given, fds)
        if record.files:
            if not given.unique or digest_of_files(given.identity) != record.files:
                raise _unproven("the file descriptors are of other files than the record's")
        elif record.payload in self.payloads:
            # No inode proves that the fds are of this payload. Those that the broker has came from the payload's user.
            return msgspec.structs.replace(given, identity=self.model.payload_record(record.payload).identity)
        elif uid not in (0, record.uid):
            if m.wait:
                raise _unproven(f"user {record.uid}, who exported the payload, has not announced it")
            return None
        return given

    @contextlib.contextmanager
    def on_account(self, session: Session, identity: Identity) -> Iterator[None]:
        """Charge the descriptors of a payload that is new with this block to the accounts of the session's process.

        Refused QUOTA_EXCEEDED, before the block. Nothing is charged if the block raises.
        """
        new = self.model.find_payload(identity) is None
        if new:
            self.quota.take(session.token.uid, session.process, len(identity))
        try:
            yield
        except BaseException:
            if new:
                self.quota.give(session.token.uid, session.process, len(identity))
            raise

    def attach(self, session: Session, m: wire.AttachFds, received: Received) -> Answer:
        """Keep descriptors of the payload that the client's next request shares. Refused QUOTA_EXCEEDED."""
        if len(session.attached) + len(received) > wire.MAX_HANDLES:
            raise PeerProtocolError(f"more than {wire.MAX_HANDLES} handles of one payload were attached")
        self.quota.take(session.token.uid, session.process, len(received))
        session.attached += [fd.take() for fd in received]
        return wire.Attached(), ()

    def detach(self, session: Session) -> list[int]:
        """Return the descriptors that were attached, and take them off the client's accounts."""
        attached, session.attached = session.attached, []
        if attached:
            self.quota.give(session.token.uid, session.process, len(attached))
        return attached

    def take(self, session: Session, count: int, received: Received) -> list[int]:
        """Return all descriptors of a payload, which the caller must close. PeerProtocolError for another number."""
        fds = self.detach(session) + [fd.take() for fd in received]
        if len(fds) != count:
            self.dispose(session, fds)
            raise PeerProtocolError(f"a payload of {count} handles came with {len(fds)} file descriptors")
        return fds

    def knows(self, m: wire.AnnounceRecord) -> bool:
        """Whether the payload of this record has been announced; also for a record that will be refused."""
        try:
            return self.signer.verify(m.record).payload in self.payloads
        except Refused:
            return True

    def _prove(self, session: Session, payload: int, shared: int, granted: int, *, exporting: bool = False) -> None:
        """Refuse what is not covered by a record that the sender has announced."""
        for allowed, exports in session.proven.get((payload, shared), ()):
            if not granted & ~allowed and exports >= exporting:
                return
        raise _unproven("no record that you have announced covers this object with these rights")

    def _announce_reference(self, session: Session, m: wire.AnnounceReference, received: Received) -> Answer:
        self._prove(session, m.payload, m.object, m.granted, exporting=m.exporting)
        self.model.restore_reference(
            session.process,
            ReferenceRecord(m.reference, m.payload, m.object or None, m.exporting, m.granted, m.inherit),
        )
        return DONE, ()

    def _announce_handle(self, session: Session, m: wire.AnnounceHandle, received: Received) -> Answer:
        try:
            self._prove(session, m.payload, m.object, m.granted)
            record = HandleRecord(m.handle, m.object, m.granted, m.inherit, m.protect)
            self.model.restore_handle(session.process, record)
        except Refused:
            # The process may still use the value, so it must not be given to another handle.
            self.model.burn_handle(session.process, m.handle)
            raise
        return DONE, ()

    def _announce_ticket(self, session: Session, m: wire.AnnounceTicket, received: Received) -> Answer:
        ticket = int.from_bytes(m.ticket, "big")
        if self.tickets.was_claimed(ticket):
            return DONE, ()
        self._prove(session, m.payload, m.object, m.granted)
        self.model.restore_ticket(
            session.process, TicketRecord(ticket, m.source, m.payload, m.object or None, m.granted)
        )
        self.loop.wake_at(self.tickets.offered(ticket, session.process, self._now()))
        if received:
            self.bind(session, ticket, received[0])
        return DONE, ()

    def _announce_claimed(self, session: Session, m: wire.AnnounceClaimed, received: Received) -> Answer:
        self.tickets.claimed_before(int.from_bytes(m.ticket, "big"))
        return DONE, ()

    def bind(self, session: Session, ticket: int, pidfd: OwnedFd) -> None:
        """Bind a ticket to a process, and watch the process.

        Refused unless the session sent the ticket and it is in flight.
        """
        fresh = self.tickets.bind(ticket, pidfd, session.process)
        if fresh is not None:
            try:
                self.loop.watch_process(fresh)
            except OSError as error:
                self.tickets.unbind(ticket)
                raise no_descriptors(error) from None

    def has(self, session: Session, payload: int, mode: int) -> None:
        """Record that the client has the file descriptors of the payload in this mode."""
        held = session.held
        if len(held) >= session.held_room:
            # Clients report what they have closed, or should. No client has file descriptors of an ended payload.
            held = session.held = {number: modes for number, modes in held.items() if number in self.payloads}
            session.held_room = 2 * len(held) + _HELD
        held[payload] = held.get(payload, 0) | mode

    def has_page(self, session: Session, payload: int, granted: int, *, created: bool = False) -> None:
        """Record that the client has the page of a semaphore or fence, with these rights.

        created: it is the first process that shares it.
        """
        facts = self.facts[payload]
        if facts.object_kind is not ObjectKind.MEMORY:
            self.signalers.has(session, payload, granted & facts.type.modify != 0, created=created)

    def forget(self, session: Session, payload: int) -> None:
        """Record that the client has closed the file descriptors of the payload; 0 for none."""
        if payload:
            session.held.pop(payload, None)
            self.signalers.closed(session.process, payload)

    def record(self, session: Session, payload: int, shared: int, granted: int, *, exporting: bool = False) -> bytes:
        """Return the signed record of what a process of the session's user holds.

        shared: the object; for a payload that is shared by KMT number, the negated number (0 where it has none).
        """
        facts = self.facts[payload]
        key = (shared, session.token.uid, granted, exporting)
        found = facts.records.get(key)
        if found is None:
            if len(facts.records) >= _PRUNE:
                facts.records.clear()  # most are of ended objects; the others are signed again on demand
            found = facts.records[key] = self.signer.sign(self._record(facts, payload, *key))
        return found

    def _record(
        self, facts: Facts, payload: int, shared: int, holder: int, granted: int, exporting: bool
    ) -> wire.HolderRecord:
        p = self.model.payload_record(payload)
        given = self.payloads.given(payload)
        if shared > 0:
            o = self.model.object_record(shared)
        else:
            o = ObjectRecord(0, payload, None, p.uid, "", p.writable)
        return wire.HolderRecord(
            payload,
            o.object,
            o.name,
            o.owner,
            o.sddl,
            o.writable,
            o.born,
            holder,
            granted,
            exporting,
            p.object_kind,
            facts.backing,
            len(p.identity),
            given.pages,
            p.share,
            p.kmt or 0,
            p.strict_kmt,
            facts.stated,
            p.uid,
            digest_of_files(p.identity) if given.unique else b"",
            digest(facts.description),
            *o.publisher,
            o.keep.mode,
            o.keep.milliseconds,
        )


def _unproven(why: str) -> Refused:
    return Refused(Status.ACCESS_DENIED, f"The announcement is refused: {why}. Share the memory anew.")


def no_descriptors(error: OSError) -> Refused:
    """Return the refusal for a broker that has no file descriptors or memory left."""
    return Refused(
        Status.INSUFFICIENT_RESOURCES,
        f"The broker is out of resources ({error.strerror}). {_WAYS_OUT.get(error.errno or 0, _FEWER)}",
    )
