"""Waits for names, memory that the broker keeps, and names that are given to other memory, with real processes."""

from __future__ import annotations

import os
import signal

import pytest

from extmem import wire
from extmem.objects import Status
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, OTHER, SYSTEM, broker_fds, raw, system_broker, wait_for_broker_fds

WAIT = "text(import_named(m, 'x', READ, 60))"
KEEP = "Keep(KeepMode.FORGOTTEN)"


def waiting(peer: Peer, count: int) -> None:
    """Wait until the broker has so many waits for names."""
    wait_until(lambda: peer("m.status().waiting") == count, f"{count} waits")


def gone(peer: Peer, pid: int) -> None:
    wait_until(lambda: peer("[h.pid for row in m.snapshot() for h in row.holders]").count(pid) == 0, "it to have ended")


# -- waits ------------------------------------------------------------------------------------------------------------


def test_a_waiting_process_gets_what_has_ended_before_it_runs_again(start: Start) -> None:
    publisher, waiter = start(), start()
    publisher("m.kmt_alive(1)")
    waiter.start(WAIT)
    waiting(publisher, 1)
    os.kill(waiter.pid, signal.SIGSTOP)
    publisher("share('X', b'hello')")
    publisher.kill()
    os.kill(waiter.pid, signal.SIGCONT)
    assert waiter.finish() == b"hello"


def test_all_that_wait_are_woken_and_nothing_of_the_waits_is_left(own_runtime: Runtime, start: Start) -> None:
    publisher, *waiters = start(), start(), start(), start()
    for one in (publisher, *waiters):
        one("m.kmt_alive(1)")
    pid = own_runtime.broker_pid()
    assert pid is not None
    before = broker_fds(pid)
    for waiter in waiters:
        waiter.start("before = fds()\nfound = import_named(m, 'x', READ, 60)\ntext(found), drop(found), fds() - before")
    waiting(publisher, 3)
    publisher("a = share('x', b'hello')")
    assert [waiter.finish() for waiter in waiters] == [(b"hello", None, 0)] * 3
    publisher("m.release(a.number)")
    wait_for_broker_fds(pid, before)


def test_the_end_of_a_waiting_process_ends_its_wait(own_runtime: Runtime, start: Start) -> None:
    other, waiter = start(), start()
    other("m.kmt_alive(1)")
    pid = own_runtime.broker_pid()
    assert pid is not None
    before = broker_fds(pid)
    waiter.start(WAIT)
    waiting(other, 1)
    waiter.kill()
    waiting(other, 0)
    wait_for_broker_fds(pid, before)


def test_a_client_that_closes_its_end_has_ended_its_wait(own_runtime: Runtime, start: Start) -> None:
    other = start()
    other("m.kmt_alive(1)")
    with raw(own_runtime) as client:
        reply = client.ask(wire.AwaitName("x", 0x80000000, 1))  # which closes the pipe
        assert isinstance(reply, wire.Awaited)
        waiting(other, 0)
        end = client.ask(wire.EndWait(reply.number))
        assert isinstance(end, wire.Refusal) and end.status == Status.INVALID_HANDLE
        assert isinstance(client.ask(wire.GetStatus()), wire.BrokerState)
    other("a = share('x', b'hello')\nm.release(a.number)")
    assert other("m.snapshot()") == []


def test_a_wait_survives_the_broker(own_runtime: Runtime, start: Start) -> None:
    publisher, waiter = start(), start()
    publisher("m.kmt_alive(1)")
    waiter.start(WAIT)
    waiting(publisher, 1)
    own_runtime.kill_broker()
    publisher("m.kmt_alive(1)")
    waiting(publisher, 1)
    publisher("a = share('x', b'hello')")
    assert waiter.finish() == b"hello"


def test_a_waiting_process_gets_what_another_restores(own_runtime: Runtime, start: Start) -> None:
    """It asks the next broker before the holder has announced."""
    holder = start()
    holder("a = share('x', b'hello')")
    os.kill(holder.pid, signal.SIGSTOP)
    own_runtime.kill_broker()
    waiter = start()
    waiter.start(WAIT)
    wait_until(lambda: own_runtime.serving(), "another broker")
    os.kill(holder.pid, signal.SIGCONT)
    assert waiter.finish() == b"hello"


def test_a_process_that_may_not_open_it_is_refused_when_it_appears(start: Start) -> None:
    publisher, waiter = start(), start()
    publisher("m.kmt_alive(1)")
    waiter.start("import_named(m, 'x', READ_WRITE, 60)")
    waiting(publisher, 1)
    publisher("a = share('x', b'hello', sddl='D:(A;;GR;;;OW)')")
    with pytest.raises(AssertionError, match="AccessDeniedError"):
        waiter.finish()


