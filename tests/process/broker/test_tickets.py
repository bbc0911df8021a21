"""References in flight outlive their sender, until they are claimed or expire; their number is limited."""

from __future__ import annotations

import os

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, OTHER, SYSTEM, system_broker

SHORT = {"EXTMEM_TICKET_SECONDS": "1"}


def sent(sender: Peer, source: str = "m.offer(reference=a.number)") -> bytes:
    """Return a ticket whose sender has ended."""
    ticket: bytes = sender(source)
    sender.kill()
    return ticket


def gone(peer: Peer, pid: int) -> None:
    wait_until(lambda: peer("[h.pid for row in m.snapshot() for h in row.holders]").count(pid) == 0, "it to have ended")


@pytest.fixture
def receiver(start: Start) -> Peer:
    peer = start()
    peer("m.kmt_alive(1)")
    return peer


@pytest.mark.parametrize("how", ["share('x', b'hello')", "share(None, b'hello')", "share(kmt=True, text=b'hello')"])
def test_what_a_process_sent_is_there_when_it_has_ended(start: Start, receiver: Peer, how: str) -> None:
    sender = start()
    sender(f"a = {how}")
    ticket = sent(sender)
    gone(receiver, sender.pid)
    (row,) = receiver("m.snapshot()")
    assert (row.names, row.holders, row.in_flight, row.kmt) == ((), (), 1, None)
    assert receiver("i = m.claim(ticket)\ntext(i), i.granted & 1, i.name", ticket=ticket) == (b"hello", 1, None)
    assert receiver("drop(i)\nm.snapshot()") == []


def test_a_handle_arrives_with_its_rights(start: Start, receiver: Peer) -> None:
    sender = start()
    sender("a = share('x', b'hello', access=READ)\nh = m.get_handle(a.number)")
    ticket = sent(sender, "m.offer(handle=h)")
    gone(receiver, sender.pid)
    assert receiver("h = m.claim(ticket)\nm.info(h).granted_access, m.info(h).name", ticket=ticket) == (0x20000, "")
    assert receiver("text(m.import_by_handle(h))") == b"hello"


def test_the_name_is_free_at_once(start: Start, receiver: Peer) -> None:
    sender = start()
    sender("a = share('x', b'hello')")
    ticket = sent(sender)
    gone(receiver, sender.pid)
    assert receiver.fails("m.import_by_name('x')").is_a("NameNotFoundError")
    assert receiver("share('x', b'other')\nreads('x'), text(m.claim(ticket))", ticket=ticket) == (b"other", b"hello")


def test_it_is_good_once(start: Start, receiver: Peer) -> None:
    sender = start()
    sender("a = share('x', b'hello')")
    ticket = sent(sender)
    receiver("i = m.claim(ticket)", ticket=ticket)
    assert receiver.fails("m.claim(ticket)").is_a("InvalidHandleError")


def test_another_user_cannot_claim_it(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime):
        sender, thief, receiver = start(), start(), start()
        sender(BECOME + "become()\n" + SYSTEM + "a = share('x', b'hello')")
        thief(BECOME + f"become({OTHER + 1})\n" + SYSTEM)
        receiver(BECOME + "become()\n" + SYSTEM + "m.kmt_alive(1)")
        ticket = sent(sender)
        gone(receiver, sender.pid)
        assert thief.fails("m.claim(ticket)", ticket=ticket).is_a("AccessDeniedError")
        assert receiver("text(m.claim(ticket))", ticket=ticket) == b"hello"


def test_after_its_time_it_ends_with_or_without_its_sender(start: Start) -> None:
    receiver = start(SHORT)
    receiver("m.kmt_alive(1)")
    living, dead = start(), start()
    tickets = [
        living("a = share(None, b'hello')\nt = m.offer(reference=a.number)\nm.release(a.number)\nt"),
        living("b = share('kept', b'hello')\nm.offer(reference=b.number)"),
    ]
    dead("a = share('x', b'hello')")
    tickets.append(sent(dead))
    wait_until(lambda: len(receiver("m.snapshot()")) == 1, "what nobody claimed to end")
    for ticket in (tickets[0], tickets[2]):
        error = receiver.fails("m.claim(ticket)", ticket=ticket)
        assert error.is_a("InvalidHandleError") and "in time" in error.message
    # What its sender still holds can be claimed late, while it exists.
    assert receiver("text(m.claim(ticket))", ticket=tickets[1]) == b"hello"


