"""What exists now and which processes hold it: rows for people (`extmem ps`) and for tests that compare two managers.

How this works. `walk` visits everything in small steps and yields `Part`s, so that its caller can stop after each of
them, do other work, and continue: the broker sends the parts in pages. `assemble` builds rows from them. What ends
during the walk may or may not be in it; what begins during the walk is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from extmem.late_dataclass import dataclass, replace
from extmem.objects.core import STEP, Core
from extmem.objects.entities import Payload, Process, SharedObject, User
from extmem.objects.object_types import SYNC_WAIT
from extmem.objects.security import Token
from extmem.sharing.kinds import ObjectKind, Share

__all__ = ["HandleRow", "HolderRow", "ObjectRow", "Part", "PayloadRow", "Snapshots", "assemble"]


@dataclass(frozen=True, slots=True)
class HandleRow:
    """An open handle: its value in the holder's table, its rights, its object."""

    value: int
    granted: int
    object: int


@dataclass(frozen=True, slots=True)
class HolderRow:
    """What one process holds of one payload. `references` counts its references, `tickets` its tickets in flight.

    `pid` is 0 for a child that inherits and has not connected yet.
    """

    pid: int
    references: int
    handles: tuple[HandleRow, ...]
    tickets: int
    rights: int = 0
    """The rights of its references, together. 0 on Windows, whose kernel does not know them."""


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """A shared object on a payload: its full path or None, its security as text, and its reference counts."""

    object: int
    name: str | None
    sddl: str
    handle_count: int
    pointer_count: int
    kept: str = ""
    """What ends the keeping by the object manager, in words (`sharing.keeping.Keep.text`); empty if it is not kept."""
    superseded: bool = False
    """Whether another object has got its name."""
    rights: int = 0
    """The rights that the viewer could open it with; 0 where they are not known, as on Windows."""
    publisher: int = 0
    """The pid of the process that exported it; 0 where it is not known."""


@dataclass(frozen=True, slots=True)
class PayloadRow:
    """A live payload. Rows are ordered by payload id, holders by pid, objects by id: equal states give equal lists."""

    payload: int
    share: Share
    kmt: int | None
    descriptor: bytes
    objects: tuple[ObjectRow, ...]
    holders: tuple[HolderRow, ...]
    in_flight: int = 0
    """Tickets in flight whose sender has ended."""
    object_kind: ObjectKind = ObjectKind.MEMORY
    handle_count: int = 1
    """The number of handles that the payload consists of."""
    counter: int | None = None
    """The value in the page of a semaphore that the viewer may wait for; None for other payloads. The value of a
    driver's timeline is what hosts have seen done."""

    @property
    def names(self) -> tuple[str, ...]:
        """The full paths of its objects now."""
        return tuple(row.name for row in self.objects if row.name is not None)

    @property
    def name(self) -> str | None:
        """The first of `names`; None when it has none."""
        return next(iter(self.names), None)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a snapshot, for the row of `payload`: exactly one of `row` (without objects and holders), `object`,
    `holder` and `in_flight` is set. Parts of the same `process` are one holder.
    """

    payload: int
    row: PayloadRow | None = None
    object: ObjectRow | None = None
    holder: HolderRow | None = None
    process: int = 0
    in_flight: int = 0
    readable: bool = False
    """Of a semaphore's row: whether the viewer may wait for it, and so read its value."""


class _Tally:
    """What a process holds of a payload, while it is counted."""

    __slots__ = ("handles", "references", "rights", "tickets")

    def __init__(self) -> None:
        self.references = self.rights = 0
        self.handles: list[HandleRow] = []
        self.tickets = 0


class Snapshots(Core):
    """Reading the state."""

    def walk(self, token: Token | None = None) -> Iterator[Part | None]:
        """Yield the parts of a snapshot, one after the other; None at the end of a step without a part.

        token: only what this user may open: payloads of its own, and objects that it owns or whose security grants it
            something. None, and uid 0, see everything.
        """
        viewer = None if token is None or token.uid == 0 else token
        seen: set[int] = set()
        for payload in list(self._payloads.values()):
            objects = [shared for shared in payload.objects.values() if viewer is None or _may_see(shared, viewer)]
            if viewer is not None and not objects and payload.uid != viewer.uid:
                yield None
                continue
            seen.add(payload.id)
            row = PayloadRow(
                payload.id,
                payload.share,
                payload.kmt,
                payload.descriptor,
                (),
                (),
                object_kind=payload.object_kind,
                handle_count=len(payload.identity),
            )
            yield Part(payload.id, row, readable=_may_wait(payload, objects, viewer))
            for shared in objects:
                name = None if shared.name is None else shared.name.display
                kept = "" if shared.kept is None else shared.kept.keep.text
                rights = 0 if token is None else shared.rights(token) & shared.may_give
                shared_row = ObjectRow(
                    shared.id,
                    name,
                    shared.sddl,
                    shared.handles,
                    shared.refs,
                    kept,
                    shared.superseded,
                    rights,
                    shared.publisher[0],
                )
                yield Part(payload.id, object=shared_row)
        for process in list(self._processes.values()):
            yield from _holdings(process, seen, viewer)
        for user in list(self._users.values()):
            yield from _in_flight(user, seen, viewer)


