"""A killed broker loses nothing: each client announces what it holds to the next one, without a call of the program."""

from __future__ import annotations

import os
import signal

import pytest

from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.process.broker.conftest import Start
from tests.process.broker.steps import wait_for_broker_fds
from tests.sigstop import stop


def kill_and_wait(runtime: Runtime) -> int:
    """Kill the broker. Return the pid of the one that idle clients start in its place."""
    before = runtime.kill_broker()
    return wait_until(
        lambda: pid if (pid := runtime.broker_pid()) not in (None, before) else 0, "another broker", deadline=10
    )


def test_an_idle_holder_brings_its_name_back(own_runtime: Runtime, start: Start) -> None:
    holder, other = start(), start()
    holder("share('x', b'hello')")
    other("reads('x')")
    before = own_runtime.kill_broker()
    assert other("reads('X')") == b"hello"  # `make soak` measures how soon
    assert own_runtime.broker_pid() not in (None, before)


def test_an_idle_holder_starts_the_broker_itself(own_runtime: Runtime, start: Start) -> None:
    start()("share('x', b'hello')")
    kill_and_wait(own_runtime)
    assert start()("reads('x')") == b"hello"


def test_who_holds_nothing_starts_none(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    peer("drop(m.import_by_name('x') if share('x') else None)\nfor n in list(m.client.state.references): m.release(n)")
    own_runtime.kill_broker()
    assert peer("m.status()") is None
    assert peer("share('x', b'again')\nreads('x')") == b"again"


def test_all_numbers_stay_what_they_were(own_runtime: Runtime, start: Start) -> None:
    holder = start()
    holder(
        "a = share('x', b'hello', inherit=True, access=READ_WRITE)\nh = m.get_handle(a.number)\n"
        "d = m.duplicate(h, desired=READ, inherit=False, same_attributes=False, close_source=False, into=None)\n"
        "m.set_flags(d, 2, 2)\nk = share(kmt=True, text=b'kmt..')\n"
        "i = m.import_by_name('x', READ)\nj = m.import_by_kmt(k.kmt)"
    )
    before = holder("m.info(h), m.info(d), m.same_object(h, d), m.snapshot(), k.kmt")
    kill_and_wait(own_runtime)
    assert holder("m.info(h), m.info(d), m.same_object(h, d), m.snapshot(), k.kmt") == before
    assert holder.fails("m.close(d)").ntstatus == 0xC0000235  # still protected
    assert holder("m.set_flags(d, 2, 0)\nm.close(d)\nm.close(h)\nm.release(a.number)\nreads('x')") == b"hello"
    assert holder("drop(i)\nm.import_by_kmt(k.kmt).granted & 1") == 1
    assert holder.fails("reads('x')").is_a("NameNotFoundError")


def test_new_numbers_do_not_meet_old_ones(own_runtime: Runtime, start: Start) -> None:
    holder = start()
    holder("a = share('x')\nh = [m.get_handle(a.number) for _ in range(3)]\nm.close(h[1])\nk = share(kmt=True)")
    kill_and_wait(own_runtime)
    numbers = holder("b = share('y')\nn = m.get_handle(b.number)\nl = share(kmt=True)\na, b, k, l, h, n")
    a, b, k, other, handles, fresh = numbers
    assert len({a.number, b.number, k.number, other.number}) == 4 and k.kmt != other.kmt
    assert fresh == handles[1]  # the lowest free one, as before


def test_what_only_a_handle_keeps_comes_back(own_runtime: Runtime, start: Start) -> None:
    exporter, holder = start(), start()
    exporter("share('x', b'hello')")
    holder("h = m.open_handle('x', READ_WRITE)")
    exporter.kill()
    kill_and_wait(own_runtime)
    assert holder("i = m.import_by_handle(h)\nwrite(i, b'HELLO')\ntext(i)") == b"HELLO"


def test_what_only_readers_keep_can_still_be_opened_for_writing(own_runtime: Runtime, start: Start) -> None:
    exporter, reader = start(), start()
    exporter("share('x', b'hello')")
    reader("i = m.import_by_name('x', READ)")
    exporter.kill()
    kill_and_wait(own_runtime)
    assert start()("i = m.import_by_name('x', READ_WRITE)\nwrite(i, b'HELLO')\ntext(i)") == b"HELLO"
    assert reader("text(i)") == b"HELLO"
    assert reader.fails("mmap.mmap(i.payload.fd, 4096)").is_a("PermissionError")


def test_rights_and_security_are_what_they_were(own_runtime: Runtime, start: Start) -> None:
    holder = start()
    holder("share('x', b'hello', sddl='D:(A;;GR;;;OW)')")
    kill_and_wait(own_runtime)
    other = start()
    assert other("i = m.import_by_name('x')\ni.granted & 1, text(i)") == (0, b"hello")
    assert other.fails("m.import_by_name('x', READ_WRITE)").is_a("AccessDeniedError")


def test_a_name_is_not_taken_while_its_holder_is_on_the_way(own_runtime: Runtime, start: Start) -> None:
    holder, thief, seeker = start(), start(), start()
    holder("share('x', b'hello')")
    for peer in (thief, seeker):
        peer("m.kmt_alive(1)")
    stop(holder.pid)
    try:
        own_runtime.kill_broker()
        thief.start("share('x', b'stole')")
        seeker.start("reads('x')")
        assert not seeker.connection.poll(0.5) and not thief.connection.poll(0)
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    assert seeker.finish() == b"hello"
    assert thief.fails("share('x', b'stole')").is_a("NameTakenError")
    error = None
    try:
        thief.finish()
    except AssertionError as caught:
        error = caught
    assert error is not None


def test_a_holder_that_never_comes_is_not_waited_for(own_runtime: Runtime, start: Start) -> None:
    """After two seconds the name is free. A client that comes later keeps its memory; an error reports that it has lost
    its name, handles and numbers.
    """
    holder, other = start(), start()
    holder(
        "import logging\nlogged = []\n"
        "class Kept(logging.Handler):\n"
        "    def emit(self, record): logged.append(record.getMessage())\n"
        "logging.getLogger('extmem.broker').addHandler(Kept())\n"
        "a = share('x', b'hello')\nh = m.get_handle(a.number)\ni = m.import_by_name('x')"
    )
    other("m.kmt_alive(1)")
    stop(holder.pid)
    try:
        own_runtime.kill_broker()
        other("share('x', b'mine.')")  # it is answered once the holder has had its time
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    assert holder("reads('x'), text(i)") == (b"mine.", b"hello")
    assert holder(
        "len(logged), str(RUNTIME) in logged[0], '2 memory objects and 1 handles' in logged[0]".replace(
            "str(RUNTIME)", repr(str(own_runtime.path))
        )
    ) == (1, True, True)
    for call in (
        "m.info(h)",
        "m.import_by_handle(h)",
        "m.get_handle(a.number)",
        "m.offer(reference=i.number)",
        "m.offer(handle=h)",
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=None)",
    ):
        error = holder.fails(call)
        assert error.is_a("PeerGoneError") and "two seconds" in error.message, (call, error)
        assert str(own_runtime.path) in error.message and "anew" in error.message
    # Earlier numbers belong to no other object, and releasing them does nothing.
    assert holder(
        "b = share('y', b'again')\nk = m.open_handle('y', READ)\nb.number not in (a.number, i.number), k > h"
    ) == (
        True,
        True,
    )
    assert holder("m.close(h); m.release(a.number); m.release(i.number)\nm.info(k).handle_count, reads('y')") == (
        1,
        b"again",
    )


