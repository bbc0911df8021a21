"""What this process holds through the broker, kept so that it can be announced to another one.

How this works. The broker's word is what counts; this is a copy of the part that concerns this process, changed only
when a reply has arrived, under the client's lock. Whoever holds anything of a payload (memory object or handle) also
has a descriptor of it here: after a broker's death the holders together have all that is needed to make it again.

A descriptor is owned by a `OwnedFd`, which closes it when the last user lets go: the entry here is one, and each
`PayloadFd` given to an import is one. So there is one open descriptor per payload and way of opening it (read-only or
not), however many imports there are.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from extmem.broker import wire
from extmem.broker.descriptors import Imported, OwnedFd, PayloadFd
from extmem.broker.tickets import STRONG
from extmem.broker.wire import READ_ONLY, READ_WRITE
from extmem.errors import PeerProtocolError
from extmem.objects import RESOURCE_WRITE, Share

__all__ = ["GENERATION", "HeldHandle", "HeldMemory", "HeldPayload", "State"]

GENERATION: Final = 1 << 48
"""Memory ids of a forked child begin above its parent's: ids left behind by a fork can be told from its own."""


class HeldPayload:
    """A payload that this process holds something of."""

    __slots__ = (
        "description",
        "fds",
        "id",
        "kind",
        "kmt",
        "records",
        "references",
        "share",
        "stated",
        "strict_kmt",
        "write",
    )

    def __init__(self, payload: int, kind: int, description: bytes, share: Share, stated: int) -> None:
        self.id = payload
        self.kind = kind
        self.description = description
        self.share = share
        self.stated = stated
        self.kmt = 0
        self.strict_kmt = False
        self.write = False
        self.references = 0
        self.fds: dict[int, OwnedFd] = {}
        self.records: dict[int, bytes] = {}
        """Shared objects on it, as the broker wants them announced."""


_PRUNING: Final = 1.0
"""Seconds between two looks for offers that have ended."""
_KNOWN: Final = 1_024


HeldMemory: TypeAlias = tuple[HeldPayload, int, bool, int, bool]
"""A memory object: payload, object (or 0), whether it exports, rights, inherit flag.

A plain tuple: imports are many.
"""

Known: TypeAlias = tuple[bytes, wire.ImportFacts, HeldMemory, bool]
"""An import's facts as bytes and decoded, the memory object that they make, and whether it may write."""


@dataclass(slots=True)
class HeldHandle:
    """An entry of this process's handle table."""

    payload: HeldPayload
    object: int
    granted: int
    inherit: bool
    protect: bool


@dataclass(slots=True)
class Offered:
    """A ticket that this process has sent; it is not told when it is claimed."""

    what: str
    payload: int
    object: int
    granted: int
    made: float
    pid: int = 0