def test_a_time_out_says_what_was_waited_for(start: Start) -> None:
    error = start().fails("import_named(m, 'x', READ, 0.05)")
    assert error.is_a("NameTimeoutError") and error.is_a("NameNotFoundError") and error.is_a("TimeoutError")
    assert "'\\\\Sessions\\\\1\\\\BaseNamedObjects\\\\x'" in error.message and "0.05 s" in error.message


def test_an_exception_of_a_signal_handler_ends_the_wait(own_runtime: Runtime, start: Start) -> None:
    other, waiter = start(), start()
    other("m.kmt_alive(1)")
    waiter(
        "class Interrupted(Exception): pass\n"
        "def interrupt(*arguments): raise Interrupted\n"
        "signal.signal(signal.SIGUSR2, interrupt)\n"
        "m.kmt_alive(1)\nbefore = fds()"
    )
    waiter.start(f"try:\n    {WAIT}\nexcept Interrupted:\n    pass\nfds() - before, m.kmt_alive(1)")
    waiting(other, 1)
    os.kill(waiter.pid, signal.SIGUSR2)
    assert waiter.finish() == (0, False)
    waiting(other, 0)


# -- kept -------------------------------------------------------------------------------------------------------------


def test_the_broker_stays_while_it_keeps_something_and_ends_afterwards(own_runtime: Runtime, start: Start) -> None:
    short = {"EXTMEM_BROKER_IDLE": "0.1"}
    with start(short) as publisher:
        publisher(f"share('x', b'hello', keep={KEEP})")
        publisher.leave()
    with start(short) as reader:
        assert reader("reads('x'), m.status().kept, m.snapshot()[0].objects[0].publisher") == (
            b"hello",
            1,
            publisher.pid,
        )
        assert reader("m.stop()") is False, "it alone has it"
        assert reader("m.forget_name('X'), m.status().kept, m.snapshot()") == (True, 0, [])
        reader.leave()
    wait_until(lambda: own_runtime.broker_pid() is None, "the broker to end")


def test_what_it_alone_keeps_ends_with_the_broker(own_runtime: Runtime, start: Start) -> None:
    publisher, reader = start(), start()
    publisher(f"share('x', b'hello', keep={KEEP})")
    publisher.kill()
    own_runtime.kill_broker()
    assert reader.fails("m.import_by_name('x')").is_a("NameNotFoundError")


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_a_process_has_too_is_kept_by_the_next_broker(own_runtime: Runtime, start: Start, forgotten: bool) -> None:
    publisher, reader = start(), start()
    publisher(f"a = share('x', b'hello', keep={KEEP})")
    reader("i = m.import_by_name('x')")
    if forgotten:
        assert publisher("m.forget_name('x')")
    own_runtime.kill_broker()
    assert reader("text(m.import_by_name('x'))") == b"hello"
    publisher.kill()
    other = start()
    reader.kill()
    if forgotten:
        gone(other, reader.pid)
        assert other.fails("m.import_by_name('x')").is_a("NameNotFoundError")
    else:
        assert other("reads('x'), m.status().kept") == (b"hello", 1)


def test_a_time_begins_anew_when_the_last_holder_ends(start: Start) -> None:
    publisher, reader = start(), start()
    publisher("a = share('x', b'hello', keep=Keep(KeepMode.TIME, 300))")
    publisher("m.release(a.number)")
    reader("i = m.import_by_name('x')")
    wait_until(lambda: reader("time.sleep(0.4)\nm.status().kept") == 1, "it to be kept while it is used")
    reader("began = time.monotonic()\ndrop(i)")
    wait_until(lambda: reader("m.status().kept") == 0, "the end of its time")
    assert reader("time.monotonic() - began") >= 0.3
    assert reader("m.snapshot()") == []


# -- replaced ---------------------------------------------------------------------------------------------------------


def test_openers_get_the_new_memory_and_holders_keep_the_old(start: Start) -> None:
    publisher, reader = start(), start()
    publisher("a = share('x', b'old..')")
    reader("i = m.import_by_name('x')\ncount = m.watch_names()")
    publisher("b = share('X', b'new..', replace=True)")
    assert reader("text(i), m.is_superseded(i.number), reads('x'), m.watch_names() - count") == (
        b"old..",
        True,
        b"new..",
        1,
    )
    assert publisher("m.is_superseded(a.number), m.is_superseded(b.number)") == (True, False)