BROKEN = """
import pickle, socket
import extmem
device = extmem.open_device(kind='host')
memory = device.allocate(64, 'uint8', name='mine')
view = memory.map()
view[:5] = b'hello'
found = extmem.open('theirs')
handle = extmem.open_handle('theirs')
"""


@pytest.mark.parametrize("how", ["shut down", "closed by the broker"])
def test_a_connection_that_breaks_while_the_broker_lives(own_runtime: Runtime, start: Start, how: str) -> None:
    """All that was held is lost, memory stays readable, and new calls work with the same broker."""
    other = start()
    other("import extmem\ntheirs = extmem.open_device(kind='host').allocate(64, 'uint8', name='theirs')")
    other("theirs.map()[:5] = b'their'")
    peer = start()
    peer(BROKEN)
    pid = own_runtime.broker_pid()
    if how == "shut down":
        peer("m.client.connected.shutdown(socket.SHUT_RDWR)")
    else:  # what it receives is not the protocol
        peer("old = m.client.connected\nold.send(b'garbage')")
    wait_until(lambda: other("[n for row in m.snapshot() for n in row.names if 'mine' in n]") == [], "the name to go")
    wait_until(lambda: peer("m.client.connected is not None and m.client.state.generation") == 1, "it to go on")
    for call in ("memory.export_handle()", "pickle.dumps(found)", "handle.info", "handle.duplicate()"):
        error = peer.fails(call)
        assert error.is_a("PeerGoneError"), (call, error)
        assert str(own_runtime.path) in error.message and error.message.endswith("share or open it anew"), error
    assert peer("bytes(view[:5]), bytes(found.map()[:5])") == (b"hello", b"their")
    assert peer("with extmem.open('theirs') as again: answer = bytes(again.map()[:5])\nanswer") == b"their"
    peer("mine = device.allocate(64, 'uint8', name='mine')")
    assert other("with extmem.open('mine') as again: size = again.size\nsize") >= 64
    peer("view.release(); memory.close(); found.close(); handle.close(); mine.close()")
    assert own_runtime.broker_pid() == pid


