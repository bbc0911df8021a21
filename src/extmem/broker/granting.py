"""Replies that give references and handles to clients, with the file descriptors that they need; and undoing them.

How this works. A process gets each payload's file descriptors once per mode: `Session.held` records which it has. Every
process with a reference or handle to a payload has its file descriptors, because the clients restore the payloads after
a broker was killed. A GPU driver's file descriptor has no read-only form, so it is not given to another user who may
only read.

What a request created is recorded (`Session.made`), so that it can be undone if its reply cannot be sent, or was lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from extmem import wire
from extmem.broker.announcements import Announcements, Answer, Facts, Received, no_descriptors
from extmem.broker.sessions import Made, Session
from extmem.objects import Claimed, Imported, ObjectKind, Refused, Status
from extmem.sharing.kinds import Backing

__all__ = ["Granting"]


class Granting(Announcements):
    """The replies that give references and handles."""

    def _allow(self, session: Session, facts: Facts, granted: int) -> None:
        """Refuse a driver's file descriptors to another user who may not write.

        The kernel has no read-only form of a GPU's memory: a process that has the descriptor can write to it.
        """
        uid = session.token.uid
        if facts.backing is Backing.HOST_FILE or granted & facts.type.modify or uid in (0, facts.uid):
            return
        instead = ", or share a copy in host memory" if facts.object_kind is ObjectKind.MEMORY else ""
        raise Refused(
            Status.ACCESS_DENIED,
            f"User {uid} may only read this payload ({facts.type.noun}), which user {facts.uid} created. Its "
            "file descriptor has no read-only form, so it is not given to another user who may not write. Have the "
            f"exporter grant the right to change it (0x{facts.type.read | facts.type.modify:X}){instead}.",
        )

    def _imported(self, session: Session, found: Imported, *, undo: bool = True) -> Answer:
        payload = found.payload
        facts = self.facts[payload]
        needs = self.payloads.mode_for(payload, found.granted & facts.type.modify != 0)
        held = session.held.get(payload, 0)
        fds: Sequence[int] = ()
        try:
            self._allow(session, facts, found.granted)
            if not held & needs:
                fds = self.payloads.fds_for(payload, needs)
        except (OSError, Refused) as error:
            if undo:
                self.model.undo_reference(session.process, found.reference)
            raise error if isinstance(error, Refused) else no_descriptors(error) from None
        session.made = Made(reference=found.reference, payload=payload, held=held)
        if fds:
            self.has(session, payload, needs)
            self.has_page(session, payload, found.granted)
        given = self.payloads.given(payload)
        facts_sent = wire.ImportFacts(
            needs,
            payload,
            found.object or 0,
            found.granted,
            found.kmt or 0,
            facts.strict_kmt,
            found.object_kind,
            facts.backing,
            len(given.identity),
            self.payloads.page_modes(payload, needs),
            found.name,
            facts.description,
            self.record(session, payload, found.object or -(found.kmt or 0), found.granted),
            facts.stated,
            given.capacity,
        )
        return wire.Imported(found.reference, len(fds), wire.encode(facts_sent)), fds

    def _handle(self, session: Session, value: int, *, fresh: bool = True, undo: bool = True) -> Answer:
        info = self.model.handle_info(session.process, value)
        record = self.model.object_record(info.object)
        payload = record.payload
        facts = self.facts[payload]
        fds: Sequence[int] = ()
        mode = 0
        held = session.held.get(payload, 0)
        if not held:
            mode = self.payloads.mode_for(payload, info.granted & facts.type.modify != 0)
            try:
                self._allow(session, facts, info.granted)
                fds = self.payloads.fds_for(payload, mode)
            except (OSError, Refused) as error:
                if fresh and undo:
                    self.model.discard_handle(session.process, value)
                raise error if isinstance(error, Refused) else no_descriptors(error) from None
            self.has(session, payload, mode)
            self.has_page(session, payload, info.granted)
        session.made = Made(handle=value if fresh else 0, payload=payload, held=held)
        return (
            wire.Handle(
                value,
                payload,
                info.object,
                info.granted,
                info.inherit,
                info.protect,
                mode,
                len(self.payloads.given(payload).identity),
                facts.description,
                self.record(session, payload, info.object, info.granted),
            ),
            fds,
        )

    def _fetch_fds(self, session: Session, m: wire.FetchFds, received: Received) -> Answer:
        """Return further handles of a payload whose first ones were in the last reply."""
        if not session.held.get(m.payload, 0) & m.mode or m.payload not in self.payloads:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"This process has no file descriptors of payload {m.payload} with mode {m.mode}. Import it first.",
            )
        fds = self.payloads.fds_for(m.payload, m.mode, m.first)
        return wire.Fds(len(fds)), fds

    # -- undoing ------------------------------------------------------------------------------------------------------

    def undo(self, session: Session, made: Made) -> None:
        """Undo what a request of that session created, whose reply did not arrive. What has ended since is skipped."""
        if made.held:
            session.held[made.payload] = made.held
        else:
            session.held.pop(made.payload, None)
            self.signalers.undone(session.process, made.payload)
        if made.claimed is not None:
            self._put_back(session, made.claimed)
        elif made.reference:
            with contextlib.suppress(Refused):
                self.model.undo_reference(session.process, made.reference)
            session.replaced = False
        if made.handle and made.claimed is None:
            self.model.discard_handle(made.process or session.process, made.handle)
        if made.closed:
            self.model.burn_handle(session.process, made.closed)
        if made.ticket:
            with contextlib.suppress(Refused):
                self.model.withdraw(session.process, made.ticket)
            self.tickets.done(made.ticket)
        if made.wait:
            self.end_wait(session.process, made.wait)
        if made.child is not None:
            self.loop.drop(made.child)

    def end_wait(self, process: int, number: int) -> None:
        """End a wait for a name, whose result nobody wants. `Naming` has the waits."""
        self.model.cancel_wait(process, number)

    def _put_back(self, session: Session, claimed: Claimed) -> None:
        ticket = self.model.put_back(session.process, claimed)
        if ticket is not None:
            sender = 0 if ticket.sender is None else ticket.sender.id
            self.loop.wake_at(self.tickets.offered(ticket.id, sender, self._now()))
