"""What this process holds through the broker, kept so that it can be announced to another one.

How this works. The broker's word is what counts; this is a copy of the part that concerns this process, changed only
when a reply has arrived, under the client's lock. Whoever holds anything of a payload (memory object or handle) also
has a descriptor of it here, and of each memory object and handle the record that the broker signed: after a broker's
death the holders together have all that is needed to make it again.

A descriptor is owned by a `OwnedFd`, which closes it when the last user lets go: the entry here is one, and each
`PayloadFd` given to an import is another. So there is one open descriptor per payload and way of opening it (read-only
or not), however many imports there are.

Numbers of what a fork left behind, or of what was lost with a broker (`lose`), stay known: they are never taken for
another thing, closing them does nothing, and any other use says why.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the broker runs on Linux only; extmem.manager selects what the system has")

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

from extmem import wire
from extmem.broker.client_journal import start_time
from extmem.errors import ExtmemError, HandleStateError, PeerProtocolError
from extmem.objects import RESOURCE_WRITE
from extmem.owning import OwnedFd
from extmem.sharing.payload import PayloadFd
from extmem.sharing.terms import Imported
from extmem.wire import READ_ONLY, READ_WRITE

__all__ = ["GENERATION", "HeldHandle", "HeldReference", "HeldPayload", "Loss", "Process", "State"]

GENERATION: Final = 1 << 48
"""Memory ids of a forked child begin above its parent's: ids left behind by a fork can be told from its own."""


class HeldPayload:
    """A payload that this process holds something of."""

    __slots__ = ("description", "fds", "holders", "id", "kmt")

    def __init__(self, payload: int, description: bytes) -> None:
        self.id = payload
        self.description = description
        self.kmt = 0
        self.holders = 0
        self.fds: dict[int, Sequence[OwnedFd]] = {}
        """The file descriptors of its handles, by the mode in which they were opened."""


_PRUNING: Final = 1.0
"""Seconds between two looks for offers that have ended."""
_KNOWN: Final = 1_024


HeldReference: TypeAlias = tuple[HeldPayload, int, bool, int, bool, bytes]
"""A memory object: payload, object (or 0), whether it exports, rights, inherit flag, record.

A plain tuple: imports are many.
"""

Known: TypeAlias = tuple[bytes, wire.ImportFacts, HeldReference, bool]
"""An import's facts as bytes and decoded, the memory object that they make, and whether it may write."""


@dataclass(slots=True)
class HeldHandle:
    """An entry of this process's handle table."""

    payload: HeldPayload
    object: int
    granted: int
    inherit: bool
    protect: bool
    record: bytes


class Records(Protocol):
    """What owns a memory object or a handle from the moment on at which it is entered here."""

    def record(self, number: int) -> None:
        """This is its number. Called under the client's lock."""


