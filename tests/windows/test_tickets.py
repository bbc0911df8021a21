"""References in flight to another process: claimed once, by the intended process, and not left with the sender."""

from __future__ import annotations

import os
import pickle

import msgspec
import pytest

from extmem import errors
from extmem.api import Device
from extmem.manager import manager
from extmem.manager.windows import processes, tickets
from extmem.testing.children import Peer
from extmem.testing.leaks import descriptors
from extmem.testing.waiting import wait_until
from tests.behaviours.steps import PEER, W32, export, get, nt, put

HALF_WAY = """
from extmem.handles._win32 import calls
from extmem.handles._win32.tables import kernel32
from extmem.manager.windows import processes, tickets
said = tickets.parse(ticket)
offer = calls.open_event(tickets._event_path(said.secret, "offer"), tickets._WAIT)
taken = kernel32.WaitForSingleObject(offer, 0)
"""
"""The state in which a receiver is killed: it has claimed the ticket, which no other process can claim any more."""

FETCHED = """
with processes.opened_process(said.pid, said.created) as sender:
    value = calls.duplicate(said.value, options=calls.SAME_ACCESS, source=sender)
"""

TOLD = """
done = calls.open_event(tickets._event_path(said.secret, "done"), tickets._SIGNAL)
kernel32.SetEvent(done)
"""


def held() -> list[str]:
    """What refers to memory in this process."""
    return sorted(what for what in descriptors().values() if what.startswith("Section"))


@pytest.mark.parametrize("step", ["started", "half way", "fetched", "told"])
def test_a_child_killed_at_any_step_leaves_no_handle_in_its_parent(device: Device, peer: Peer, step: str) -> None:
    peer(PEER)
    with export(device) as memory, nt(device, memory) as handle:
        put(memory, b"kept")
        before = held()
        one, two = manager().offer(reference=memory.record.references[0].number), manager().offer(handle=int(handle))
        for ticket in (one, two):
            manager().bind_offer(ticket, peer.pid)
        assert len(held()) == len(before) + 2
        if step != "started":
            assert peer(f"{HALF_WAY}\ntaken", ticket=one) == 0
        if step in ("fetched", "told"):
            peer(FETCHED)
        if step == "told":
            peer(TOLD)
        peer.kill()
        wait_until(lambda: held() == before, lambda: f"{before} again; it is {held()}")
        assert get(memory) == b"kept"


def test_a_ticket_is_fetched_from_the_very_process_that_was_meant(device: Device) -> None:
    with export(device) as memory:
        before = held()
        ticket = manager().offer(reference=memory.record.references[0].number)
        said = tickets.parse(ticket)
        assert (said.pid, said.created) == (os.getpid(), processes.start_time(os.getpid()))
        later = msgspec.structs.replace(said, created=said.created + 1)
        with pytest.raises(errors.InvalidHandleError, match="another one"):
            manager().claim(later.pack())
        claimed = manager().claim(ticket)  # a claim by another process has not spent it
        assert not isinstance(claimed, int)
        claimed.payload.close()
        manager().release(claimed.number)
        wait_until(lambda: held() == before, lambda: f"{before} again; it is {held()}")


def test_a_handle_that_is_no_longer_what_was_sent_is_not_handed_over(device: Device) -> None:
    """A ticket names the object in addition to the handle: a value that was closed and used again leads nowhere."""
    with export(device) as memory, export(device) as other:
        ticket = manager().offer(reference=memory.record.references[0].number)
        said = tickets.parse(ticket)
        with nt(device, other) as handle, pytest.raises(errors.InvalidHandleError):
            manager().claim(msgspec.structs.replace(said, value=int(handle)).pack())
        assert manager().withdraw(ticket)
        assert get(other) == b"\0\0\0\0"


def test_what_is_taken_back_cannot_be_claimed(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        before = held()
        ticket = manager().offer(handle=int(handle))
        assert manager().withdraw(ticket)
        assert not manager().withdraw(ticket)
        assert held() == before
        with pytest.raises(errors.InvalidHandleError):
            manager().claim(ticket)


@pytest.mark.parametrize("junk", [b"", b"\1" * 16, b"\0" * 66, b"\1\7" + b"\0" * 64])
def test_bytes_that_are_no_ticket(junk: bytes) -> None:
    for call in (manager().claim, manager().withdraw):
        with pytest.raises(errors.InvalidHandleError, match="not a ticket"):
            call(junk)


def test_a_ticket_for_a_process_that_is_gone(device: Device) -> None:
    with Peer() as peer:
        gone = peer.pid
    with export(device) as memory:
        ticket = manager().offer(reference=memory.record.references[0].number)
        with pytest.raises(errors.InvalidHandleError):
            manager().bind_offer(ticket, 2**22 - 3)
        assert gone != os.getpid()
        assert manager().withdraw(ticket)


def test_a_hundred_pickles_in_flight_all_arrive(device: Device, peer: Peer) -> None:
    peer("import pickle")
    with export(device) as memory:
        put(memory, b"many")
        before = held()
        texts = [pickle.dumps(memory) for _ in range(100)]
        source = "arrived = [pickle.loads(text) for text in texts]\n[bytes(one.map()[:4]) for one in arrived]"
        assert peer(source, texts=texts) == [b"many"] * 100
        peer("[one.close() for one in arrived]")
        wait_until(lambda: held() == before, lambda: f"{before} again; it is {held()}")
        assert memory.export_handle(W32).close() is None
