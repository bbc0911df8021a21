"""A client that breaks the format loses its connection, and no other client is affected."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from random import Random

import pytest

from extmem import wire
from extmem.errors import PeerGoneError, PeerProtocolError
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import LOG
from tests.process.broker.conftest import Start
from tests.process.broker.steps import RawClient, broker_fds, raw, wait_for_broker_fds


@pytest.fixture(autouse=True)
def undisturbed(own_runtime: Runtime, start: Start) -> Iterator[Peer]:
    """Another client, whose objects all exist at the end, in the same broker, which has no more fds than before."""
    peer = start()
    peer(
        "a = share('x', b'hello')\nh = m.get_handle(a.number)\ndrop(m.import_by_name('x', READ))\nbefore = m.snapshot()"
    )
    pid = own_runtime.broker_pid()
    assert pid is not None
    before = broker_fds(pid)
    yield peer
    assert own_runtime.broker_pid() == pid, "the broker is another one"
    assert peer("reads('x')") == b"hello"
    wait_until(lambda: peer("m.snapshot() == before"), "the hostile client's things to end")
    wait_for_broker_fds(pid, before)
    assert (own_runtime.path / LOG).read_text() == ""


def fault(runtime: Runtime, data: bytes, *, hello: bool = True, fds: list[int] | None = None) -> str:
    """Return the broker's Fault for these bytes, after which it closes the connection."""
    with raw(runtime, hello=hello) as client:
        rights = [] if not fds else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        client.sock.sendmsg([data], rights)
        reply = client.receive()
        assert isinstance(reply, wire.Fault)
        assert client.receive() is None
        return reply.detail


@pytest.mark.parametrize("data", [b"\0", b"hello there", b"\xff" * 100, b"\x91" * 9000, b"\x91\x7f", b"\xc1"], ids=repr)
@pytest.mark.parametrize("hello", [True, False])
def test_garbage(own_runtime: Runtime, data: bytes, hello: bool) -> None:
    assert "not a request" in fault(own_runtime, data, hello=hello)


def test_a_huge_packet(own_runtime: Runtime) -> None:
    assert "longer than" in fault(own_runtime, b"x" * (wire.MAX_MESSAGE + 1))


def test_a_descriptor_where_none_belongs(own_runtime: Runtime) -> None:
    zero = os.open("/dev/zero", os.O_RDONLY)
    assert "1 file descriptors" in fault(own_runtime, wire.encode(wire.KmtAlive(5)), fds=[zero])
    assert "200 file descriptors" in fault(own_runtime, wire.encode(wire.KmtAlive(5)), fds=[zero] * 200)
    assert "file descriptor" in fault(
        own_runtime, wire.encode(wire.Hello(wire.PROTOCOL_VERSION)), hello=False, fds=[zero]
    )
    os.close(zero)


def test_none_where_one_belongs(own_runtime: Runtime) -> None:
    export = wire.Export(1, 1, 1, b"", 1, None, 0, None, False, False)
    assert "0 file descriptors" in fault(own_runtime, wire.encode(export))


def test_a_request_before_hello_a_second_hello_and_a_reply(own_runtime: Runtime) -> None:
    assert "before Hello" in fault(own_runtime, wire.encode(wire.KmtAlive(5)), hello=False)
    assert "Hello once" in fault(own_runtime, wire.encode(wire.Hello(wire.PROTOCOL_VERSION)))
    assert "not a request" in fault(own_runtime, wire.encode(wire.Done()))


def test_another_version_of_the_format(own_runtime: Runtime) -> None:
    detail = fault(own_runtime, wire.encode(wire.Hello(99)), hello=False)
    assert f"version {wire.PROTOCOL_VERSION}" in detail and "99" in detail and "same version of extmem" in detail


def test_wrong_things_said_in_the_right_format_cost_nothing(own_runtime: Runtime) -> None:
    """A refusal is not a fault: the same client goes on."""
    zero = os.open("/dev/zero", os.O_RDONLY)
    itself = os.pidfd_open(os.getpid())
    with raw(own_runtime) as client:
        for request, fd in (
            (wire.Export(1, 1, 1, b"", 1, None, 0, None, False, False), zero),
            (wire.Export(1, 77, 1, b"", 1, None, 0, None, False, False), zero),
            (wire.Export(1, 2, 1, b"", 3, None, 0, None, False, False), zero),
            (wire.ImportName("\\x", 1, 1), None),
            (wire.ImportHandle(2**62, 1), None),
            (wire.ImportKmt(2**62, 1), None),
            (wire.Release(2**62), None),
            (wire.CloseHandle(4), None),
            (wire.Duplicate(4, None, False, False, True, False), None),
            (wire.Duplicate(4, None, False, False, True, True), zero),
            (wire.Duplicate(4, None, False, False, True, True), itself),
            (wire.SetFlags(4, 255, 255), None),
            (wire.Offer(), None),
            (wire.Offer(1, 4, 5), None),
            (wire.Claim(bytes(16)), None),
            (wire.BindOffer(bytes(16)), zero),
            (wire.BindOffer(bytes(16)), itself),
            (wire.Hold(4), None),
            (wire.Inherit((4, 8)), None),
            (wire.AnnounceRecord(b"nonsense", b"", 1), zero),
            (wire.AnnounceReference(1, 5, 0, True, 0, True), None),
            (wire.AnnounceHandle(4, 5, 6, 0, True, True), None),
            (wire.AnnounceTicket(bytes(16), "nonsense", 5, 0, 0, False), None),
            (wire.Announced(), None),
        ):
            assert isinstance(client.ask(request, fd), wire.Refusal), request
        assert client.ask(wire.KmtAlive(5)) == wire.Value(0)
    os.close(zero)
    os.close(itself)