class Process(NamedTuple):
    """A process of this pid namespace, told apart from a later one with its pid by when it started."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return start_time(self.pid) == self.start


@dataclass(slots=True)
class Offered:
    """A ticket that this process has sent; it is not told when it is claimed."""

    what: str
    payload: int
    object: int
    granted: int
    made: float
    bound: Process | None = None
    """The process that it is for."""


class Loss(NamedTuple):
    """Why numbers of before stand for nothing any more."""

    error: type[ExtmemError]
    why: str


FORKED: Final = Loss(
    HandleStateError, "is the parent's: fork does not share it. Start children with spawn, or open the name here"
)


class State:
    """All that this process holds. Every method is called under the client's lock."""

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.base = generation * GENERATION
        self.payloads: dict[int, HeldPayload] = {}
        self.references: dict[int, HeldReference] = {}
        self.handles: dict[int, HeldHandle] = {}
        self.offered: dict[bytes, Offered] = {}
        self.ticket_seconds = 60.0
        """How long an unbound offer lasts, as the broker has told."""
        self._pruned = 0.0
        self._known: dict[bytes, Known] = {}
        """What each request was answered with last, by the request's bytes."""
        self.claimed: deque[bytes] = deque(maxlen=256)
        self.losses: dict[int, Loss] = {}
        """By generation, why all memory objects of it are gone."""
        self.lost_references: dict[int, Loss] = {}
        """Memory objects of this generation that are gone."""
        self.lost_handles: dict[int, Loss] = {}
        self.above = 0
        """The highest handle value that is not to be given again."""
        self.ended: set[tuple[str, int]] = set()
        """What was freed or closed by a call that did not learn of it, and may be tried again."""

    def _next(self, loss: Loss) -> State:
        """An empty state that knows what is gone."""
        new = State(self.generation + 1)
        new.losses = {**self.losses, self.generation: loss}
        new.lost_handles = {**self.lost_handles, **dict.fromkeys(self.handles, loss)}
        new.above = self.above
        return new

    def after_fork(self) -> State:
        """The state of the child."""
        return self._next(FORKED)

    def after_loss(self, loss: Loss) -> State:
        """The state of a process whose broker knows nothing of it: no handle value of before is used again."""
        new = self._next(loss)
        new.above = self.highest
        return new

    @property
    def highest(self) -> int:
        """The highest handle value that this process knows."""
        return max((self.above, *self.handles))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to announce."""
        return not self.payloads

    # -- what is gone -------------------------------------------------------------------------------------------------

    def reference_loss(self, reference: int) -> Loss | None:
        """Why the memory object is gone; None if it is not known to be."""
        generation = reference // GENERATION
        if generation != self.generation:
            return self.losses.get(generation)
        return self.lost_references.get(reference)

    def handle_loss(self, value: int) -> Loss | None:
        """Why the handle is gone; None if it is not known to be."""
        return None if value in self.handles else self.lost_handles.get(value)

    def lose_reference(self, reference: int, loss: Loss) -> None:
        """The broker has not taken it back."""
        if reference in self.references:
            self.released(reference)
            self.lost_references[reference] = loss

    def lose_handle(self, value: int, loss: Loss) -> None:
        """The broker has not taken it back."""
        if value in self.handles:
            self.closed(value)
            self.lost_handles[value] = loss

    # -- a connection that was out of step ----------------------------------------------------------------------------

    def repair(self, welcome: wire.Welcome, last: wire.Request | None) -> None:
        """Go on after a reply that was not taken in whole: what its request made is undone, what it ended is gone.

        last: the request. The broker sends descriptors anew from now on, so that what is here counts for nothing there.
        """
        # Whoever noted its number already may give it back, too.
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
            self.handles.pop(value, None)  # it is gone where the reply was entered in part
            self.ended.add(("handle", value))

    # -- taking replies in --------------------------------------------------------------------------------------------

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
        held.fds.setdefault(READ_WRITE if writable else READ_ONLY, fds)
        held.kmt = reply.kmt
        held.holders += 1
        reference = reply.reference + self.base
        self.references[reference] = (held, reply.object, True, reply.granted, request.inherit, reply.record)
        if owner is not None:
            owner.record(reference)
        return reference

    def imported(
        self, request: bytes, reply: wire.Reply, fds: Sequence[OwnedFd], owner: Records | None = None
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
            # Nothing has held it since it was learnt, and something holds it again, as another entry.
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

    def _learn(self, request: bytes, data: bytes) -> Known:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        facts = wire.decode_facts(data)
        held = self.payloads.get(facts.payload)
        if held is None:
            held = HeldPayload(facts.payload, facts.descriptor)
        entry = (held, facts.object, False, facts.granted, False, facts.record)
        writable = facts.needs == READ_WRITE and facts.granted & RESOURCE_WRITE != 0
        known = self._known[request] = data, facts, entry, writable
        return known

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
        """The memory object has ended."""
        gone = self.references.pop(reference, None)
        if gone is not None:
            self._release(gone[0])

    def closed(self, handle: int) -> None:
        """The handle has been closed."""
        gone = self.handles.pop(handle, None)
        if gone is not None:
            self._release(gone.payload)

    def forgets(self, held: HeldPayload | None) -> int:
        """The payload whose descriptors go when a holder of it goes; 0 when there are more holders."""
        return held.id if held is not None and held.holders == 1 else 0

    def offers(self, ticket: bytes, request: wire.Offer) -> None:
        """A ticket has been made."""
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
        """Each record once, with its payload, of which the best descriptor goes beside it."""
        found = {entry[5]: entry[0] for entry in self.references.values()}
        found.update((handle.record, handle.payload) for handle in self.handles.values())
        return found

    def announced_references(self, origins: Mapping[bytes, int]) -> list[tuple[int, wire.AnnounceReference]]:
        """Each memory object, and its announcement. origins: record → the payload's id in it."""
        return [
            (
                reference,
                wire.AnnounceReference(reference % GENERATION, origins[record], shared, exporting, granted, inherit),
            )
            for reference, (_, shared, exporting, granted, inherit, record) in self.references.items()
        ]

    def announced_handles(self, origins: Mapping[bytes, int]) -> list[tuple[int, wire.AnnounceHandle]]:
        """Each handle, and its announcement. origins: record → the payload's id in it."""
        return [
            (value, wire.AnnounceHandle(value, origins[h.record], h.object, h.granted, h.inherit, h.protect))
            for value, h in self.handles.items()
        ]

    def announced_tickets(self) -> list[tuple[wire.AnnounceTicket, Process | None]]:
        """The offers that are not known to have ended, with the processes that they are for."""
        self._prune_offers(time.monotonic())
        return [
            (wire.AnnounceTicket(ticket, o.what, o.payload, o.object, o.granted, o.bound is not None), o.bound)
            for ticket, o in self.offered.items()
            if o.payload in self.payloads
        ]

    def came_back(self, held: HeldPayload, back: wire.RecordBack) -> None:
        """A payload's id and KMT number with the new broker."""
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
        """The broker does not take this record: all that it stands for is gone."""
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
        """Forget the offers that have ended. Looks at all of them, so not at each new one."""
        self._pruned = now
        old = [
            ticket
            for ticket, offered in self.offered.items()
            if (now > offered.made + self.ticket_seconds if offered.bound is None else not offered.bound.alive)
        ]
        for ticket in old:
            del self.offered[ticket]