@pytest.mark.parametrize(
    "call",
    [
        "m.get_handle(a.number)",
        "m.info(h)",
        "m.import_by_handle(h)",
        "m.offer(reference=a.number)",
        "m.offer(handle=h)",
        "m.set_flags(h, 1, 1)",
        "m.same_object(h, h)",
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=None)",
    ],
)
def test_the_call_that_meets_the_broken_connection_says_what_was_lost(
    own_runtime: Runtime, start: Start, call: str
) -> None:
    peer = start()
    peer(f"import socket\na = share('x', b'hello')\nh = m.get_handle(a.number)\ndef call(): return {call}")
    error = peer.fails("with m.client.lock:\n    m.client.connected.shutdown(socket.SHUT_RDWR)\n    call()")
    assert error.is_a("PeerGoneError"), error
    assert str(own_runtime.path) in error.message and error.message.endswith("share or open it anew"), error
    peer("m.close(h); m.release(a.number)\nb = share('x', b'again')")
    assert peer("reads('x')") == b"again"


@pytest.mark.parametrize("call", ["m.release(a.number)", "m.close(h)"])
def test_giving_back_over_a_broken_connection_does_nothing(own_runtime: Runtime, start: Start, call: str) -> None:
    peer = start()
    peer("import socket\na = share('x', b'hello')\nh = m.get_handle(a.number)")
    peer(f"with m.client.lock:\n    m.client.connected.shutdown(socket.SHUT_RDWR)\n    {call}")
    peer(f"{call}\nb = share('x', b'again')")
    assert peer("reads('x'), m.client.state.handles") == (b"again", {})


def test_calls_on_the_way_are_carried_out_all_the_same(own_runtime: Runtime, start: Start) -> None:
    exporter, peer = start(), start()
    exporter("share('x', b'hello')")
    peer(
        "stop = threading.Event()\ncount = [0]\nerrors = []\n"
        "def work():\n"
        "    try:\n"
        "        while not stop.is_set():\n"
        "            assert reads('x') == b'hello'\n"
        "            h = m.open_handle('x', READ); m.close(h)\n"
        "            share('y'); m.release(max(m.client.state.references))\n"
        "            count[0] += 1\n"
        "    except BaseException as error: errors.append(repr(error))\n"
        "t = threading.Thread(target=work); t.start()"
    )
    for _ in range(5):
        own_runtime.kill_broker()
        done = peer("count[0]")
        # The round that was running may have had all its answers; the next one cannot.
        wait_until(lambda done=done: peer("count[0] > done + 1 or errors", done=done), "work to go on")
    assert peer("stop.set(); t.join(20); errors, m.client.state.references, m.client.state.handles") == ([], {}, {})
    rows = exporter("m.snapshot()")
    assert [len(row.holders) for row in rows] == [1]


def test_a_ticket_on_its_way_arrives(own_runtime: Runtime, start: Start) -> None:
    sender, receiver = start(), start()
    tickets = sender(
        "a = share('x', b'hello')\nh = m.get_handle(a.number)\nk = share(kmt=True)\n"
        "m.offer(reference=a.number), m.offer(handle=h), m.offer(kmt=k.kmt), k.kmt"
    )
    kill_and_wait(own_runtime)
    assert receiver("text(m.claim(ticket))", ticket=tickets[0]) == b"hello"
    assert receiver("m.info(m.claim(ticket)).name", ticket=tickets[1]).endswith("\\x")
    assert receiver("m.claim(ticket)", ticket=tickets[2]) == tickets[3]


