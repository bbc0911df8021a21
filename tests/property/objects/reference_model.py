"""The model that the object manager is compared with: a flat table of references, and what is alive by it."""

from __future__ import annotations

from typing import NamedTuple

from extmem.objects import ObjectKind, Share


def kind_of(inode: int) -> ObjectKind:
    """The kind of the payload that consists of this file."""
    return ObjectKind(1 + inode % 3)


def another(kind: ObjectKind) -> ObjectKind:
    """Another kind than this one."""
    return ObjectKind(1 + kind % 3)


class Ref(NamedTuple):
    """One row: the holder, the kind of reference, its number, and what it refers to."""

    who: str
    kind: str  # reference, handle, ticket, orphan (a ticket whose sender has ended), weak (a demoted ticket), kept
    number: int
    payload: int
    object: int | None
    exporting: bool = False
    inherit: bool = False
    what: str = ""  # of a ticket: reference, handle, kmt; of a kept object: the mode


class Model:
    """The expected state, computed by brute force."""

    def __init__(self) -> None:
        self.refs: list[Ref] = []
        self.names: dict[str, int] = {}
        self.numbers: dict[int, int] = {}  # KMT number -> payload
        self.identities: dict[int, tuple[int, Share]] = {}  # inode -> payload, share
        self.kinds: dict[int, ObjectKind] = {}  # payload -> kind
        self.seen: set[int] = set()  # all payloads that ever existed
        self.unnamed: set[int] = set()  # objects that at some time no living process held
        self.publishers: dict[int, str] = {}  # object -> the process that exported it
        self.taken: set[int] = set()  # objects that another process than the publisher has opened
        self.superseded: set[int] = set()  # objects whose name another one has got
        self.dead: set[int] = set()  # KMT numbers of payloads that at some time no living process held

    def payload_lives(self, payload: int) -> bool:
        return any(r.payload == payload and r.kind != "weak" for r in self.refs)

    def object_lives(self, shared: int) -> bool:
        return any(r.object == shared and r.kind != "weak" for r in self.refs)

    def by_name(self, name: str) -> int | None:
        shared = self.names.get(name.upper())
        return shared if shared is not None and self.object_lives(shared) and shared not in self.unnamed else None

    def by_number(self, number: int) -> int | None:
        payload = self.numbers.get(number)
        return payload if payload is not None and self.payload_lives(payload) and number not in self.dead else None

    def live_numbers(self) -> list[int]:
        return sorted(number for number in self.numbers if self.by_number(number) is not None)

    def opened(self, who: str, shared: int | None) -> None:
        if shared is not None and who != self.publishers.get(shared):
            self.taken.add(shared)

    def only_kept(self, ref: Ref) -> bool:
        """Whether no process holds the object, and only references in flight of ended processes do."""
        return not any(r.object == ref.object and r.kind not in ("weak", "orphan", "kept") for r in self.refs)

    def drop(self, *gone: Ref) -> None:
        self.refs = [r for r in self.refs if r not in gone]
        self.refs = [r for r in self.refs if not (r.what == "TAKEN" and r.object in self.taken and self.only_kept(r))]
        self.refs = [
            r
            for r in self.refs
            if r.kind != "weak" or (self.payload_lives(r.payload) if r.object is None else self.object_lives(r.object))
        ]
        alive = [r for r in self.refs if r.kind not in ("weak", "orphan")]
        self.unnamed |= set(self.names.values()) - {r.object for r in alive if r.object is not None}
        self.dead |= {number for number, payload in self.numbers.items() if payload not in {r.payload for r in alive}}

    def free_value(self, who: str) -> int:
        used = {r.number for r in self.refs if r.who == who and r.kind == "handle"}
        return next(value for value in range(4, 4 * len(used) + 8, 4) if value not in used)

    def of(self, *kinds: str) -> list[Ref]:
        return [r for r in self.refs if r.kind in kinds]
