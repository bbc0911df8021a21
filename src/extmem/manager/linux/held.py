"""The state of what this process holds through the broker, stored so that it can be announced to another broker.

How this works. The broker's state is authoritative. This is a copy of the part that concerns this process, changed only
when a reply has arrived, under the client's lock. For each payload of which this process holds a reference or handle,
the state has its file descriptors, and for each reference and handle the record that the broker signed. So after a
broker was killed, its clients together have all that is needed to restore its state.

A file descriptor is owned by an `OwnedFd`, which closes it when its last user releases it: the entry here is one user,
and each `PayloadFd` of an import is another. So this process has one open file descriptor for each handle of a payload
and mode (read-only or not), whatever the number of imports.

Numbers of a fork's parent, and of what was lost with a broker, are remembered: they are never reused for something
else, closing them does nothing, and any other use raises an error with the reason.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final, TypeAlias

from extmem import wire
from extmem.errors import PeerProtocolError
from extmem.manager.linux.records import (
    FORKED,
    HeldHandle,
    HeldPayload,
    HeldReference,
    Known,
    Loss,
    Offered,
    Process,
    Records,
)
from extmem.objects import OBJECT_TYPES, known_kind
from extmem.owning import OwnedFd
from extmem.sharing.bounded import Bounded
from extmem.sharing.payload import FilesAgain, PayloadFd
from extmem.sharing.terms import Imported

__all__ = ["GENERATION", "State"]

GENERATION: Final = 1 << 48
"""The numbers of references of a forked child begin above its parent's, so that the two are distinguished."""
_PRUNING: Final = 1.0
"""Seconds between two removals of tickets that have ended."""
_KNOWN: Final = 1_024
"""Number of remembered replies, at most."""


Announced: TypeAlias = tuple[wire.Request, Container[int], int, Callable[[int, Loss], None]]
"""The announcement of a reference or a handle; its table and its number there; and the method for one that is lost."""


