"""What a client keeps of its imports: an answer that was met before is told apart from a new one."""

from __future__ import annotations

import os

from extmem import wire
from extmem.manager.linux.held import State
from extmem.owning import OwnedFd
from extmem.wire import READ_ONLY, READ_WRITE


def _answer(memory: int, payload: int, *, granted: int = 0x20001, needs: int = READ_WRITE) -> wire.Imported:
    facts = wire.ImportFacts(
        needs, payload, payload + 1, granted, 0, False, 1, f"n{payload}", b"self", b"record", 0, 64
    )
    return wire.Imported(memory, needs, wire.encode(facts))


def _file() -> OwnedFd:
    return OwnedFd(os.memfd_create("x"))


def test_a_request_that_is_answered_alike_again_leads_to_the_same() -> None:
    state = State()
    first = state.imported(b"open", _answer(1, 10), _file())
    state.freed(first.memory)
    assert state.empty
    again = state.imported(b"open", _answer(2, 10), _file())
    assert (again.memory, again.object, again.name, again.granted) == (2, first.object, first.name, first.granted)
    assert [held.id for held in state.payloads.values()] == [10]


def test_a_request_that_is_answered_otherwise_leads_elsewhere() -> None:
    """A name is free again once its object has ended, and another process may have taken it."""
    state = State()
    for memory, payload, granted, needs in ((1, 10, 0x20001, READ_WRITE), (2, 11, 0x20000, READ_ONLY)):
        found = state.imported(b"open", _answer(memory, payload, granted=granted, needs=needs), _file())
        assert (found.memory, found.object, found.name) == (memory, payload + 1, f"n{payload}")
        assert (found.granted, found.payload.writable) == (granted, needs == READ_WRITE)
    assert sorted(state.payloads) == [10, 11]


def test_two_requests_for_one_payload_share_what_is_held_of_it() -> None:
    state = State()
    for memory, request in enumerate((b"by one name", b"by another"), 1):  # both are learnt while nothing is held
        state.freed(state.imported(request, _answer(memory, 10), _file()).memory)
    memories = [
        state.imported(b"by one name", _answer(3, 10), _file()).memory,
        state.imported(b"by another", _answer(4, 10), _file()).memory,
        state.imported(b"", _answer(5, 10), _file()).memory,
    ]
    (held,) = state.payloads.values()
    assert held.references == 3
    for memory in memories:
        assert not state.empty
        state.freed(memory)
    assert state.empty
    assert not held.fds