def test_counts_of_two_brokers_are_not_compared(own_runtime: Runtime, start: Start) -> None:
    """One replacement under each broker: the second is seen by a process that opened the name after the first."""
    publisher, reader = start(), start()
    publisher("import extmem\nd = extmem.open_device(kind='host')\na, b = (d.allocate(8, name=n) for n in 'xy')")
    publisher("b = d.allocate(8, name='y', replace=True)")
    reader("import extmem\nr = extmem.open('x')\nextmem.open('x').close()\nextmem.open('x').close()")
    own_runtime.kill_broker()
    publisher("a2 = d.allocate(16, name='x', replace=True)")
    assert reader("r.size, extmem.open('x').size") == (8, 16)


def test_whoever_opens_a_name_while_it_is_replaced_gets_one_or_the_other_whole(start: Start) -> None:
    publisher, reader = start(), start()
    publisher("a = share('x', b'00000')")
    publisher.start(
        "for i in range(1, 200):\n    b = share('x', b'%05d' % i, replace=True)\n    m.release(a.number)\n    a = b\n"
    )
    reader("seen = [int(reads('x')) for _ in range(300)]")
    publisher.finish()
    assert reader("seen == sorted(seen), int(reads('x'))") == (True, 199)


@pytest.mark.parametrize("new_ends", [False, True])
def test_superseded_survives_the_broker(own_runtime: Runtime, start: Start, new_ends: bool) -> None:
    publisher, reader = start(), start()
    publisher("a = share('x', b'old..')")
    reader("i = m.import_by_name('x')")
    publisher("b = share('x', b'new..', replace=True)")
    if new_ends:
        publisher.kill()
        gone(reader, publisher.pid)
    own_runtime.kill_broker()
    assert reader("m.is_superseded(i.number), text(i)") == (True, b"old..")
    if new_ends:
        assert reader.fails("m.import_by_name('x')").is_a("NameNotFoundError")
        reader("share('x', b'mine.')")  # the name is free
    else:
        assert reader("reads('x')") == b"new.."
        assert reader.fails("share('x', replace=True)").is_a("NameTakenError")
        publisher("share('x', b'newer', replace=True)")
        assert reader("reads('x')") == b"newer"


def test_once_the_publisher_is_dead_any_process_of_its_user_replaces(start: Start) -> None:
    publisher, reader, successor = start(), start(), start()
    publisher("a = share('x', b'old..')")
    reader("i = m.import_by_name('x')")
    error = successor.fails("share('x', b'new..', replace=True)")
    assert error.is_a("NameTakenError") and str(publisher.pid) in error.message
    publisher.kill()
    gone(reader, publisher.pid)
    successor("share('x', b'new..', replace=True)")
    assert reader("m.is_superseded(i.number), reads('x')") == (True, b"new..")


def test_other_users_neither_replace_nor_forget_nor_get_what_they_wait_for(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime):
        publisher, thief, waiter = start(), start(), start()
        publisher(BECOME + "become()\n" + SYSTEM + "m.kmt_alive(1)")
        for other in (thief, waiter):
            other(BECOME + f"become({OTHER + 1})\n" + SYSTEM + "m.kmt_alive(1)")
        waiter.start("import_named(m, 'x', READ, 60)")
        waiting(publisher, 1)
        publisher(f"a = share('x', b'hello', keep={KEEP})")
        with pytest.raises(AssertionError, match="AccessDeniedError"):
            waiter.finish()
        for ended in (False, True):
            if ended:
                publisher.kill()
            assert thief.fails("m.forget_name('x')").is_a("AccessDeniedError")
            assert thief.fails("share('x', b'evil!', replace=True)").is_a("AccessDeniedError")


NAMES = "from extmem.core import naming\nnaming.manager = lambda: m\n"
LISTED = "[(one.name, one.size, one.owner) for one in naming.names('')]"
DESCRIBED = """
from extmem.sharing.descriptor import Descriptor
def described(name, sddl):
    fd = payload(b'hello')
    d = Descriptor(handle_types=2, allocation_size=4096).encode()
    m.export([fd], d, share=Share.NT, name=name, access=ALL, sddl=sddl, inherit=False)
    os.close(fd)
"""


def test_names_lists_for_each_user_what_that_user_may_open(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime):
        publisher, other, root = start(), start(), start()
        publisher(NAMES + DESCRIBED + BECOME + "become()\n" + SYSTEM)
        publisher(
            "described('open', 'D:(A;;GR;;;WD)'), described('hidden', None), described('closed', 'D:(D;;GA;;;OW)')"
        )
        other(NAMES + BECOME + f"become({OTHER + 1})\n" + SYSTEM)
        root(NAMES + SYSTEM)
        assert other(LISTED) == [(r"Global\open", 4096, publisher.pid)]
        assert root(LISTED) == [(r"Global\open", 4096, publisher.pid)], (
            "root sees all in `extmem ps`, and may not open it"
        )
        assert [name for name, _, _ in publisher(LISTED)] == [r"Global\hidden", r"Global\open"]
