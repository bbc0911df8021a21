"""The handlers of requests: each calls the object manager's model and returns a reply.

How this works. `Dispatch.answer` looks the handler up by message type. A handler calls the model, and returns the reply
with the file descriptors to send beside it. A handler that raises `Refused` has changed nothing, and the server sends
the refusal. File descriptors that came with a request belong to its `OwnedFd`s until a handler takes them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec

from extmem import wire
from extmem.broker.announcements import DONE, Answer, Facts, Loop, Received, no_descriptors
from extmem.broker.fd_closer import FdCloser
from extmem.broker.fd_inspection import Given, inspect
from extmem.broker.fd_quota import CLIENT, FdQuota
from extmem.broker.naming import Naming
from extmem.broker.payload_fds import PayloadFds
from extmem.broker.processes import key_of
from extmem.broker.sessions import Made, Session
from extmem.broker.signalers import check_kind
from extmem.broker.signing import Signer
from extmem.broker.snapshot_pages import SnapshotPages
from extmem.broker.tickets import Tickets
from extmem.objects import (
    ObjectManager,
    Refused,
    Share,
    Status,
    checked_keep,
)
from extmem.owning import OwnedFd

__all__ = ["Answer", "Dispatch"]

_PAGE: Final = 1_024
"""Number of handle values in one reply."""


class Dispatch(Naming):
    """The handlers of all requests."""

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
        super().__init__(model, payloads, tickets, closer, signer, quota, now, loop)
        # The type of the table cannot express that each handler takes the type of its key.
        self.handlers: dict[type[Any], Callable[[Session, Any, Received], Answer]] = {
            wire.Export: self._export,
            wire.ImportName: self._import_name,
            wire.ImportHandle: self._import_handle,
            wire.ImportKmt: self._import_kmt,
            wire.Release: self._release,
            wire.GetHandle: self._get_handle,
            wire.OpenHandle: self._open_handle,
            wire.CloseHandle: self._close_handle,
            wire.Duplicate: self._duplicate,
            wire.SameObject: self._same_object,
            wire.QueryHandle: self._query_handle,
            wire.SetFlags: self._set_flags,
            wire.KmtAlive: self._kmt_alive,
            wire.Offer: self._offer,
            wire.Claim: self._claim,
            wire.BindOffer: self._bind_offer,
            wire.Withdraw: self._withdraw,
            wire.Snapshot: self._snapshot,
            wire.Inherit: self._inherit,
            wire.Hold: self._hold,
            wire.ListHandles: self._list_handles,
            wire.AttachFds: self.attach,
            wire.FetchFds: self._fetch_fds,
            wire.AwaitName: self._await_name,
            wire.EndWait: self._end_wait,
            wire.Forget: self._forget,
            wire.IsSuperseded: self._is_superseded,
            wire.WatchNames: self._watch_names,
            wire.Lease: self._lease,
            wire.Freeze: self._freeze,
            wire.AnnounceRecord: self._announce_record,
            wire.AnnounceReference: self._announce_reference,
            wire.AnnounceHandle: self._announce_handle,
            wire.AnnounceTicket: self._announce_ticket,
            wire.AnnounceClaimed: self._announce_claimed,
        }

    def answer(self, session: Session, request: wire.Request, received: Received) -> Answer:
        """Carry out one request, which its sender is permitted to send (`rights`). Raises Refused."""
        if session.attached and not isinstance(request, wire.AttachFds | wire.Export | wire.AnnounceRecord):
            self.dispose(session, self.detach(session))  # the client has abandoned that export
        return self.handlers[type(request)](session, request, received)

    # -- references -----------------------------------------------------------------------------------------------

    def _export(self, session: Session, m: wire.Export, received: Received) -> Answer:
        fds = self.take(session, m.handles, received)
        try:
            given = inspect(m.backing, fds, m.identity, session.token.uid, session.credentials.pid, m.pages)
            check_kind(m.object_kind, given, fds)
            self._check_same(given)
            with self.on_account(session, given.identity):
                made = self.model.export(
                    session.process,
                    given.identity,
                    m.descriptor,
                    share=Share(m.share),
                    name=m.name,
                    access=m.access,
                    sddl=m.sddl,
                    inherit=m.inherit,
                    strict_kmt=m.strict_kmt,
                    writable=given.writable,
                    object_kind=m.object_kind,
                    replace=m.replace,
                    keep=checked_keep(m.keep, m.keep_ms),
                )
        except BaseException:
            self.dispose(session, fds)
            raise
        payload = made.payload
        if m.replace:
            session.replaced = True
            self.superseded()
        session.made = Made(reference=made.reference, payload=payload, held=session.held.get(payload, 0))
        self.payloads.add(payload, given, fds, session.token.uid, session.process)
        facts = self.facts.get(payload)
        created = facts is None
        if facts is None:
            record = self.model.payload_record(payload)
            facts = Facts(
                record.descriptor,
                record.object_kind,
                given.backing,
                m.identity,
                session.token.uid,
                strict_kmt=record.strict_kmt,
            )
            self.facts[payload] = facts
        self.sent(session, payload, given)
        granted = self.model.reference(session.process, made.reference).granted
        self.has_page(session, payload, granted, created=created)
        return (
            wire.Exported(
                made.reference,
                payload,
                made.object or 0,
                granted,
                made.kmt or 0,
                facts.strict_kmt,
                facts.description,
                self.record(session, payload, made.object or -(made.kmt or 0), granted, exporting=True),
            ),
            (),
        )

    def _check_same(self, given: Given) -> None:
        """Refuse to share the same files with another backing or other companion pages: they are one payload."""
        found = self.model.find_payload(given.identity)
        if found is None:
            return
        known = self.payloads.given(found)
        if known.backing is not given.backing:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"These files are shared as {known.backing.name} already and cannot be shared as {given.backing.name} "
                "too. Share them as before, or share other files.",
            )
        if known.pages != given.pages:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"These files are shared with companion pages of the modes {list(known.pages)} already, now with "
                f"{list(given.pages)}. Share them as before, or share other files.",
            )

    def _import_name(self, session: Session, m: wire.ImportName, received: Received) -> Answer:
        return self._imported(session, self.model.import_by_name(session.process, m.name, m.desired, m.object_kind))

    def _import_handle(self, session: Session, m: wire.ImportHandle, received: Received) -> Answer:
        return self._imported(session, self.model.import_by_handle(session.process, m.handle, m.object_kind))

    def _import_kmt(self, session: Session, m: wire.ImportKmt, received: Received) -> Answer:
        return self._imported(session, self.model.import_by_kmt(session.process, m.number, m.object_kind))

    def _release(self, session: Session, m: wire.Release, received: Received) -> Answer:
        self.model.release(session.process, m.reference)
        self.forget(session, m.forget)
        return DONE, ()

    # -- handles ------------------------------------------------------------------------------------------------------

    def _get_handle(self, session: Session, m: wire.GetHandle, received: Received) -> Answer:
        return self._handle(session, self.model.get_handle(session.process, m.reference))

    def _open_handle(self, session: Session, m: wire.OpenHandle, received: Received) -> Answer:
        return self._handle(session, self.model.open_handle(session.process, m.name, m.desired, m.inherit))

    def _hold(self, session: Session, m: wire.Hold, received: Received) -> Answer:
        self.model.take_over(session.process, m.handle)
        return self._handle(session, m.handle & ~3, fresh=False)

    def _close_handle(self, session: Session, m: wire.CloseHandle, received: Received) -> Answer:
        self.model.close_handle(session.process, m.handle)
        session.made = Made(closed=m.handle & ~3)
        self.forget(session, m.forget)
        return DONE, ()

    def _duplicate(self, session: Session, m: wire.Duplicate, received: Received) -> Answer:
        self.forget(session, m.forget)
        target = self.target(received[0]) if received else session.process
        elsewhere = target != session.process
        try:
            value = self.model.duplicate(
                session.process,
                m.handle,
                target=target,
                desired=m.desired,
                inherit=m.inherit,
                same_attributes=m.same_attributes,
                close_source=m.close_source,
            )
        except Refused as refusal:
            if target or refusal.status is not Status.INVALID_CID:
                raise
            raise Refused(
                Status.INVALID_CID,
                "That process uses no shared memory through this object manager, so it has no handle table. "
                "Duplicate into it once it has opened shared memory.",
            ) from None
        closed = m.handle & ~3 if m.close_source else 0
        if elsewhere:
            session.made = Made(handle=value, process=target, closed=closed)
            return wire.Value(value), ()
        answer = self._handle(session, value, fresh=value != m.handle & ~3)
        if session.made is not None and value != closed:
            session.made = msgspec.structs.replace(session.made, closed=closed)
        return answer

    def target(self, pidfd: OwnedFd) -> int:
        """Return the object manager's id of the process that this pidfd refers to; 0 if it is not a client."""
        try:
            return self.processes.get(key_of(pidfd.fd), 0)
        except Refused as refusal:
            if refusal.status is not Status.INVALID_CID:
                raise
            return 0

    def _same_object(self, session: Session, m: wire.SameObject, received: Received) -> Answer:
        return wire.Value(int(self.model.same_object(session.process, m.a, m.b))), ()

    def _query_handle(self, session: Session, m: wire.QueryHandle, received: Received) -> Answer:
        info = self.model.handle_info(session.process, m.handle)
        return (
            wire.HandleState(
                info.inherit,
                info.protect,
                info.granted,
                info.object,
                info.name,
                info.type_name,
                info.handle_count,
                info.pointer_count,
            ),
            (),
        )

    def _set_flags(self, session: Session, m: wire.SetFlags, received: Received) -> Answer:
        self.model.set_handle_flags(session.process, m.handle, m.mask, m.flags)
        return DONE, ()

    def _list_handles(self, session: Session, m: wire.ListHandles, received: Received) -> Answer:
        values, further = self.model.handle_values(session.process, m.after, _PAGE)
        return wire.Handles(tuple(values), further), ()

    def _inherit(self, session: Session, m: wire.Inherit, received: Received) -> Answer:
        child = self.model.inherit(session.process, only=m.only)
        try:
            self.quota.take(session.token.uid, child, CLIENT)
            try:
                heir, theirs = self._heir(session, child)
            except OSError:
                self.quota.give(session.token.uid, child, CLIENT)
                raise
        except (OSError, Refused) as error:
            self.model.detach(child)
            raise error if isinstance(error, Refused) else no_descriptors(error) from None
        session.made = Made(child=heir)
        # The reply borrows the fd; the server closes it once the reply is sent.
        return wire.Channel(), (theirs.detach(),)

    def _heir(self, session: Session, child: int) -> tuple[Session, socket.socket]:
        """Return the session of a child that will connect, and the child's end of the connection. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        heir = self.loop.add_descendant(ours, child, session)
        if heir is None:
            theirs.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        heir.charged = CLIENT
        return heir, theirs

    # -- KMT numbers and tickets --------------------------------------------------------------------------------------

    def _kmt_alive(self, session: Session, m: wire.KmtAlive, received: Received) -> Answer:
        return wire.Value(int(self.model.kmt_alive(m.number))), ()

    def _offer(self, session: Session, m: wire.Offer, received: Received) -> Answer:
        ticket = self.model.offer(session.process, reference=m.reference, handle=m.handle, kmt=m.kmt)
        session.made = Made(ticket=ticket)
        self.loop.wake_at(self.tickets.offered(ticket, session.process, self._now()))
        return wire.Ticket(ticket.to_bytes(16, "big")), ()

    def _claim(self, session: Session, m: wire.Claim, received: Received) -> Answer:
        ticket = int.from_bytes(m.ticket, "big")
        claimed = self.model.claim(session.process, ticket)
        self.tickets.done(ticket)
        try:
            if claimed.imported is not None:
                answer = self._imported(session, claimed.imported, undo=False)
            elif claimed.handle is not None:
                answer = self._handle(session, claimed.handle, undo=False)
            else:
                answer = wire.Kmt(claimed.kmt or 0), ()
        except Refused:
            self._put_back(session, claimed)
            raise
        session.made = msgspec.structs.replace(session.made or Made(), claimed=claimed)
        return answer

    def _bind_offer(self, session: Session, m: wire.BindOffer, received: Received) -> Answer:
        if received:
            self.bind(session, int.from_bytes(m.ticket, "big"), received[0])
        return DONE, ()

    def _withdraw(self, session: Session, m: wire.Withdraw, received: Received) -> Answer:
        ticket = int.from_bytes(m.ticket, "big")
        found = self.model.withdraw(session.process, ticket)
        self.tickets.done(ticket)
        return wire.Value(int(found)), ()

    # -- the snapshot -------------------------------------------------------------------------------------------------

    def _snapshot(self, session: Session, m: wire.Snapshot, received: Received) -> Answer:
        snapshot = session.snapshot
        if not m.cursor:
            snapshot = session.snapshot = SnapshotPages(self.model.walk(session.token), self.signalers.value)
        elif snapshot is None or snapshot.number != m.cursor:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"This process has no snapshot that continues at {m.cursor}. Begin one, with cursor 0.",
            )
        data = snapshot.page()
        if not snapshot.number:
            session.snapshot = None
        return wire.SnapshotFile(len(data), snapshot.number), (_file_with(data),)


def _file_with(data: bytes) -> int:
    """Return a memory file with this content. The caller must close it."""
    try:
        fd = os.memfd_create("extmem-snapshot", os.MFD_CLOEXEC)
    except OSError as error:
        raise no_descriptors(error) from None
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
    except OSError as error:
        os.close(fd)
        raise no_descriptors(error) from None
    return fd
