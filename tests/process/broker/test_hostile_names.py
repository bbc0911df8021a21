"""Hostile clients of waits, leases, kept and replaced objects: limits hold, and others get what is theirs.

Also what a broker that was killed leaves of these to its clients.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

import pytest

from extmem import wire
from extmem.objects import Status
from extmem.objects.results import Limits
from extmem.owning import OwnedFd
from extmem.sharing import timeline_page
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.wire import transport
from tests.process.broker.conftest import Start
from tests.process.broker.steps import RawClient, broker_fds, raw, wait_for_broker_fds

READ, ALL = 0x8000_0000, 1 << 28
WAIT = "text(import_named(m, 'x', READ, 60))"
LEASE = """
import extmem
memory = extmem.open('updated', access=extmem.Access.READ_WRITE)
def enter(timeout=60):
    with memory.update(timeout=timeout):
        return memory.generation
None
"""
SHARE = """
import extmem
memory = extmem.open_device(kind='host').allocate(64, name='updated', access=extmem.Access.READ_WRITE)
"""


@pytest.fixture
def other(own_runtime: Runtime, start: Start) -> Iterator[Peer]:
    """Another client, which is served by the same broker at the end, which has no more fds then than before."""
    peer = start()
    peer("kept = share('kept', b'hello')")
    pid = own_runtime.broker_pid()
    assert pid is not None
    before = broker_fds(pid)
    yield peer
    assert own_runtime.broker_pid() == pid and peer("reads('kept')") == b"hello"
    more = peer("m.status().clients") - 1  # the other peers, each with a connection and a pidfd
    wait_for_broker_fds(pid, before + 2 * more)
    assert peer("m.status().waiting") == 0


def updater(start: Start) -> Peer:
    """Return a process that has opened what `SHARE` shares."""
    peer = start()
    peer(LEASE)
    return peer


def asked(client: RawClient, request: wire.Request, *fds: int) -> tuple[wire.Reply, list[OwnedFd]]:
    """Send a request, and return the reply and its fds, which the caller closes."""
    transport.send_many(client.sock, wire.encode(request), fds)
    packet = transport.receive_many(client.sock)
    assert packet is not None, "the broker hung up"
    return wire.decode_reply(packet[0]), list(packet[1])


def waiting(client: RawClient, name: str) -> tuple[int, OwnedFd]:
    reply, (pipe,) = asked(client, wire.AwaitName(name, READ, 1))
    assert isinstance(reply, wire.Awaited)
    return reply.number, pipe


def sealed(size: int) -> int:
    fd = os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


@contextlib.contextmanager
def exported(client: RawClient, name: str | None, keep: int = 0) -> Iterator[wire.Exported]:
    """Share a payload with a control page."""
    files = [sealed(4096), sealed(timeline_page.PAGE_SIZE)]
    try:
        request = wire.Export(1, 1, 2, b"hostile", 1, name, ALL, None, False, False, pages=(wire.BY_RIGHTS,), keep=keep)
        reply, _ = asked(client, request, *files)
        assert isinstance(reply, wire.Exported), reply
        yield reply
    finally:
        for fd in files:
            os.close(fd)


# -- waits ------------------------------------------------------------------------------------------------------------


def test_a_flood_of_waits_ends_at_the_limit_and_hinders_nobody(own_runtime: Runtime, start: Start, other: Peer) -> None:
    waiter = start()
    waiter.start(WAIT)
    wait_until(lambda: other("m.status().waiting") == 1, "the wait")
    pipes = []
    with raw(own_runtime) as client:
        for number in range(Limits().waits):
            pipes.append(waiting(client, "x" if number % 2 else f"none {number}")[1])
        reply, fds = asked(client, wire.AwaitName("none", READ, 1))
        assert isinstance(reply, wire.Refusal) and reply.status == Status.QUOTA_EXCEEDED and not fds
        assert "This process waits for 1024 names" in reply.detail and "End some waits first" in reply.detail
        assert other("m.status().waiting") == Limits().waits + 1
        other("a = share('x', b'hello')")
        assert waiter.finish() == b"hello"
        for pipe in pipes:
            pipe.close()
    wait_until(lambda: other("m.status().waiting") == 0, "the waits to end")
    other("m.release(a.number)")


def test_nobody_ends_or_takes_the_wait_of_another(own_runtime: Runtime, start: Start, other: Peer) -> None:
    waiter = start()
    waiter.start(WAIT)
    wait_until(lambda: other("m.status().waiting") == 1, "the wait")
    with raw(own_runtime) as client:
        for number in range(8):
            reply, _ = asked(client, wire.EndWait(number))
            assert isinstance(reply, wire.Refusal) and reply.status == Status.INVALID_HANDLE
        own, pipe = waiting(client, "none")
        reply, _ = asked(client, wire.EndWait(own))
        assert isinstance(reply, wire.Refusal) and reply.status == Status.OBJECT_NAME_NOT_FOUND
        pipe.close()
        assert other("m.status().waiting") == 1
    other("a = share('x', b'hello')")
    assert waiter.finish() == b"hello"
    other("m.release(a.number)")


def test_what_a_waiting_client_never_takes_ends_with_it(own_runtime: Runtime, other: Peer) -> None:
    with raw(own_runtime) as client:
        _, pipe = waiting(client, "x")
        other("a = share('x', b'hello')\nm.release(a.number)")
        assert len(other("m.snapshot()")) == 2, "it is held for the client that waited"
    wait_until(lambda: len(other("m.snapshot()")) == 1, "it to end")
    pipe.close()


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_that_is_not_given_back_ends_with_its_process(start: Start, other: Peer) -> None:
    other(SHARE)
    greedy, next_one = updater(start), updater(start)
    greedy("block = memory.update()\nblock.__enter__()\nNone")
    error = next_one.fails("enter(0.05)")
    assert error.is_a("WaitTimeoutError") and "has been updating this memory" in error.message
    next_one.start("enter()")
    greedy.kill()
    assert next_one.finish() == 3
    assert other("memory.generation, memory.torn") == (4, False)
    next_one.kill()
    other("memory.close()")


def test_a_lease_that_is_ended_as_a_wait_is_free(own_runtime: Runtime, start: Start, other: Peer) -> None:
    """Its pipe is closed then; the lease must not stay without it."""
    with raw(own_runtime) as client, exported(client, "mine") as made:
        for _ in range(3):
            reply, (pipe,) = asked(client, wire.Lease(made.reference))
            assert isinstance(reply, wire.Awaited) and os.read(pipe.fd, 1) == b"!"
            ended, _ = asked(client, wire.EndWait(reply.number))
            assert isinstance(ended, wire.Refusal) and ended.status == Status.INVALID_HANDLE
            pipe.close()


def test_nobody_ends_the_lease_of_another(own_runtime: Runtime, start: Start, other: Peer) -> None:
    other(SHARE)
    holder, next_one = updater(start), updater(start)
    holder("block = memory.update()\nblock.__enter__()\nNone")
    with raw(own_runtime) as client:
        for number in range(8):
            reply, _ = asked(client, wire.EndWait(number))
            assert isinstance(reply, wire.Refusal) and reply.status == Status.INVALID_HANDLE
        assert next_one.fails("enter(0.05)").is_a("WaitTimeoutError")
    holder("block.__exit__(None, None, None)")
    assert next_one("enter()") == 3
    holder.kill()
    next_one.kill()
    other("memory.close()")


def test_leases_are_for_those_who_may_write(own_runtime: Runtime, start: Start, other: Peer) -> None:
    other("import extmem\nmemory = extmem.share(b'read', 'read')")
    with raw(own_runtime) as client:
        reply, fds = asked(client, wire.ImportName("read", READ, 1))
        assert isinstance(reply, wire.Imported)
        refused, _ = asked(client, wire.Lease(reply.reference))
        assert isinstance(refused, wire.Refusal) and refused.status == Status.ACCESS_DENIED
        assert "opened for reading only" in refused.detail and "Access.READ_WRITE" in refused.detail
        for fd in fds:
            fd.close()
    other("memory.close()")


def test_a_flood_of_leases_is_charged_and_others_update(own_runtime: Runtime, start: Start, other: Peer) -> None:
    other(SHARE)
    before = other("m.status().used")
    with raw(own_runtime) as client, exported(client, "mine") as made:
        pipes = []
        for _ in range(500):
            reply, fds = asked(client, wire.Lease(made.reference))
            assert isinstance(reply, wire.Awaited)
            pipes += fds
        assert other("m.status().used") >= before + 500
        next_one = updater(start)
        assert next_one("enter()") == 1
        next_one.kill()
        for pipe in pipes:
            pipe.close()
    wait_until(lambda: other("m.status().used") == before, "the leases to end")
    other("memory.close()")


# -- kept and replaced ------------------------------------------------------------------------------------------------


def test_a_flood_of_kept_objects_ends_at_the_limit_and_is_forgotten(own_runtime: Runtime, other: Peer) -> None:
    most = Limits().kept
    with raw(own_runtime) as client:
        for number in range(most):
            with exported(client, f"flood {number}", keep=1):
                pass
        file = sealed(4096)
        refused, _ = asked(client, wire.Export(1, 1, 1, b"", 1, "more", ALL, None, False, False, keep=1), file)
        os.close(file)
        assert isinstance(refused, wire.Refusal) and refused.status == Status.QUOTA_EXCEEDED
        assert str(most) in refused.detail
    assert other("m.status().kept") == most
    assert other("a = share('x', b'hello')\nseen = reads('x')\nm.release(a.number)\nseen") == b"hello"
    other(f"for number in range({most}): m.forget_name(f'flood {{number}}')")
    assert other("m.status().kept") == 0 and len(other("m.snapshot()")) == 1


def test_the_page_of_names_cannot_be_written(own_runtime: Runtime, start: Start, other: Peer) -> None:
    other("count = m.watch_names()")
    with raw(own_runtime) as client:
        reply, (page,) = asked(client, wire.WatchNames())
        assert isinstance(reply, wire.NamesPage)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(page.fd, b"\xff" * 8, 0)
        with pytest.raises(OSError, match="Operation not permitted|Invalid argument"):
            os.ftruncate(page.fd, 0)
        page.close()
    assert other("m.watch_names() == count")


def test_a_name_that_was_open_is_asked_for_again_after_the_broker_was_killed(
    own_runtime: Runtime, start: Start
) -> None:
    """The page of names ended with its broker; the next one counts anew."""
    publisher, reader = start(), start()
    publisher("import extmem")
    reader("import extmem")
    publisher("a = extmem.share(b'one', 'version')")
    assert reader("one = extmem.open('version')\ntwo = extmem.open('version')\none.record is two.record") is True
    own_runtime.kill_broker()
    publisher("b = extmem.share(b'two', 'version', replace=True)")
    assert reader("three = extmem.open('version')\nthree.tobytes(), one.tobytes()") == (b"two", b"one")
    assert reader("one.superseded, three.superseded") == (True, False)
    own_runtime.kill_broker()
    publisher("c = extmem.share(b'three', 'version', replace=True)")
    assert reader("extmem.open('version').tobytes()") == b"three"
    assert reader("one.superseded, three.superseded") == (True, True)
