"""From requests to replies: what each message means to the object manager and to the descriptors.

How this works. `Dispatch.answer` is a table look-up by message type; each handler calls the model, and returns the
reply with the descriptor to send beside it, if any. A handler that raises `Refused` has changed nothing, and the
server says so. Descriptors that came with a request belong to its `OwnedFd` until a handler takes them.

A process gets each payload's descriptor once per way of opening it: `Session.held` remembers what it has. Whoever holds
anything of a payload has a descriptor of it, handles included, because after a broker's death the clients bring the
payloads back.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import socket
from collections.abc import Callable
from typing import Any, Final

from extmem.broker import wire
from extmem.broker.announcing import DONE, Announcing, Answer, Facts, has, no_descriptors, take
from extmem.broker.descriptors import OwnedFd
from extmem.broker.payloads import Payloads, inspect, is_writable
from extmem.broker.sessions import Session
from extmem.broker.tickets import Tickets
from extmem.broker.wire import READ_ONLY, READ_WRITE
from extmem.errors import PeerProtocolError
from extmem.objects import (
    ALL_ACCESS,
    MAXIMUM_ALLOWED,
    RESOURCE_WRITE,
    Imported,
    ObjectManager,
    Refused,
    Share,
    Status,
    map_generic,
)

__all__ = ["Answer", "Dispatch"]

_PAGE: Final = 1_024


class Dispatch(Announcing):
    """All handlers."""

    def __init__(self, model: ObjectManager, payloads: Payloads, tickets: Tickets, now: Callable[[], float]) -> None:
        super().__init__(model, payloads, tickets, now)
        # The types of handlers are checked where they are written; the table itself cannot say them.
        self.handlers: dict[type[Any], Callable[[Session, Any, OwnedFd | None], Answer]] = {
            wire.Export: self._export,
            wire.ImportName: self._import_name,
            wire.ImportHandle: self._import_handle,
            wire.ImportKmt: self._import_kmt,
            wire.Free: self._free,
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
            wire.AnnouncePayload: self._announce_payload,
            wire.AnnounceObject: self._announce_object,
            wire.AnnounceMemory: self._announce_memory,
            wire.AnnounceHandle: self._announce_handle,
            wire.AnnounceTicket: self._announce_ticket,
            wire.AnnounceClaimed: self._announce_claimed,
        }

    def answer(self, session: Session, request: wire.Request, fd: OwnedFd | None) -> Answer:
        """Carry out one request of a process that has said Hello.

        Raises Refused; PeerProtocolError for a misplaced one.
        """
        handler = self.handlers.get(type(request))
        if handler is None:
            raise PeerProtocolError(f"{type(request).__name__} is not due here: say Hello once, at the beginning")
        return handler(session, request, fd)

    # -- memory objects -----------------------------------------------------------------------------------------------

    def _export(self, session: Session, m: wire.Export, received: OwnedFd | None) -> Answer:
        fd = take(received)
        try:
            kind, identity = inspect(m.kind, fd, m.identity, session.token.uid)
            writable = is_writable(kind, fd)
            made = self.model.export_memory(
                session.process,
                identity,
                m.descriptor,
                share=Share(m.share),
                name=m.name,
                access=m.access,
                sddl=m.sddl,
                inherit=m.inherit,
                strict_kmt=m.strict_kmt,
                writable=writable,
            )
        except BaseException:
            os.close(fd)
            raise
        payload = made.payload
        self.payloads.add(payload, kind, fd)
        facts = self.facts.get(payload)
        if facts is None:
            record = self.model.payload_record(payload)
            facts = Facts(record.descriptor, kind, m.identity, strict_kmt=record.strict_kmt)
            self.facts[payload] = facts
        has(session, payload, READ_WRITE if writable else READ_ONLY)
        granted = map_generic(m.access)
        if granted & MAXIMUM_ALLOWED:
            granted = granted & ~MAXIMUM_ALLOWED | ALL_ACCESS
        return (
            wire.Exported(
                made.memory,
                payload,
                made.object or 0,
                granted,
                made.kmt or 0,
                facts.strict_kmt,
                facts.description,
                self.record(facts, made.object),
            ),
            None,
        )

    def _import_name(self, session: Session, m: wire.ImportName, received: OwnedFd | None) -> Answer:
        return self._imported(session, self.model.import_by_name(session.process, m.name, m.desired))

    def _import_handle(self, session: Session, m: wire.ImportHandle, received: OwnedFd | None) -> Answer:
        return self._imported(session, self.model.import_by_handle(session.process, m.handle))

    def _import_kmt(self, session: Session, m: wire.ImportKmt, received: OwnedFd | None) -> Answer:
        return self._imported(session, self.model.import_by_kmt(session.process, m.number))

    def _imported(self, session: Session, found: Imported) -> Answer:
        payload = found.payload
        facts = self.facts[payload]
        needs = self.payloads.mode_for(payload, found.granted & RESOURCE_WRITE != 0)
        held = session.held.get(payload, 0)
        fd = None
        mode = 0
        if not held & needs:
            try:
                fd = self.payloads.fd_for(payload, needs)
            except OSError as error:
                self.model.free_memory(session.process, found.memory)
                raise no_descriptors(error) from None
            mode = needs
            session.held[payload] = held | needs
        told = wire.ImportFacts(
            needs,
            payload,
            found.object or 0,
            found.granted,
            found.kmt or 0,
            facts.strict_kmt,
            facts.kind,
            found.name,
            facts.description,
            self.record(facts, found.object),
            facts.stated,
            self.payloads.capacity(payload),
        )
        return wire.Imported(found.memory, mode, wire.encode(told)), fd

    def _free(self, session: Session, m: wire.Free, received: OwnedFd | None) -> Answer:
        self.model.free_memory(session.process, m.memory)
        if m.forget:
            session.held.pop(m.forget, None)
        return DONE, None

    # -- handles ------------------------------------------------------------------------------------------------------

    def _get_handle(self, session: Session, m: wire.GetHandle, received: OwnedFd | None) -> Answer:
        return self._handle(session, self.model.get_handle(session.process, m.memory))

    def _open_handle(self, session: Session, m: wire.OpenHandle, received: OwnedFd | None) -> Answer:
        return self._handle(session, self.model.open_handle(session.process, m.name, m.desired, m.inherit))

    def _hold(self, session: Session, m: wire.Hold, received: OwnedFd | None) -> Answer:
        return self._handle(session, m.handle & ~3, fresh=False)

    def _handle(self, session: Session, value: int, *, fresh: bool = True) -> Answer:
        info = self.model.handle_info(session.process, value)
        record = self.model.object_record(info.object)
        payload = record.payload
        facts = self.facts[payload]
        fd = None
        mode = 0
        if not session.held.get(payload, 0):
            mode = self.payloads.mode_for(payload, info.granted & RESOURCE_WRITE != 0)
            try:
                fd = self.payloads.fd_for(payload, mode)
            except OSError as error:
                if fresh:
                    self.model.close_handle(session.process, value)
                raise no_descriptors(error) from None
            session.held[payload] = mode
        return (
            wire.Handle(
                value,
                payload,
                info.object,
                info.granted,
                info.inherit,
                info.protect,
                mode,
                facts.kind,
                facts.description,
                self.record(facts, info.object),
                facts.stated,
            ),
            fd,
        )

    def _close_handle(self, session: Session, m: wire.CloseHandle, received: OwnedFd | None) -> Answer:
        self.model.close_handle(session.process, m.handle)
        if m.forget:
            session.held.pop(m.forget, None)
        return DONE, None

    def _duplicate(self, session: Session, m: wire.Duplicate, received: OwnedFd | None) -> Answer:
        if m.forget:
            session.held.pop(m.forget, None)
        elsewhere = m.into is not None and m.into != session.credentials.pid
        target = self.processes.get(m.into or 0, 0) if elsewhere else session.process
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
                f"Process {m.into} uses no shared memory through this object manager, so it has no handle table. "
                "Duplicate into it once it has opened something.",
            ) from None
        if elsewhere:
            return wire.Value(value), None
        return self._handle(session, value)

    def _same_object(self, session: Session, m: wire.SameObject, received: OwnedFd | None) -> Answer:
        return wire.Value(int(self.model.same_object(session.process, m.a, m.b))), None

    def _query_handle(self, session: Session, m: wire.QueryHandle, received: OwnedFd | None) -> Answer:
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
            None,
        )

    def _set_flags(self, session: Session, m: wire.SetFlags, received: OwnedFd | None) -> Answer:
        self.model.set_handle_flags(session.process, m.handle, m.mask, m.flags)
        return DONE, None

    def _list_handles(self, session: Session, m: wire.ListHandles, received: OwnedFd | None) -> Answer:
        values = [record.value for record in self.model.describe(session.process).handles if record.value > m.after]
        return wire.Handles(tuple(sorted(values)[:_PAGE])), None

    def _inherit(self, session: Session, m: wire.Inherit, received: OwnedFd | None) -> Answer:
        child = self.model.inherit(session.process, only=m.only)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self.model.detach(child)
            raise no_descriptors(error) from None
        self.add_descendant(ours, child, session)
        # The reply borrows the fd; the server closes it once the reply is on its way.
        return wire.Channel(), theirs.detach()

    # -- KMT numbers and tickets --------------------------------------------------------------------------------------

    def _kmt_alive(self, session: Session, m: wire.KmtAlive, received: OwnedFd | None) -> Answer:
        return wire.Value(int(self.model.kmt_alive(m.number))), None

    def _offer(self, session: Session, m: wire.Offer, received: OwnedFd | None) -> Answer:
        ticket = self.model.offer(session.process, memory=m.memory, handle=m.handle, kmt=m.kmt)
        self.wake_at(self.tickets.offered(ticket, session.process, self._now()))
        return wire.Ticket(ticket.to_bytes(16, "big")), None

    def _claim(self, session: Session, m: wire.Claim, received: OwnedFd | None) -> Answer:
        ticket = int.from_bytes(m.ticket, "big")
        claimed = self.model.claim(session.process, ticket)
        self.tickets.done(ticket)
        if claimed.imported is not None:
            return self._imported(session, claimed.imported)
        if claimed.handle is not None:
            return self._handle(session, claimed.handle)
        return wire.Kmt(claimed.kmt or 0), None

    def _bind_offer(self, session: Session, m: wire.BindOffer, received: OwnedFd | None) -> Answer:
        self.bind(session, int.from_bytes(m.ticket, "big"), m.pid)
        return DONE, None

    def _withdraw(self, session: Session, m: wire.Withdraw, received: OwnedFd | None) -> Answer:
        ticket = int.from_bytes(m.ticket, "big")
        found = self.model.withdraw(session.process, ticket)
        self.tickets.done(ticket)
        return wire.Value(int(found)), None

    # -- telling ------------------------------------------------------------------------------------------------------

    def _snapshot(self, session: Session, m: wire.Snapshot, received: OwnedFd | None) -> Answer:
        data = wire.encode(self.model.snapshot())
        try:
            fd = os.memfd_create("extmem-snapshot", os.MFD_CLOEXEC)
        except OSError as error:
            raise no_descriptors(error) from None
        try:
            os.truncate(fd, len(data))
            written = 0
            while written < len(data):
                written += os.pwrite(fd, data[written:], written)
        except OSError as error:
            os.close(fd)
            raise no_descriptors(error) from None
        return wire.SnapshotFile(len(data)), fd