@pytest.mark.parametrize("seconds", ["nonsense", "-1", ""])
def test_a_time_of_nonsense_is_a_minute(start: Start, seconds: str) -> None:
    peer = start({"EXTMEM_TICKET_SECONDS": seconds})
    assert peer("m.kmt_alive(1)\nm.client.state.ticket_seconds") == 61


def test_what_is_for_a_child_waits_for_it_although_its_sender_has_ended(start: Start) -> None:
    receiver = start(SHORT)
    receiver("m.kmt_alive(1)")
    sender = start()
    sender("a = share('x', b'hello')")
    ticket = sent(sender, f"t = m.offer(reference=a.number)\nm.bind_offer(t, {receiver.pid})\nt")
    other = start()
    gone(other, sender.pid)
    other("a = share('clock')\nb = m.offer(reference=a.number)\nm.release(a.number)")
    wait_until(lambda: len(other("m.snapshot()")) == 1, "the time of an unbound one to be over")
    assert receiver("text(m.claim(ticket))", ticket=ticket) == b"hello"


def test_it_ends_with_the_child_that_it_is_for(start: Start, receiver: Peer) -> None:
    sender, child = start(), start()
    sender("a = share('x', b'hello')")
    ticket = sent(sender, f"t = m.offer(reference=a.number)\nm.bind_offer(t, {child.pid})\nt")
    child.kill()
    wait_until(lambda: receiver("m.snapshot()") == [], "it to end")
    assert receiver.fails("m.claim(ticket)", ticket=ticket).is_a("InvalidHandleError")


def test_it_ends_with_a_killed_broker_and_the_claimer_is_reported(
    own_runtime: Runtime, start: Start, receiver: Peer
) -> None:
    """Only the broker held it."""
    sender = start()
    sender("a = share('x', b'hello')")
    ticket = sent(sender)
    gone(receiver, sender.pid)
    own_runtime.kill_broker()
    assert receiver("m.snapshot()") == []
    error = receiver.fails("m.claim(ticket)", ticket=ticket)
    assert error.is_a("InvalidHandleError") and "Send the object again" in error.message


def test_a_broker_with_references_in_flight_does_not_leave(own_runtime: Runtime, start: Start) -> None:
    sender = start({"EXTMEM_BROKER_IDLE": "0.1", "EXTMEM_TICKET_SECONDS": "3"})
    late = start({"EXTMEM_BROKER_START": "never"})  # before the ticket's time begins; it connects when it claims it
    sender("a = share('x', b'hello')")
    pid = own_runtime.broker_pid()
    before = len(os.listdir(f"/proc/{pid}/fd"))
    ticket = sent(sender)
    wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < before, "the sender's connection to have ended")
    assert late("text(m.claim(ticket))", ticket=ticket) == b"hello"
    assert own_runtime.broker_pid() == pid


# -- many


def test_thousands_of_pickles_that_nobody_reads_are_no_end(start: Start, receiver: Peer) -> None:
    """joblib hashes by pickling; so do others."""
    sender = start()
    sender("import pickle\nmemory = extmem.open_device(kind='host').allocate(4)")
    assert sender("for _ in range(4097): pickle.dumps(memory)\nlen(pickle.dumps(memory)) > 0") is True
    error = sender.fails("for _ in range(16384): pickle.dumps(memory)")
    assert error.is_a("QuotaError") and "16384" in error.message and "in time" in error.message
    assert receiver("m.kmt_alive(1)") is False
    sender("memory.close()")


def test_when_their_time_is_over_they_make_room(start: Start) -> None:
    sender = start({"EXTMEM_TICKET_SECONDS": "0.2"})
    sender("a = share('x', b'hello')\nfirst = m.offer(reference=a.number)")
    for _ in range(3):
        sender("for _ in range(8_000): last = m.offer(reference=a.number)")
    assert sender("text(m.claim(last))") == b"hello"
    assert sender.fails("m.claim(first)").is_a("InvalidHandleError")