def test_a_claimed_ticket_stays_claimed(own_runtime: Runtime, start: Start) -> None:
    sender, receiver = start(), start()
    ticket = sender("a = share('x', b'hello')\nm.offer(reference=a.number)")
    receiver("i = m.claim(ticket)", ticket=ticket)
    kill_and_wait(own_runtime)
    assert receiver("text(i)") == b"hello"
    sender("m.release(a.number)")
    receiver("drop(i)")
    assert sender("m.snapshot()") == [], "the claimed ticket keeps the payload alive"


def test_a_bound_ticket_still_ends_with_its_process(own_runtime: Runtime, start: Start) -> None:
    sender, receiver = start(), start()
    sender("a = share('x', b'hello')\nt = m.offer(reference=a.number)\nm.bind_offer(t, pid)", pid=receiver.pid)
    kill_and_wait(own_runtime)
    assert sender("m.snapshot()[0].holders[0].tickets") == 1
    receiver.kill()
    wait_until(lambda: sender("m.snapshot()[0].holders[0].tickets") == 0, "the ticket to end")


def test_a_handle_that_another_process_put_here_comes_back_once_used(own_runtime: Runtime, start: Start) -> None:
    giver, taker = start(), start()
    taker("m.kmt_alive(1)")
    value = giver(
        "a = share('x', b'hello')\nh = m.get_handle(a.number)\n"
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=pid)",
        pid=taker.pid,
    )
    assert taker("m.info(value).granted_access & 1", value=value) == 1
    giver.kill()
    kill_and_wait(own_runtime)
    assert taker("text(m.import_by_handle(value))", value=value) == b"hello"


ALONE = {
    "a handle that another process put there": (
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=pid)"
    ),
    "what a child inherits that has not connected yet": "channel = m.inherit_socket()\n0",
}


@pytest.mark.parametrize("what", ALONE)
def test_what_the_broker_alone_holds_ends_with_it(own_runtime: Runtime, start: Start, what: str) -> None:
    giver, taker = start(), start()
    taker("m.kmt_alive(1)")
    value = giver("a = share('x', b'hello', inherit=True)\nh = m.get_handle(a.number)\n" + ALONE[what], pid=taker.pid)
    assert giver("m.info(h).handle_count") == 2
    kill_and_wait(own_runtime)
    assert giver("m.info(h).handle_count, reads('x')") == (1, b"hello"), "what the process itself holds is back"
    if value:
        assert taker.fails("m.info(value)", value=value).is_a("InvalidHandleError")


def test_many_holders_and_many_deaths(own_runtime: Runtime, start: Start) -> None:
    peers = [start() for _ in range(4)]
    for number, peer in enumerate(peers):
        peer(f"shared = [share(f'{number}-{{i}}', b'hello') for i in range(50)]")
    for peer in peers:
        peer("held = [m.import_by_name(f'{n}-{i}') for n in range(4) for i in range(0, 50, 10)]")
    before = peers[0]("m.snapshot()")
    for _ in range(3):
        kill_and_wait(own_runtime)
        assert peers[0]("m.snapshot()") == before
    pid = own_runtime.broker_pid()
    assert pid is not None
    for peer in peers:
        peer("for i in held: drop(i)\nfor e in shared: m.release(e.number)\nheld = []")
    assert peers[0]("m.snapshot(), m.status().fds") == ([], 0)
    assert all(peer("len(m.client.state.payloads), len(m.client.state.handles)") == (0, 0) for peer in peers)


def test_after_all_processes_ended_nothing_is_left(own_runtime: Runtime, start: Start) -> None:
    watcher = start({"EXTMEM_TICKET_SECONDS": "1"})
    watcher("m.kmt_alive(1)")
    pid = own_runtime.broker_pid()
    assert pid is not None
    before = len(os.listdir(f"/proc/{pid}/fd"))
    peers = [start() for _ in range(4)]
    for peer in peers:
        peer(
            "held = [share(None, b'x') for _ in range(50)]\nhandles = [m.get_handle(e.number) for e in held]\n"
            "tickets = [m.offer(handle=h) for h in handles]"
        )
    for peer in peers:
        peer.kill()
    wait_for_broker_fds(pid, before)
    wait_until(lambda: watcher("m.snapshot()") == [], "all to end")