class State:
    """All that this process holds. The caller of each method holds the client's lock."""

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.base = generation * GENERATION
        self.payloads: dict[int, HeldPayload] = {}
        self.references: dict[int, HeldReference] = {}
        self.handles: dict[int, HeldHandle] = {}
        self.offered: dict[bytes, Offered] = {}
        self.ticket_seconds = 60.0
        """Lifetime of an unbound ticket in seconds, as the broker reported it."""
        self._pruned = 0.0
        self._known: Bounded[bytes, Known] = Bounded(_KNOWN)
        """The last reply to each request, by the bytes of the request."""
        self.claimed: deque[bytes] = deque(maxlen=256)
        self.losses: dict[int, Loss] = {}
        """Generation → why all its references are lost."""
        self.lost_references: dict[int, Loss] = {}
        """References of this generation that are lost."""
        self.lost_handles: dict[int, Loss] = {}
        self.sets_aside = False
        """Whether file descriptors of any payload were set aside."""
        self.above = 0
        """The highest handle value that must not be reused."""
        self.ended: set[tuple[str, int]] = set()
        """What was released or closed by a call that did not get the reply, and may be released or closed again."""

    def _next(self, loss: Loss) -> State:
        """Return an empty state that records what is lost."""
        new = State(self.generation + 1)
        new.losses = {**self.losses, self.generation: loss}
        new.lost_handles = {**self.lost_handles, **dict.fromkeys(self.handles, loss)}
        new.above = self.above
        new.sets_aside = self.sets_aside
        return new

    def after_fork(self) -> State:
        """Return the state of the child."""
        return self._next(FORKED)

    def after_loss(self, loss: Loss) -> State:
        """Return the state after everything was lost. No earlier handle value is reused."""
        new = self._next(loss)
        new.above = self.highest
        return new

    @property
    def highest(self) -> int:
        """The highest handle value in this state."""
        return max((self.above, *self.handles))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to announce."""
        return not self.payloads

    # -- what is lost -------------------------------------------------------------------------------------------------

    def reference_loss(self, reference: int) -> Loss | None:
        """Return why the reference is lost; None if it is not."""
        generation = reference // GENERATION
        if generation != self.generation:
            return self.losses.get(generation)
        return self.lost_references.get(reference)

    def handle_loss(self, value: int) -> Loss | None:
        """Return why the handle is lost; None if it is not."""
        return None if value in self.handles else self.lost_handles.get(value)

    def lose_reference(self, reference: int, loss: Loss) -> None:
        """Record that the broker refused the reference."""
        if reference in self.references:
            self.released(reference)
            self.lost_references[reference] = loss

    def lose_handle(self, value: int, loss: Loss) -> None:
        """Record that the broker refused the handle."""
        if value in self.handles:
            self.closed(value)
            self.lost_handles[value] = loss

    # -- a connection that was out of step ----------------------------------------------------------------------------

    def repair(self, welcome: wire.Welcome, last: wire.Request | None) -> None:
        """Correct the state after a reply that was not entered: undo what its request created, end what it ended.

        last: the request. The broker sends all file descriptors again from now on.
        """
        # An owner that has recorded the number already may release it, too.
        if welcome.undone_reference:
            self.references.pop(welcome.undone_reference + self.base, None)
            self.ended.add(("reference", welcome.undone_reference + self.base))
        if welcome.undone_handle:
            self.handles.pop(welcome.undone_handle, None)
            self.ended.add(("handle", welcome.undone_handle))
        if welcome.done and type(last) is wire.Release:
            self.references.pop(last.reference + self.base, None)
            self.ended.add(("reference", last.reference + self.base))
        elif welcome.done and type(last) is wire.CloseHandle:
            self._handle_ended(last.handle)
        elif welcome.done and type(last) is wire.Duplicate and last.close_source:
            self._handle_ended(last.handle)
        counts: Counter[HeldPayload] = Counter(entry[0] for entry in self.references.values())
        counts.update(handle.payload for handle in self.handles.values())
        for held in self.payloads.values():
            held.holders = counts[held]
        self.payloads = {held.id: held for held in counts if held.fds}
        self._known.clear()

    def _handle_ended(self, value: int) -> None:
        handle = self.handles.get(value)
        if handle is None or not handle.protect:
            self.handles.pop(value, None)  # absent where the reply was entered in part
            self.ended.add(("handle", value))

    # -- entering replies ---------------------------------------------------------------------------------------------

    def exported(
        self,
        request: wire.Export,
        reply: wire.Exported,
        fds: Sequence[OwnedFd],
        *,
        writable: bool,
        owner: Records | None = None,
    ) -> int:
        """Enter a reference that this process exports. `fds` are kept if the payload has none of their mode yet.

        owner: records its number. Return the number.
        """
        held = self._payload(reply.payload, reply.descriptor)
        held.fds.setdefault(wire.READ_WRITE if writable else wire.READ_ONLY, fds)
        held.kmt = reply.kmt
        held.holders += 1
        reference = reply.reference + self.base
        self.references[reference] = (held, reply.object, True, reply.granted, request.inherit, reply.record)
        if owner is not None:
            owner.record(reference)
        return reference

    def imported(
        self, reply: wire.Reply, fds: Sequence[OwnedFd], request: bytes = b"", owner: Records | None = None
    ) -> Imported:
        """Enter a reference that this process has imported. Return its facts, with a hold on its file descriptors.

        request: the encoded request, whose next reply is likely to have the same facts; empty for one that is sent
        once. owner: records its number.
        """
        if reply.__class__ is not wire.Imported:
            raise PeerProtocolError(f"the broker answered an import with {type(reply).__name__}")
        known = self._known.get(request)
        if known is None or known[0] != reply.facts:
            known = self._learn(request, reply.facts)
        _, facts, entry, writable = known
        held, target, _, granted, _, record = entry
        if not held.holders and self.payloads.setdefault(held.id, held) is not held:
            # The payload was released since the reply was remembered, and is held again by another entry.
            held = self.payloads[held.id]
            entry = (held, target, False, granted, False, record)
        shared = fds or held.fds.get(facts.needs, ())
        if len(shared) != facts.handles:
            raise PeerProtocolError(
                f"this process has {len(shared)} file descriptors of payload {facts.payload}, which has "
                f"{facts.handles} handles, and the broker sent no others"
            )
        if fds:
            held.fds[facts.needs] = fds
        if not target:
            held.kmt = facts.kmt
        held.holders += 1
        reference = reply.reference + self.base
        self.references[reference] = entry
        if owner is not None:
            owner.record(reference)
        return Imported(
            reference,
            PayloadFd(shared[0], writable, shared[1:], facts.pages),
            target,
            granted,
            facts.descriptor,
            facts.kmt,
            facts.name,
            facts.backing,
            facts.capacity,
            facts.identity,
            facts.object_kind,
            owner,
        )

    def set_aside(self, reference: int, count: int, again: FilesAgain | None) -> None:
        """Close the first `count` file descriptors of the payload that this reference imports.

        again: exports new ones; None for an import that failed, after which nothing changes unless this process has
        others, or another import of the payload.

        Companion pages stay open. If this process exports the payload too, whose memory may exist for longer than the
        import, it keeps those that it has as the exporter.
        """
        entry = self.references.get(reference)
        if entry is None:
            return
        held, total = entry[0], wire.decode_record(entry[5][wire.SIGNATURE :]).handles
        exported = any(of is held and exports for of, _, exports, *_ in self.references.values())
        kept = wire.READ_WRITE if exported else 0
        if total <= count or (kept and len(held.fds.get(kept, ())) != total):
            return
        held.again = [one for one in (*held.again, again) if one is not None and one.alive]
        if not held.again and not kept:
            return
        self.sets_aside = True
        for mode, fds in held.fds.items():
            if len(fds) == total and mode != kept:
                held.fds[mode] = fds[count:]

    def lacks(self, payload: int, mode: int, count: int) -> bool:
        """Return whether some of the payload's `count` file descriptors in this mode were set aside."""
        held = self.payloads.get(payload)
        return held is not None and 0 < len(held.fds.get(mode, ())) < count

    def _learn(self, request: bytes, data: bytes) -> Known:
        facts = wire.decode_facts(data)
        held = self.payloads.get(facts.payload)
        if held is None:
            held = HeldPayload(facts.payload, facts.descriptor)
        entry = (held, facts.object, False, facts.granted, False, facts.record)
        modify = OBJECT_TYPES[known_kind(facts.object_kind)].modify
        writable = facts.needs == wire.READ_WRITE and facts.granted & modify != 0
        return self._known.keep(request, (data, facts, entry, writable))

    def handle(self, reply: wire.Handle, fds: Sequence[OwnedFd], owner: Records | None = None) -> int:
        """Enter a handle that this process has. Return its value. owner: records that."""
        held = self._payload(reply.payload, reply.descriptor)
        if fds:
            held.fds[reply.mode] = fds
        if reply.handle not in self.handles:
            held.holders += 1
        self.handles[reply.handle] = HeldHandle(
            held, reply.object, reply.granted, reply.inherit, reply.protect, reply.record
        )
        self.ended.discard(("handle", reply.handle))
        if owner is not None:
            owner.record(reply.handle)
        return reply.handle

    def released(self, reference: int) -> None:
        """Record that the reference has been released."""
        entry = self.references.pop(reference, None)
        if entry is not None:
            self._release(entry[0])

    def closed(self, handle: int) -> None:
        """Record that the handle has been closed."""
        entry = self.handles.pop(handle, None)
        if entry is not None:
            self._release(entry.payload)

    def forgets(self, held: HeldPayload | None) -> int:
        """Return the payload whose file descriptors are closed when one holder ends; 0 if it has more holders."""
        return held.id if held is not None and held.holders == 1 else 0

    def offers(self, ticket: bytes, request: wire.Offer) -> None:
        """Record a ticket that this process has created."""
        now = time.monotonic()
        if now > self._pruned + _PRUNING:
            self._prune_offers(now)
        reference = self.references.get(request.reference) if request.reference is not None else None
        handle = self.handles.get(request.handle & ~3) if request.handle is not None else None
        if reference is not None:
            entry = Offered("reference", reference[0].id, reference[1], reference[3], now)
        elif handle is not None:
            entry = Offered("handle", handle.payload.id, handle.object, handle.granted, now)
        else:
            payload = next((held.id for held in self.payloads.values() if held.kmt == request.kmt), 0)
            entry = Offered("kmt", payload, 0, 0, now)
        self.offered[ticket] = entry

    # -- announcing ---------------------------------------------------------------------------------------------------

    def records(self) -> dict[bytes, HeldPayload]:
        """Return each record once, with its payload, whose file descriptors are sent with it."""
        found = {entry[5]: entry[0] for entry in self.references.values()}
        found.update((handle.record, handle.payload) for handle in self.handles.values())
        return found

    def announced_entries(self, origins: Mapping[bytes, int]) -> list[Announced]:
        """Return the announcements of the references and the handles. origins: record → the payload's id in it."""
        entries: list[Announced] = [
            (
                wire.AnnounceReference(reference % GENERATION, origins[record], shared, exporting, granted, inherit),
                self.references,
                reference,
                self.lose_reference,
            )
            for reference, (_, shared, exporting, granted, inherit, record) in self.references.items()
        ]
        for value, h in self.handles.items():
            request = wire.AnnounceHandle(value, origins[h.record], h.object, h.granted, h.inherit, h.protect)
            entries.append((request, self.handles, value, self.lose_handle))
        return entries

    def announced_tickets(self) -> list[tuple[wire.AnnounceTicket, Process | None]]:
        """Return the tickets that are not known to have ended, with the processes that they are bound to."""
        self._prune_offers(time.monotonic())
        return [
            (wire.AnnounceTicket(ticket, o.what, o.payload, o.object, o.granted, o.bound is not None), o.bound)
            for ticket, o in self.offered.items()
            if o.payload in self.payloads
        ]

    def came_back(self, held: HeldPayload, back: wire.RecordBack) -> None:
        """Enter the payload's id and KMT number in the new broker."""
        held.kmt = back.kmt
        self._known.clear()
        if back.payload != held.id:
            for offered in self.offered.values():
                if offered.payload == held.id:
                    offered.payload = back.payload
            self.payloads.pop(held.id, None)
            held.id = back.payload
            self.payloads[back.payload] = held

    def lose_record(self, record: bytes, loss: Loss) -> None:
        """Record that the broker refused this record: all references and handles of it are lost."""
        for reference in [number for number, entry in self.references.items() if entry[5] == record]:
            self.lose_reference(reference, loss)
        for value in [value for value, handle in self.handles.items() if handle.record == record]:
            self.lose_handle(value, loss)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _payload(self, payload: int, description: bytes) -> HeldPayload:
        held = self.payloads.get(payload)
        if held is None:
            held = self.payloads[payload] = HeldPayload(payload, description)
        return held

    def _release(self, held: HeldPayload) -> None:
        held.holders -= 1
        if not held.holders:
            self.payloads.pop(held.id, None)
            held.fds.clear()

    def _prune_offers(self, now: float) -> None:
        """Remove the tickets that have ended. This visits all of them, so it is not done for each new one."""
        self._pruned = now
        old = [
            ticket
            for ticket, offered in self.offered.items()
            if (now > offered.made + self.ticket_seconds if offered.bound is None else not offered.bound.alive)
        ]
        for ticket in old:
            del self.offered[ticket]
