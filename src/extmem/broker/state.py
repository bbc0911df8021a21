"""What this process holds through the broker, kept so that it can be announced to another one.

How this works. The broker's word is what counts; this is a copy of the part that concerns this process, changed only
when a reply has arrived, under the client's lock. Whoever holds anything of a payload (memory object or handle) also
has a descriptor of it here: after a broker's death the holders together have all that is needed to make it again.

A descriptor is owned by a `SharedFd`, which closes it when the last user lets go: the entry here is one, and each
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
from typing import Final

from extmem.broker import wire
from extmem.broker.descriptors import PayloadFd, SharedFd
from extmem.broker.payloads import is_writable
from extmem.broker.tickets import STRONG
from extmem.broker.transport import Fds
from extmem.broker.wire import READ_ONLY, READ_WRITE, Kind
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
        self.fds: dict[int, SharedFd] = {}
        self.records: dict[int, bytes] = {}
        """Shared objects on it, as the broker wants them announced."""


@dataclass(slots=True)
class HeldMemory:
    """A memory object."""

    payload: HeldPayload
    object: int
    exporting: bool
    granted: int
    inherit: bool


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
        self.payloads: dict[int, HeldPayload] = {}
        self.memories: dict[int, HeldMemory] = {}
        self.handles: dict[int, HeldHandle] = {}
        self.offered: dict[bytes, Offered] = {}
        self.claimed: deque[bytes] = deque(maxlen=256)

    def after_fork(self) -> State:
        """The state of the child: empty, but it knows what is not its own."""
        return State(self.generation + 1, self.left_behind | self.handles.keys())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to announce."""
        return not self.payloads

    # -- taking replies in --------------------------------------------------------------------------------------------

    def exported(self, request: wire.Export, reply: wire.Exported, fd: int) -> None:
        """A memory object that this process exports. A duplicate of `fd` is kept."""
        share = Share(request.share)
        held = self._payload(reply.payload, request.kind, reply.descriptor, share, request.identity)
        mode = READ_WRITE if is_writable(Kind(request.kind), fd) else READ_ONLY
        if mode not in held.fds:
            held.fds[mode] = SharedFd(os.dup(fd))
        held.kmt, held.strict_kmt = reply.kmt, reply.strict_kmt
        held.write |= mode == READ_WRITE
        self._add_memory(
            held, reply.memory, reply.object, reply.granted, reply.record, exporting=True, inherit=request.inherit
        )

    def imported(self, reply: wire.Imported, fds: Fds | None) -> PayloadFd:
        """A memory object that this process has imported."""
        held = self.payloads.get(reply.payload)
        if held is None:
            share = Share.NT if reply.object else Share.KMT
            held = self._payload(reply.payload, reply.kind, reply.descriptor, share, reply.identity)
        self._keep(held, reply.mode, fds)
        shared = held.fds.get(reply.needs)
        if shared is None:
            raise PeerProtocolError(
                f"the broker takes for granted a descriptor of payload {reply.payload} that is not here"
            )
        if reply.kmt:
            held.kmt, held.strict_kmt = reply.kmt, reply.strict_kmt
            held.write |= reply.granted & RESOURCE_WRITE != 0
        self._add_memory(held, reply.memory, reply.object, reply.granted, reply.record, exporting=False, inherit=False)
        return PayloadFd(shared, reply.needs == READ_WRITE and reply.granted & RESOURCE_WRITE != 0)

    def handle(self, reply: wire.Handle, fds: Fds | None) -> None:
        """A handle that this process has."""
        held = self._payload(reply.payload, reply.kind, reply.descriptor, Share.NT, reply.identity)
        self._keep(held, reply.mode, fds)
        if reply.record:
            held.records[reply.object] = reply.record
        if reply.handle not in self.handles:
            held.references += 1
        self.handles[reply.handle] = HeldHandle(held, reply.object, reply.granted, reply.inherit, reply.protect)

    def freed(self, memory: int) -> None:
        """The memory object has ended."""
        gone = self.memories.pop(memory, None)
        if gone is not None:
            self._release(gone.payload)

    def closed(self, handle: int) -> None:
        """The handle has been closed."""
        gone = self.handles.pop(handle, None)
        if gone is not None:
            self._release(gone.payload)

    def forgets(self, held: HeldMemory | HeldHandle | None) -> int:
        """The payload whose descriptors go when this goes, 0 for none."""
        return held.payload.id if held is not None and held.payload.references == 1 else 0

    def offers(self, ticket: bytes, request: wire.Offer) -> None:
        """A ticket has been made."""
        self._prune_offers()
        source: HeldMemory | HeldHandle | None = None
        if request.memory is not None:
            source = self.memories.get(request.memory)
        elif request.handle is not None:
            source = self.handles.get(request.handle & ~3)
        what = "memory" if request.memory is not None else "handle" if request.handle is not None else "kmt"
        if source is not None:
            entry = Offered(what, source.payload.id, source.object, source.granted, time.monotonic())
        else:
            payload = next((held.id for held in self.payloads.values() if held.kmt == request.kmt), 0)
            entry = Offered(what, payload, 0, 0, time.monotonic())
        self.offered[ticket] = entry

    # -- announcing ---------------------------------------------------------------------------------------------------

    def announcements(self) -> Iterator[tuple[wire.Request, int | None]]:
        """Everything, in the order in which a new broker needs it; the descriptor to send beside each, if any."""
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
            wanted = {m.object for m in self.memories.values() if m.payload is held} if len(held.records) > 1 else None
            for shared, record in held.records.items():
                if wanted is None or shared in wanted or any(h.object == shared for h in self.handles.values()):
                    yield wire.AnnounceObject(record), None
        for memory, m in self.memories.items():
            number = memory % GENERATION
            yield wire.AnnounceMemory(number, m.payload.id, m.object, m.exporting, m.granted, m.inherit), None
        for value, h in self.handles.items():
            yield wire.AnnounceHandle(value, h.object, h.granted, h.inherit, h.protect), None
        for ticket in self.claimed:
            yield wire.AnnounceClaimed(ticket), None
        self._prune_offers()
        for ticket, o in self.offered.items():
            if o.payload in self.payloads:
                yield wire.AnnounceTicket(ticket, o.what, o.payload, o.object, o.granted, o.pid, False), None

    def came_back(self, payload: int, back: wire.PayloadBack) -> None:
        """A payload's id and KMT number with the new broker."""
        held = self.payloads.get(payload)
        if held is None:
            return
        held.kmt = back.kmt
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

    def _keep(self, held: HeldPayload, mode: int, fds: Fds | None) -> None:
        if mode and fds is not None:
            held.fds[mode] = SharedFd(fds.take())

    def _add_memory(
        self,
        held: HeldPayload,
        memory: int,
        shared: int,
        granted: int,
        record: bytes,
        *,
        exporting: bool,
        inherit: bool,
    ) -> None:
        if shared:
            held.records[shared] = record
        held.references += 1
        self.memories[memory + self.generation * GENERATION] = HeldMemory(held, shared, exporting, granted, inherit)

    def _release(self, held: HeldPayload) -> None:
        held.references -= 1
        if not held.references:
            self.payloads.pop(held.id, None)
            held.fds.clear()

    def _prune_offers(self) -> None:
        now = time.monotonic()
        old = [t for t, o in self.offered.items() if (now > o.made + STRONG if not o.pid else not _alive(o.pid))]
        for ticket in old:
            del self.offered[ticket]


def _alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
