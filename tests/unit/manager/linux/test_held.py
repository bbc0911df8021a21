"""What a client keeps of its imports: a repeated reply is distinguished from a new one."""

from __future__ import annotations

import os

from extmem import wire
from extmem.manager.linux.held import State
from extmem.owning import OwnedFd
from extmem.wire import READ_ONLY, READ_WRITE


def _answer(reference: int, payload: int, *, granted: int = 0x20001, needs: int = READ_WRITE) -> wire.Imported:
    facts = wire.ImportFacts(
        needs, payload, payload + 1, granted, 0, False, 1, 1, 1, (), f"n{payload}", b"self", b"record", 0, 64
    )
    return wire.Imported(reference, 1, wire.encode(facts))


def _file() -> list[OwnedFd]:
    return [OwnedFd(os.memfd_create("x"))]


def test_a_request_that_is_answered_alike_again_leads_to_the_same() -> None:
    state = State()
    first = state.imported(b"open", _answer(1, 10), _file())
    state.released(first.number)
    assert state.empty
    again = state.imported(b"open", _answer(2, 10), _file())
    assert (again.number, again.object, again.name, again.granted) == (
        2,
        first.object,
        first.name,
        first.granted,
    )
    assert [held.id for held in state.payloads.values()] == [10]


def test_a_request_that_is_answered_otherwise_leads_elsewhere() -> None:
    """A name is free again once its object has ended, and another process may have taken it."""
    state = State()
    for reference, payload, granted, needs in ((1, 10, 0x20001, READ_WRITE), (2, 11, 0x20000, READ_ONLY)):
        found = state.imported(b"open", _answer(reference, payload, granted=granted, needs=needs), _file())
        assert (found.number, found.object, found.name) == (reference, payload + 1, f"n{payload}")
        assert (found.granted, found.payload.writable) == (granted, needs == READ_WRITE)
    assert sorted(state.payloads) == [10, 11]


def test_two_requests_for_one_payload_share_what_is_held_of_it() -> None:
    state = State()
    for reference, request in enumerate((b"by one name", b"by another"), 1):  # both arrive while nothing is held
        state.released(state.imported(request, _answer(reference, 10), _file()).number)
    references = [
        state.imported(b"by one name", _answer(3, 10), _file()).number,
        state.imported(b"by another", _answer(4, 10), _file()).number,
        state.imported(b"", _answer(5, 10), _file()).number,
    ]
    (held,) = state.payloads.values()
    assert held.holders == 3
    for reference in references:
        assert not state.empty
        state.released(reference)
    assert state.empty
    assert not held.fds