def assemble(parts: Iterable[Part]) -> list[PayloadRow]:
    """Return the rows that these parts make. Parts of a payload whose own row is not among them are omitted."""
    rows: dict[int, PayloadRow] = {}
    objects: dict[int, list[ObjectRow]] = {}
    holders: dict[int, dict[int, HolderRow]] = {}
    in_flight: Counter[int] = Counter()
    for part in parts:
        if part.row is not None:
            rows[part.payload] = part.row
        elif part.object is not None:
            objects.setdefault(part.payload, []).append(part.object)
        elif part.holder is not None:
            of_payload = holders.setdefault(part.payload, {})
            known = of_payload.get(part.process)
            of_payload[part.process] = part.holder if known is None else _both(known, part.holder)
        else:
            in_flight[part.payload] += part.in_flight
    return [
        replace(
            row,
            objects=tuple(sorted(objects.get(payload, ()), key=lambda shared: shared.object)),
            holders=tuple(map(_in_order, sorted(holders.get(payload, {}).values(), key=lambda holder: holder.pid))),
            in_flight=in_flight[payload],
        )
        for payload, row in sorted(rows.items())
    ]


def _both(a: HolderRow, b: HolderRow) -> HolderRow:
    references, tickets = a.references + b.references, a.tickets + b.tickets
    return HolderRow(a.pid, references, a.handles + b.handles, tickets, a.rights | b.rights)


def _in_order(holder: HolderRow) -> HolderRow:
    return replace(holder, handles=tuple(sorted(holder.handles, key=lambda handle: handle.value)))


def _may_see(shared: SharedObject, viewer: Token) -> bool:
    return shared.owner == viewer.uid or bool(shared.rights(viewer) & shared.may_give)


def _may_wait(payload: Payload, objects: Iterable[SharedObject], viewer: Token | None) -> bool:
    if payload.object_kind is not ObjectKind.SEMAPHORE:
        return False
    if viewer is None or payload.uid == viewer.uid:
        return True
    return any(shared.rights(viewer) & shared.may_give & SYNC_WAIT for shared in objects)


def _holdings(process: Process, seen: set[int], viewer: Token | None) -> Iterator[Part | None]:
    """What one process holds of the payloads that are seen."""

    def visible(payload: Payload, shared: SharedObject | None) -> bool:
        return payload.id in seen and (shared is None or viewer is None or _may_see(shared, viewer))

    found: dict[int, _Tally] = {}
    visited = 0
    for reference in list(process.references.values()):
        if visible(reference.payload, reference.object):
            tally = found.setdefault(reference.payload.id, _Tally())
            tally.references += 1
            tally.rights |= reference.granted
        visited += 1
        if not visited % STEP:
            yield None
    for value, entry in process.table.items():
        shared = entry.object
        if isinstance(shared, SharedObject) and visible(shared.payload, shared):
            tally = found.setdefault(shared.payload.id, _Tally())
            tally.handles.append(HandleRow(value, entry.granted, shared.id))
        visited += 1
        if not visited % STEP:
            yield None
    for ticket in list(process.tickets.values()):
        if visible(ticket.payload, ticket.object):
            found.setdefault(ticket.payload.id, _Tally()).tickets += 1
        visited += 1
        if not visited % STEP:
            yield None
    for payload, tally in found.items():
        first = tuple(tally.handles[:STEP])
        holder = HolderRow(process.pid, tally.references, first, tally.tickets, tally.rights)
        yield Part(payload, holder=holder, process=process.id)
        for start in range(STEP, len(tally.handles), STEP):
            more = tuple(tally.handles[start : start + STEP])
            yield Part(payload, holder=HolderRow(process.pid, 0, more, 0), process=process.id)


def _in_flight(user: User, seen: set[int], viewer: Token | None) -> Iterator[Part | None]:
    """A user's references in flight whose sender has ended, on the payloads that are seen."""
    found: Counter[int] = Counter()
    for visited, ticket in enumerate(list(user.tickets.values()), 1):
        if ticket.sender is None and ticket.payload.id in seen:
            found[ticket.payload.id] += 1
        if not visited % STEP:
            yield None
    for payload, count in found.items():
        yield Part(payload, in_flight=count)
