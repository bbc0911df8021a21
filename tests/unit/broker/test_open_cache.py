"""The quick way of opening by name replies as the general way does, whatever happened before."""

from __future__ import annotations

import os
import socket
import struct
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extmem import wire
from extmem.broker.announcements import Loop
from extmem.broker.dispatch import Dispatch
from extmem.broker.fd_closer import FdCloser
from extmem.broker.fd_inspection import Given
from extmem.broker.fd_quota import FdQuota
from extmem.broker.open_cache import OpenCache
from extmem.broker.payload_fds import PayloadFds
from extmem.broker.sessions import Session
from extmem.broker.signing import Signer
from extmem.broker.tickets import Tickets
from extmem.objects import Limits, Refused, Share, Token
from tests.described_manager import DescribedManager

NAMES = ("a", "A", "b", "Local\\a")
MASKS = (0, 1, 0x80000000, 0x80000001, 0x02000000)
SDDL = (None, "D:(A;;GR;;;OW)", "D:", "D:(A;;GA;;;WD)")
TOKENS = (Token(1000, 1000, frozenset()), Token(1001, 1001, frozenset()))


class World:
    """The same parts as in two brokers, with and without the quick way. Equal seeds give equal ids."""

    def __init__(self, *, quick: bool) -> None:
        self.model = DescribedManager(random=Random(5).randrange, limits=Limits(references=6))
        self.closer = FdCloser()
        self.quota = FdQuota(10_000, "here")
        self.payloads = PayloadFds(self.closer, self.quota)
        self.tickets = Tickets(self.model)
        signer, loop = Signer(bytes(32)), Loop(*[lambda *_: None] * 7)
        self.dispatch = Dispatch(
            self.model, self.payloads, self.tickets, self.closer, signer, self.quota, lambda: 0.0, loop
        )
        self.quick = OpenCache(self.model, self.payloads) if quick else None
        self.ends: list[socket.socket] = []
        self.sessions = [self._session(token) for token in TOKENS]
        self._inodes = count(1)
        self.hits = 0

    def _session(self, token: Token) -> Session:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends.append(theirs)
        session = Session(ours, 0.0)
        session.token = token
        session.process = self.model.attach(token, 100 + len(self.ends))
        return session

    def export(self, who: int, name: str, sddl: str | None) -> int:
        session = self.sessions[who]
        made = self.model.export(
            session.process,
            ((1, next(self._inodes)),),
            b"self-description",
            share=Share.NT,
            name=name,
            access=1 << 28,
            sddl=sddl,
            inherit=False,
        )
        self.quota.take(session.token.uid, session.process)
        given = Given(wire.Backing.HOST_FILE, ((1, made.payload),), True, 0, True)
        self.payloads.add(made.payload, given, [os.memfd_create("x")], session.token.uid, session.process)
        record = self.model.payload_record(made.payload)
        from extmem.broker.announcements import Facts

        facts = Facts(
            record.descriptor, record.object_kind, wire.Backing.HOST_FILE, 0, session.token.uid, strict_kmt=False
        )
        self.dispatch.facts[made.payload] = facts
        return made.reference

    def open(self, who: int, name: str, mask: int) -> tuple[wire.Reply, int]:
        """Return the reply as the client decodes it, and how many fds came with it."""
        session = self.sessions[who]
        data = wire.encode(wire.ImportName(name, mask, 1))
        try:
            if self.quick is not None and self.quick.serve(data, session):
                self.hits += 1
                text, ancillary, _, _ = self.ends[who].recvmsg(wire.MAX_MESSAGE, 64)
                for _, _, fds in ancillary:
                    os.close(struct.unpack("i", fds)[0])
                return wire.decode_reply(text), len(ancillary)
            reply, fds = self.dispatch.answer(session, wire.decode_request(data), ())
        except Refused as refusal:
            return wire.Refusal(refusal.status, refusal.detail), 0
        if self.quick is not None and isinstance(reply, wire.Imported):
            self.quick.remember(data, session, reply)
        return reply, len(fds)

    def free(self, who: int, memory: int) -> str:
        try:
            self.model.release(self.sessions[who].process, memory)
        except Refused as refusal:
            return refusal.detail
        self.dispatch.collect()
        for session in self.sessions:
            session.held.clear()
        return ""

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        for end in self.ends:
            end.close()
        self.dispatch.close()
        self.payloads.close()


steps = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 1), st.sampled_from(NAMES), st.sampled_from(MASKS)),
    st.tuples(st.just("export"), st.integers(0, 1), st.sampled_from(NAMES), st.sampled_from(SDDL)),
    st.tuples(st.just("free"), st.integers(0, 1), st.integers(1, 8), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=40))
def test_the_quick_way_answers_as_the_slow_way(script: list[tuple[str, int, str | int, int | str | None]]) -> None:
    worlds = [World(quick=True), World(quick=False)]
    try:
        for verb, who, what, how in script:
            answers = []
            for world in worlds:
                try:
                    answers.append(
                        getattr(world, verb)(who, what) if verb == "free" else getattr(world, verb)(who, what, how)
                    )
                except Refused as refusal:
                    answers.append(refusal.detail)
            assert answers[0] == answers[1], (verb, who, what, how)
        assert worlds[0].model.snapshot() == worlds[1].model.snapshot()
    finally:
        for world in worlds:
            world.close()


def test_the_second_open_is_a_quick_one_and_needs_no_descriptor() -> None:
    world = World(quick=True)
    world.export(0, "a", None)
    assert world.open(0, "a", 0x80000001)[1] == 1 and world.hits == 0
    reply, fds = world.open(0, "a", 0x80000001)
    assert isinstance(reply, wire.Imported) and (fds, world.hits, reply.reference) == (0, 1, 3)
    world.close()


def test_another_user_does_not_get_what_the_first_one_got() -> None:
    world = World(quick=True)
    world.export(0, "a", "D:(A;;GA;;;OW)")
    assert isinstance(world.open(0, "a", 0x80000001)[0], wire.Imported)
    assert isinstance(world.open(1, "a", 0x80000001)[0], wire.Refusal) and world.hits == 0
    world.close()


def test_an_ended_object_is_found_out() -> None:
    world = World(quick=True)
    memory = world.export(0, "a", None)
    world.free(0, world.open(0, "a", 0x80000001)[0].reference)  # type: ignore[union-attr]  # it is an import
    world.free(0, memory)
    assert isinstance(world.open(0, "a", 0x80000001)[0], wire.Refusal)
    world.export(0, "a", None)
    assert isinstance(world.open(0, "a", 0x80000001)[0], wire.Imported) and world.hits == 0
    world.close()


def test_what_is_known_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extmem.broker.open_cache._ROOM", 1)
    world = World(quick=True)
    world.export(0, "a", None)
    for _ in range(3):
        world.open(0, "a", 0x80000001)
    assert world.quick is not None and len(world.quick._known) == 1
    world.close()
