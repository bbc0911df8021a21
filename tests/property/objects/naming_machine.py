"""The operations of `machine`, and those by which names are kept, replaced and waited for."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from extmem.objects import GENERIC_ALL, MAXIMUM_ALLOWED, ObjectKind, Refused, Share, Status
from extmem.sharing.keeping import Keep, KeepMode
from tests.property.objects.machine import PICK, Machine, refused_as
from tests.property.objects.reference_model import kind_of

FEW = st.sampled_from(["a", "A", "b"])
KEEPS = st.sampled_from([Keep(KeepMode.FORGOTTEN), Keep(KeepMode.TAKEN), Keep(KeepMode.TIME, 50)])


class Waiting(NamedTuple):
    """One row: who waits, under which number, for which name and kind of object."""

    who: str
    number: int
    name: str
    kind: ObjectKind


class NamingMachine(Machine):
    """Random operations, in which exports may also be kept or replace, and processes wait for names."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Waiting] = []
        self.numbers = 0

    # -- kept ---------------------------------------------------------------------------------------------------------

    @rule(pick=PICK, inode=st.integers(1, 3), name=FEW, keep=KEEPS)
    def export_kept(self, pick: int, inode: int, name: str, keep: Keep) -> None:
        self.export_as(self.who(pick), inode, name, Share.NT, keep=keep)

    @precondition(lambda self: self.model.names)
    @rule(pick=PICK, name=FEW)
    def forget(self, pick: int, name: str) -> None:
        shared, who = self.model.by_name(name), self.ids[self.who(pick)]
        if shared is None:
            with refused_as(Status.OBJECT_NAME_NOT_FOUND):
                self.manager.forget(who, name)
            return
        kept = [r for r in self.model.of("kept") if r.object == shared]
        assert self.manager.forget(who, name) == (shared if kept else 0)
        self.model.drop(*kept)

    @rule()
    def time_passes(self) -> None:
        unused = self.manager.take_unused()
        for shared, milliseconds in unused:
            assert milliseconds == 50
            self.manager.end_time(shared)
        ends = [r for r in self.model.of("kept") if r.what == "TIME" and self.model.only_kept(r)]
        assert {r.object for r in ends} <= {shared for shared, _ in unused}
        self.model.drop(*ends)

    def end_what_only_the_manager_keeps(self) -> None:
        self.time_passes()
        for ref in [r for r in self.model.of("kept") if self.model.only_kept(r)]:
            name = next(name for name, shared in self.model.names.items() if shared == ref.object)
            self.manager.forget(next(iter(self.ids.values())), name)
            self.model.drop(ref)
        self.model.taken.clear()  # the next manager does not know it
        self.waits.clear()  # processes wait anew

    # -- replaced -----------------------------------------------------------------------------------------------------

    def may_replace(self, who: str, inode: int, name: str) -> int | None:
        """The object that an export with `replace` would replace; None if it would be refused, or there is none."""
        known = self.model.identities.get(inode)
        if known is not None and self.model.payload_lives(known[0]) and known[1] is not Share.NT:
            return None
        rival = self.model.by_name(name)
        if rival is None or self.model.kinds[self.payload_of(rival)] is not kind_of(inode):
            return None
        publisher = self.model.publishers[rival]
        return rival if publisher == who or publisher not in self.ids else None

    @precondition(lambda self: self.model.names)
    @rule(pick=PICK, inode=st.integers(1, 3), name=FEW, arrives=st.booleans())
    def replace(self, pick: int, inode: int, name: str, arrives: bool) -> None:
        who = self.who(pick)
        taken, rival = self.model.by_name(name), self.may_replace(who, inode, name)
        if rival is None and taken is None:
            return
        try:
            made = self.manager.export(
                self.ids[who],
                ((1, inode),),
                b"",
                share=Share.NT,
                name=name,
                access=GENERIC_ALL,
                sddl=None,
                inherit=False,
                object_kind=kind_of(inode),
                replace=True,
            )
        except Refused as refusal:
            assert rival is None and refusal.status is not Status.OBJECT_NAME_NOT_FOUND
            return
        assert rival is not None
        self.model.seen.add(made.payload)
        if not arrives:
            self.manager.undo_reference(self.ids[who], made.reference)
            self.appeared()
            return
        self.manager.settle(self.ids[who])
        self.model.superseded.add(rival)
        self.model.unnamed.add(rival)
        self.exported(who, inode, name, Share.NT, made)
        self.model.drop(*(r for r in self.model.of("kept") if r.object == rival))
        self.appeared()

    # -- waited for ---------------------------------------------------------------------------------------------------

    @rule(pick=PICK, name=FEW, kind=st.sampled_from(list(ObjectKind)))
    def await_name(self, pick: int, name: str, kind: ObjectKind) -> None:
        who, shared = self.who(pick), self.model.by_name(name)
        self.numbers += 1
        if shared is not None:
            kind = self.model.kinds[self.payload_of(shared)]
        found = self.manager.await_name(self.ids[who], self.numbers, name, MAXIMUM_ALLOWED, kind)
        if shared is None:
            assert found is None
            self.waits.append(Waiting(who, self.numbers, name, kind))
        else:
            assert found is not None
            self.imported(who, found, self.payload_of(shared), shared)

    @precondition(lambda self: self.waits)
    @rule(pick=PICK, cancel=st.booleans())
    def end_wait(self, pick: int, cancel: bool) -> None:
        wait = self.waits.pop(pick % len(self.waits))
        if cancel:
            self.manager.cancel_wait(self.ids[wait.who], wait.number)
        else:
            with refused_as(Status.OBJECT_NAME_NOT_FOUND):
                self.manager.end_wait(self.ids[wait.who], wait.number)

    def appeared(self) -> None:
        over = self.manager.serve_waits()
        expected = [wait for wait in self.waits if self.model.by_name(wait.name) is not None]
        assert sorted(over) == sorted((self.ids[wait.who], wait.number) for wait in expected)
        for wait in expected:
            self.waits.remove(wait)
            shared = self.model.by_name(wait.name)
            assert shared is not None
            payload = self.payload_of(shared)
            if self.model.kinds[payload] is not wait.kind:
                with refused_as(Status.OBJECT_TYPE_MISMATCH):
                    self.manager.end_wait(self.ids[wait.who], wait.number)
            else:
                found = self.manager.end_wait(self.ids[wait.who], wait.number)
                self.imported(wait.who, found, payload, shared)

    def ends(self, who: str) -> None:
        self.waits = [wait for wait in self.waits if wait.who != who]

    # -- invariants ---------------------------------------------------------------------------------------------------

    @invariant()
    def what_waits_is_counted(self) -> None:
        assert self.manager.wait_count() == len(self.waits)

    @invariant()
    def what_is_kept_is_counted(self) -> None:
        assert self.manager.kept_count() == len(self.model.of("kept"))

    @invariant()
    def holders_know_what_was_superseded(self) -> None:
        for ref in self.model.of("reference"):
            expected = ref.object in self.model.superseded
            assert self.manager.is_superseded(self.ids[ref.who], ref.number) is expected

    def teardown(self) -> None:
        for name in list(self.model.names):
            if self.model.by_name(name) is not None:
                self.manager.forget(next(iter(self.ids.values())), name)
        super().teardown()