class State:
    """All that this process holds. Every method is called under the client's lock."""

    def __init__(self, generation: int = 0, left_behind: frozenset[int] = frozenset()) -> None:
        self.generation = generation
        self.left_behind = left_behind
        """Handle values of the parent that a fork left behind."""
        self.base = generation * GENERATION
        self.payloads: dict[int, HeldPayload] = {}
        self.memories: dict[int, HeldMemory] = {}
        self.handles: dict[int, HeldHandle] = {}
        self.offered: dict[bytes, Offered] = {}
        self._pruned = 0.0
        self._known: dict[bytes, Known] = {}
        """What each request was answered with last, by the request's bytes."""
        self.claimed: deque[bytes] = deque(maxlen=256)

    def after_fork(self) -> State:
        """The state of the child: empty, but it knows what is not its own."""
        return State(self.generation + 1, self.left_behind | self.handles.keys())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to announce."""
        return not self.payloads

    # -- taking replies in --------------------------------------------------------------------------------------------

    def exported(self, request: wire.Export, reply: wire.Exported, fd: OwnedFd, *, writable: bool) -> None:
        """A memory object that this process exports; `fd` is kept if the payload has none of its mode yet."""
        share = Share(request.share)
        held = self._payload(reply.payload, request.kind, reply.descriptor, share, request.identity)
        mode = READ_WRITE if writable else READ_ONLY
        held.fds.setdefault(mode, fd)
        held.kmt, held.strict_kmt = reply.kmt, reply.strict_kmt
        held.write |= mode == READ_WRITE
        if reply.object:
            held.records[reply.object] = reply.record
        held.references += 1
        self.memories[reply.memory + self.base] = (held, reply.object, True, reply.granted, request.inherit)

    def imported(self, request: bytes, reply: wire.Reply, fd: OwnedFd | None) -> Imported:
        """A memory object that this process has imported: what it leads to, and a hold on its descriptor.

        request: the encoded request, which is likely to be answered alike again; empty for one that is made only once.
        """
        if reply.__class__ is not wire.Imported:
            raise PeerProtocolError(f"the broker answered an import with {type(reply).__name__}")
        known = self._known.get(request)
        if known is None or known[0] != reply.facts:
            known = self._learn(request, reply.facts)
        _, facts, entry, writable = known
        held, target, _, granted, _ = entry
        if not held.references and self.payloads.setdefault(held.id, held) is not held:
            # Nothing has held it since it was learnt, and something holds it again, as another entry.
            held = self.payloads[held.id]
            entry = (held, target, False, granted, False)
        shared = fd
        if fd is not None:
            held.fds[reply.mode] = fd
        else:
            shared = held.fds.get(facts.needs)
        if shared is None or (fd is not None and reply.mode != facts.needs):
            raise PeerProtocolError(
                f"the broker takes for granted a descriptor of payload {facts.payload} that is not here"
            )
        if target not in held.records:
            self._note(held, facts)
        held.references += 1
        memory = reply.memory + self.base
        self.memories[memory] = entry
        return Imported(
            memory,
            PayloadFd(shared, writable),
            target,
            granted,
            facts.descriptor,
            facts.kmt,
            facts.name,
            facts.kind,
            facts.capacity,
            facts.identity,
        )

    @staticmethod
    def _note(held: HeldPayload, facts: wire.ImportFacts) -> None:
        if facts.object:
            held.records[facts.object] = facts.record
        else:
            held.kmt, held.strict_kmt = facts.kmt, facts.strict_kmt
            held.write |= facts.granted & RESOURCE_WRITE != 0

    def _learn(self, request: bytes, data: bytes) -> Known:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        facts = wire.decode_facts(data)
        held = self.payloads.get(facts.payload)
        if held is None:
            share = Share.NT if facts.object else Share.KMT
            held = HeldPayload(facts.payload, facts.kind, facts.descriptor, share, facts.identity)
        entry = (held, facts.object, False, facts.granted, False)
        writable = facts.needs == READ_WRITE and facts.granted & RESOURCE_WRITE != 0
        known = self._known[request] = data, facts, entry, writable
        return known

    def handle(self, reply: wire.Handle, fd: OwnedFd | None) -> None:
        """A handle that this process has."""
        held = self._payload(reply.payload, reply.kind, reply.descriptor, Share.NT, reply.identity)
        if fd is not None:
            held.fds[reply.mode] = fd
        if reply.record:
            held.records[reply.object] = reply.record
        if reply.handle not in self.handles:
            held.references += 1
        self.handles[reply.handle] = HeldHandle(held, reply.object, reply.granted, reply.inherit, reply.protect)

    def freed(self, memory: int) -> None:
        """The memory object has ended."""
        gone = self.memories.pop(memory, None)
        if gone is not None:
            self._release(gone[0])

    def closed(self, handle: int) -> None:
        """The handle has been closed."""
        gone = self.handles.pop(handle, None)
        if gone is not None:
            self._release(gone.payload)

    def forgets(self, held: HeldPayload | None) -> int:
        """The payload whose descriptors go when a holder of it goes; 0 when there are more holders."""
        return held.id if held is not None and held.references == 1 else 0

    def offers(self, ticket: bytes, request: wire.Offer) -> None:
        """A ticket has been made."""
        now = time.monotonic()
        if now > self._pruned + _PRUNING:
            self._prune_offers(now)
        memory = self.memories.get(request.memory) if request.memory is not None else None
        handle = self.handles.get(request.handle & ~3) if request.handle is not None else None
        if memory is not None:
            entry = Offered("memory", memory[0].id, memory[1], memory[3], now)
        elif handle is not None:
            entry = Offered("handle", handle.payload.id, handle.object, handle.granted, now)
        else:
            payload = next((held.id for held in self.payloads.values() if held.kmt == request.kmt), 0)
            entry = Offered("kmt", payload, 0, 0, now)
        self.offered[ticket] = entry

    # -- announcing ---------------------------------------------------------------------------------------------------

    def announcements(self) -> Iterator[tuple[wire.Request, int | None]]:
        """Everything, in the order in which a new broker needs it; the descriptor to send beside each, if any."""
        # Records of objects that ended while their payload lived on are still here; nobody is to bring them back.
        wanted = {memory[1] for memory in self.memories.values()} | {h.object for h in self.handles.values()}
        for held in self.payloads.values():
            best = held.fds.get(READ_WRITE) or held.fds[READ_ONLY]
            yield (
                wire.AnnouncePayload(
                    held.id,
                    held.kind,
                    held.description,
                    int(held.share),
                    held.kmt,
                    held.strict_kmt,
                    held.write,
                    held.stated,
                ),
                best.fd,
            )
            for shared, record in held.records.items():
                if shared in wanted:
                    yield wire.AnnounceObject(record), None
        for memory, (held, shared, exporting, granted, inherit) in self.memories.items():
            number = memory % GENERATION
            yield wire.AnnounceMemory(number, held.id, shared, exporting, granted, inherit), None
        for value, h in self.handles.items():
            yield wire.AnnounceHandle(value, h.object, h.granted, h.inherit, h.protect), None
        for ticket in self.claimed:
            yield wire.AnnounceClaimed(ticket), None
        self._prune_offers(time.monotonic())
        for ticket, o in self.offered.items():
            if o.payload in self.payloads:
                yield wire.AnnounceTicket(ticket, o.what, o.payload, o.object, o.granted, o.pid, False), None

    def came_back(self, payload: int, back: wire.PayloadBack) -> None:
        """A payload's id and KMT number with the new broker."""
        held = self.payloads.get(payload)
        if held is None:
            return
        held.kmt = back.kmt
        self._known.clear()
        if back.payload != payload:
            del self.payloads[payload]
            held.id = back.payload
            self.payloads[back.payload] = held

    # -- parts --------------------------------------------------------------------------------------------------------

    def _payload(self, payload: int, kind: int, description: bytes, share: Share, stated: int) -> HeldPayload:
        held = self.payloads.get(payload)
        if held is None:
            held = self.payloads[payload] = HeldPayload(payload, kind, description, share, stated)
        return held

    def _release(self, held: HeldPayload) -> None:
        held.references -= 1
        if not held.references:
            self.payloads.pop(held.id, None)
            held.fds.clear()

    def _prune_offers(self, now: float) -> None:
        """Forget the offers that have ended. Looks at all of them, so not at each new one."""
        self._pruned = now
        old = [t for t, o in self.offered.items() if (now > o.made + STRONG if not o.pid else not _alive(o.pid))]
        for ticket in old:
            del self.offered[ticket]


def _alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
