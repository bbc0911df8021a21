"""The object manager against a small model: names, handles, imports, frees, tickets, KMT, deaths, a killed manager.

How this works. `Model` has no counters. It has a flat table of all references, and computes from that table what is
alive. `Machine` makes random operations on both and compares every result. One operation ends the manager and restores
the state of all processes in a new one, after which the results must be the same as before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from extmem.objects import (
    GENERIC_ALL,
    MAXIMUM_ALLOWED,
    Claimed,
    Exported,
    Imported,
    ObjectKind,
    Refused,
    Share,
    Status,
    Token,
)
from extmem.sharing.keeping import NOT_KEPT, Keep
from tests.described_manager import DescribedManager
from tests.property.objects.reference_model import Model, Ref, another, kind_of

USER = Token(1000, 1000)
PICK = st.integers(0, 1000)
NAMES = st.sampled_from([None, "a", "A", "b", "Global\\a"])


@contextmanager
def refused_as(status: Status) -> Iterator[None]:
    """The block is refused with this status."""
    try:
        yield
    except Refused as refusal:
        assert refusal.status is status, refusal
    else:
        raise AssertionError(f"not refused with {status.name}")


class Machine(RuleBasedStateMachine):
    """Random operations by up to five processes of one user."""

    manager_class: ClassVar[type[DescribedManager]] = DescribedManager

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(3)
        self.manager = self.manager_class(random=self.random.randrange)
        self.model = Model()
        self.released: list[int] = []
        self.ids: dict[str, int] = {}  # name of a process in this test -> its id in the manager
        self.born = 0
        for _ in range(2):
            self.attach()

    # -- helpers ------------------------------------------------------------------------------------------------------

    def who(self, pick: int) -> str:
        return sorted(self.ids)[pick % len(self.ids)]

    def choose(self, pick: int, *kinds: str) -> Ref:
        refs = sorted(self.model.of(*kinds), key=lambda r: r[:3])
        return refs[pick % len(refs)]

    def has(self, *kinds: str) -> bool:
        return bool(self.model.of(*kinds))

    def add(self, ref: Ref) -> None:
        self.model.refs.append(ref)

    def imported(self, who: str, result: Imported, payload: int, shared: int | None) -> None:
        assert (result.payload, result.object) == (payload, shared)
        assert result.object_kind is self.model.kinds[payload]
        self.add(Ref(who, "reference", result.reference, payload, shared))
        self.model.opened(who, shared)

    def new_handle(self, who: str, value: int, payload: int, shared: int, *, inherit: bool = False) -> None:
        assert value == self.model.free_value(who)
        self.add(Ref(who, "handle", value, payload, shared, inherit=inherit))
        self.model.opened(who, shared)

    def payload_of(self, shared: int) -> int:
        return next(r.payload for r in self.model.refs if r.object == shared)

    # -- operations ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.ids) < 5)
    @rule()
    def attach(self) -> None:
        self.born += 1
        self.ids[f"p{self.born}"] = self.manager.attach(USER, self.born)

    @precondition(lambda self: len(self.ids) > 1)
    @rule(pick=PICK)
    def die(self, pick: int) -> None:
        who = self.who(pick)
        self.manager.detach(self.ids.pop(who))
        self.ends(who)
        left = [r for r in self.model.refs if r.who == who and r.kind == "ticket"]
        self.model.refs += [r._replace(who="", kind="orphan") for r in left]
        self.model.drop(*(r for r in self.model.refs if r.who == who))

    def appeared(self) -> None:
        """A name may have appeared."""

    def ends(self, who: str) -> None:
        """A process has ended."""

    @rule(pick=PICK, inode=st.integers(1, 3), name=NAMES, share=st.sampled_from(list(Share)), inherit=st.booleans())
    def export(self, pick: int, inode: int, name: str | None, share: Share, inherit: bool) -> None:
        self.export_as(self.who(pick), inode, name, share, inherit=inherit)

    def export_as(
        self, who: str, inode: int, name: str | None, share: Share, *, inherit: bool = False, keep: Keep = NOT_KEPT
    ) -> None:
        name = None if share is Share.KMT else name
        known = self.model.identities.get(inode)
        if known is not None and not self.model.payload_lives(known[0]):
            known = None
        try:
            made = self.manager.export(
                self.ids[who],
                ((1, inode),),
                b"",
                share=share,
                name=name,
                access=GENERIC_ALL,
                sddl=None,
                inherit=inherit,
                object_kind=kind_of(inode),
                keep=keep,
            )
        except Refused as refusal:
            if known is not None and known[1] is not share:
                assert refusal.status is Status.INVALID_PARAMETER
            else:
                assert refusal.status is Status.OBJECT_NAME_COLLISION
                assert name is not None and self.model.by_name(name) is not None
            return
        assert known is None or known == (made.payload, share)
        assert known is not None or made.payload not in self.model.seen
        assert name is None or self.model.by_name(name) is None
        self.exported(who, inode, name, share, made, inherit=inherit)
        if keep:
            self.add(Ref("", "kept", 0, made.payload, made.object, what=keep.mode.name))
        self.appeared()

    def exported(
        self, who: str, inode: int, name: str | None, share: Share, made: Exported, *, inherit: bool = False
    ) -> None:
        self.model.identities[inode] = (made.payload, share)
        if made.object is not None:
            self.model.publishers[made.object] = who
        self.model.seen.add(made.payload)
        self.model.kinds[made.payload] = kind_of(inode)
        if name is not None and made.object is not None:
            self.model.names[name.upper()] = made.object
        if made.kmt is not None:
            before = [n for n in self.model.numbers if self.model.by_number(n) == made.payload]
            assert before in ([], [made.kmt])
            assert self.model.by_number(made.kmt) in (None, made.payload)
            self.model.numbers[made.kmt] = made.payload
            self.model.dead.discard(made.kmt)
        self.add(Ref(who, "reference", made.reference, made.payload, made.object, True, inherit))

    @rule(pick=PICK, name=NAMES.filter(bool), handle=st.booleans())
    def open_by_name(self, pick: int, name: str, handle: bool) -> None:
        who = self.who(pick)
        shared = self.model.by_name(name)
        try:
            if handle:
                value = self.manager.open_handle(self.ids[who], name, MAXIMUM_ALLOWED)
            else:
                kind = ObjectKind.MEMORY if shared is None else self.model.kinds[self.payload_of(shared)]
                if shared is not None:
                    with refused_as(Status.OBJECT_TYPE_MISMATCH):
                        self.manager.import_by_name(self.ids[who], name, MAXIMUM_ALLOWED, another(kind))
                result = self.manager.import_by_name(self.ids[who], name, MAXIMUM_ALLOWED, kind)
        except Refused as refusal:
            assert shared is None and refusal.status is Status.OBJECT_NAME_NOT_FOUND
            return
        assert shared is not None
        if handle:
            self.new_handle(who, value, self.payload_of(shared), shared)
        else:
            self.imported(who, result, self.payload_of(shared), shared)

    @precondition(lambda self: self.model.numbers)
    @rule(pick=PICK, which=PICK)
    def import_by_kmt(self, pick: int, which: int) -> None:
        who, numbers = self.who(pick), sorted(self.model.numbers)
        number = numbers[which % len(numbers)]
        payload = self.model.by_number(number)
        assert self.manager.kmt_alive(number) is (payload is not None)
        if payload is not None:
            kind = self.model.kinds[payload]
            with refused_as(Status.INVALID_PARAMETER):
                self.manager.import_by_kmt(self.ids[who], number, another(kind))
            self.imported(who, self.manager.import_by_kmt(self.ids[who], number, kind), payload, None)

    @precondition(lambda self: self.has("handle"))
    @rule(pick=PICK)
    def import_by_handle(self, pick: int) -> None:
        ref = self.choose(pick, "handle")
        who, kind = self.ids[ref.who], self.model.kinds[ref.payload]
        with refused_as(Status.OBJECT_TYPE_MISMATCH):
            self.manager.import_by_handle(who, ref.number, another(kind))
        self.imported(ref.who, self.manager.import_by_handle(who, ref.number, kind), ref.payload, ref.object)

    @precondition(lambda self: self.has("reference"))
    @rule(pick=PICK)
    def get_handle(self, pick: int) -> None:
        ref = self.choose(pick, "reference")
        if ref.exporting and ref.object is not None:
            value = self.manager.get_handle(self.ids[ref.who], ref.number)
            self.new_handle(ref.who, value, ref.payload, ref.object, inherit=ref.inherit)

    @precondition(lambda self: self.has("handle"))
    @rule(pick=PICK, to=PICK, inherit=st.booleans(), close_source=st.booleans())
    def duplicate(self, pick: int, to: int, inherit: bool, close_source: bool) -> None:
        ref, into = self.choose(pick, "handle"), self.who(to)
        assert ref.object is not None
        value = self.manager.duplicate(
            self.ids[ref.who],
            ref.number,
            target=self.ids[into],
            desired=None,
            inherit=inherit,
            close_source=close_source,
        )
        if close_source and into == ref.who:
            assert value == ref.number
            self.model.refs.remove(ref)
            self.add(ref._replace(inherit=inherit))
            return
        self.new_handle(into, value, ref.payload, ref.object, inherit=inherit)
        if close_source:
            self.model.drop(ref)

    @precondition(lambda self: self.has("handle"))
    @rule(pick=PICK)
    def swap_values(self, pick: int) -> None:
        """Copy a handle, close it, and copy it back: each copy gets the lowest free value (B41)."""
        ref = self.choose(pick, "handle")
        self.duplicate_once(ref, ref.who)
        self.manager.close_handle(self.ids[ref.who], ref.number)
        self.model.drop(ref)
        self.duplicate_once(self.model.refs[-1], ref.who)

    def duplicate_once(self, ref: Ref, into: str) -> None:
        assert ref.object is not None
        value = self.manager.duplicate(self.ids[ref.who], ref.number, target=self.ids[into], desired=None)
        self.new_handle(into, value, ref.payload, ref.object)

    @precondition(lambda self: self.has("reference", "handle"))
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        ref = self.choose(pick, "reference", "handle")
        if ref.kind == "reference":
            self.manager.release(self.ids[ref.who], ref.number)
        else:
            self.manager.close_handle(self.ids[ref.who], ref.number)
        self.model.drop(ref)

    @precondition(lambda self: self.has("reference", "handle"))
    @rule(pick=PICK)
    def offer(self, pick: int) -> None:
        ref = self.choose(pick, "reference", "handle")
        process = self.ids[ref.who]
        if ref.kind == "reference":
            ticket = self.manager.offer(process, reference=ref.number)
        else:
            ticket = self.manager.offer(process, handle=ref.number)
        self.add(Ref(ref.who, "ticket", ticket, ref.payload, ref.object, what=ref.kind))

    @precondition(lambda self: self.model.live_numbers())
    @rule(pick=PICK, which=PICK)
    def offer_number(self, pick: int, which: int) -> None:
        who, numbers = self.who(pick), self.model.live_numbers()
        number = numbers[which % len(numbers)]
        ticket = self.manager.offer(self.ids[who], kmt=number)
        self.add(Ref(who, "ticket", ticket, self.model.numbers[number], None, what="kmt"))

    @precondition(lambda self: self.has("ticket", "weak", "orphan"))
    @rule(pick=PICK, claimer=PICK)
    def claim(self, pick: int, claimer: int) -> None:
        ref, who = self.choose(pick, "ticket", "weak", "orphan"), self.who(claimer)
        number = next((n for n in self.model.live_numbers() if self.model.numbers[n] == ref.payload), None)
        try:
            claimed: Claimed = self.manager.claim(self.ids[who], ref.number)
        except Refused as refusal:
            assert ref.what == "kmt" and number is None and refusal.status is Status.INVALID_HANDLE
            return
        if claimed.imported is not None:
            assert ref.what == "reference"
            self.imported(who, claimed.imported, ref.payload, ref.object)
        elif claimed.handle is not None:
            assert ref.what == "handle" and ref.object is not None
            self.new_handle(who, claimed.handle, ref.payload, ref.object)
        else:
            assert ref.what == "kmt" and claimed.kmt == number is not None
        self.model.drop(ref)
        try:
            self.manager.claim(self.ids[who], ref.number)
            raise AssertionError("claimed twice")
        except Refused as refusal:
            assert refusal.status is Status.INVALID_HANDLE

    @precondition(lambda self: self.has("ticket", "weak", "orphan"))
    @rule(pick=PICK, claimer=PICK)
    def lose_the_answer_of_a_claim(self, pick: int, claimer: int) -> None:
        """Undo the claim. The state is as before, except for what only the ticket for a number kept alive."""
        ref, who = self.choose(pick, "ticket", "weak", "orphan"), self.who(claimer)
        try:
            claimed = self.manager.claim(self.ids[who], ref.number)
        except Refused:
            assert ref.what == "kmt"
            return
        lives = True
        if ref.what == "kmt":
            self.model.drop(ref)
            lives = self.model.payload_lives(ref.payload)
            if lives:
                self.add(ref)
        assert (self.manager.put_back(self.ids[who], claimed) is not None) is lives
        assert self.manager.put_back(self.ids[who], replace(claimed, imported=None, handle=None)) is None

    @precondition(lambda self: self.has("ticket", "orphan"))
    @rule(pick=PICK, expire=st.booleans())
    def give_up_ticket(self, pick: int, expire: bool) -> None:
        ref = self.choose(pick, "ticket", "orphan")
        if ref.kind == "orphan":
            if expire:
                assert not self.manager.expire(ref.number)
            else:
                self.manager.cancel(ref.number)
            self.model.drop(ref)
        elif expire:
            self.manager.expire(ref.number)
            self.model.refs.remove(ref)
            self.add(ref._replace(kind="weak"))
            self.model.drop()
        else:
            assert self.manager.withdraw(self.ids[ref.who], ref.number)
            self.model.drop(ref)

    @precondition(lambda self: len(self.ids) < 5)
    @rule(pick=PICK)
    def start_child(self, pick: int) -> None:
        parent = self.who(pick)
        self.born += 1
        child = f"p{self.born}"
        self.ids[child] = self.manager.inherit(self.ids[parent])
        self.manager.adopt(self.ids[child], USER, self.born)
        for ref in self.model.of("handle"):
            if ref.who == parent and ref.inherit:
                self.add(ref._replace(who=child))

    @rule(seed=PICK)
    def kill_the_manager(self, seed: int) -> None:
        # What no living process holds ends with the manager, and so do demoted tickets. They are ended before, so that
        # the two managers can be compared.
        for ref in self.model.of("orphan", "weak"):
            self.manager.cancel(ref.number)
            self.model.drop(ref)
        self.end_what_only_the_manager_keeps()
        self.take_released()
        old = self.manager
        new = self.manager_class(random=self.random.randrange)
        processes = sorted(self.ids)
        random.Random(seed).shuffle(processes)
        for who in processes:
            held = old.describe(self.ids[who])
            self.ids[who] = new.attach(USER, int(who[1:]))
            assert new.restore(self.ids[who], held).nameless == ()
        assert new.snapshot() == old.snapshot()
        self.manager = new

    def end_what_only_the_manager_keeps(self) -> None:
        """Before the manager is killed."""

    # -- invariants ---------------------------------------------------------------------------------------------------

    def take_released(self) -> None:
        self.released += self.manager.take_released()

    @invariant()
    def payloads_are_released_once_and_only_when_nobody_holds_them(self) -> None:
        self.take_released()
        ended = {payload for payload in self.model.seen if not self.model.payload_lives(payload)}
        assert sorted(self.released) == sorted(ended)

    @invariant()
    def names_resolve_exactly_while_their_objects_are_held(self) -> None:
        alive = {name for name in self.model.names if self.model.by_name(name) is not None}
        assert self.manager.counts()["names"] == len(alive)

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        counts = self.manager.counts()
        live = {r.payload for r in self.model.refs}
        assert counts["payloads"] == len(live)
        assert counts["objects"] == len({r.object for r in self.model.refs if r.object is not None})
        assert counts["references"] == len(self.model.of("reference"))
        assert counts["handles"] == len(self.model.of("handle"))
        assert counts["tickets"] == len(self.model.of("ticket", "weak", "orphan"))
        assert counts["kmt_numbers"] == sum(self.model.by_number(n) is not None for n in self.model.numbers)

    @invariant()
    def handle_counts_agree(self) -> None:
        for ref in self.model.of("handle"):
            info = self.manager.handle_info(self.ids[ref.who], ref.number)
            assert (info.object, info.inherit) == (ref.object, ref.inherit)
            assert info.handle_count == sum(r.object == ref.object for r in self.model.of("handle"))

    def teardown(self) -> None:
        for process in self.manager.processes():
            self.manager.detach(process)
        for ref in self.model.of("ticket", "orphan"):
            self.manager.expire(ref.number)
        assert not any(self.manager.counts().values())
