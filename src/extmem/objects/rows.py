"""What exists and which processes hold it: rows for people (`extmem ps`) and for tests that compare two managers.

Apart from the model, because clients get the parts of a snapshot by message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from extmem.sharing.kinds import ObjectKind, Share

__all__ = ["HandleRow", "HolderRow", "ObjectRow", "Part", "PayloadRow", "assemble"]


class HandleRow(msgspec.Struct, frozen=True):
    """An open handle: its value in the holder's table, its rights, its object."""

    value: int
    granted: int
    object: int


class HolderRow(msgspec.Struct, frozen=True):
    """What one process holds of one payload. `references` counts its references, `tickets` its tickets in flight.

    `pid` is 0 for a child that inherits and has not connected yet.
    """

    pid: int
    references: int
    handles: tuple[HandleRow, ...]
    tickets: int
    rights: int = 0
    """The rights of its references, together. 0 on Windows, whose kernel does not know them."""


class ObjectRow(msgspec.Struct, frozen=True):
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


class PayloadRow(msgspec.Struct, frozen=True):
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


class Part(msgspec.Struct, frozen=True):
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
        msgspec.structs.replace(
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
    return msgspec.structs.replace(holder, handles=tuple(sorted(holder.handles, key=lambda handle: handle.value)))