@pytest.mark.slow("it waits until the broker gives up on a silent client")
def test_one_that_says_nothing(own_runtime: Runtime) -> None:
    with raw(own_runtime, hello=False) as client:
        reply = client.receive()
        assert isinstance(reply, wire.Fault) and "Hello" in reply.detail
        assert client.receive() is None


@pytest.mark.slow("it waits until the broker gives up on a client that does not read")
def test_one_that_never_reads(own_runtime: Runtime, undisturbed: Peer) -> None:
    """The others are served meanwhile; this one is disconnected when its time is over."""
    with raw(own_runtime) as client:
        client.sock.settimeout(0)
        question = wire.encode(wire.GetStatus())
        with pytest.raises(BlockingIOError):
            while True:
                client.sock.send(question)
        assert undisturbed("reads('x')") == b"hello"
        client.sock.settimeout(20)
        wait_until(lambda: _send_fails(client, question), "the broker to hang up", deadline=20)


def _send_fails(client: RawClient, data: bytes) -> bool:
    client.sock.settimeout(0)
    try:
        client.sock.send(data)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def test_one_that_talks_without_end_lets_the_others_talk(own_runtime: Runtime, undisturbed: Peer) -> None:
    with raw(own_runtime) as client:
        for _ in range(20):
            client.sock.send(wire.encode(wire.KmtAlive(5)))
        assert undisturbed("reads('x')") == b"hello"
        assert [client.receive() for _ in range(20)] == [wire.Value(0)] * 20


def test_one_that_leaves_in_the_middle(own_runtime: Runtime, undisturbed: Peer) -> None:
    for request in (
        wire.ImportName("x", 0x02000000, 1),
        wire.OpenHandle("x", 0x02000000, True),
        wire.Inherit(),
        wire.Snapshot(),
    ):
        client = RawClient(own_runtime.path)
        client.hello()
        client.sock.send(wire.encode(request))
        client.close()
    for _ in range(50):
        RawClient(own_runtime.path).close()
    assert undisturbed("reads('x')") == b"hello"


def test_unread_descriptors_are_not_the_brokers(own_runtime: Runtime) -> None:
    """A client that is sent fds and never reads them: they are closed with its connection."""
    with raw(own_runtime) as client:
        for _ in range(30):
            client.sock.send(wire.encode(wire.ImportName("x", 0x80000000, 1)))
            client.sock.send(wire.encode(wire.Inherit()))


def test_random_bytes_and_wounded_requests(own_runtime: Runtime) -> None:
    """A short fuzz; `fuzz/fuzz_wire.py` is the long one. `undisturbed` checks the broker afterwards."""
    rng = Random(7)
    good = [
        wire.encode(m)
        for m in (wire.ImportName("x", 1, 1), wire.Release(1), wire.Offer(1), wire.Inherit((4,)), wire.Stop())
    ]
    client = None
    for _ in range(300):
        data = bytearray(rng.choice(good) if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 40)))
        data[rng.randrange(len(data))] = rng.randrange(256)
        if client is None:
            client = RawClient(own_runtime.path)
            client.hello()
        try:
            reply = client.exchange(bytes(data))
        except (PeerGoneError, PeerProtocolError):
            reply = None
        if reply is None or isinstance(reply, wire.Fault):
            client.close()
            client = None
    if client is not None:
        client.close()


def test_what_a_client_does_not_forget_is_forgotten_for_it(own_runtime: Runtime, undisturbed: Peer) -> None:
    """A client that never reports which fds it has closed costs the broker no memory for each payload it ever had."""
    import fcntl

    before = undisturbed("m.status().resident")
    with raw(own_runtime) as client:
        for _ in range(6_000):
            fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, 4096)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            reply = client.ask(wire.Export(1, 1, 1, b"", 1, None, 1 << 28, None, False, False), fd)
            os.close(fd)
            assert isinstance(reply, wire.Exported)
            assert client.ask(wire.Release(reply.reference)) == wire.Done()
    assert undisturbed("m.status().resident") - before < 400_000
