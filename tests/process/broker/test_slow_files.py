"""Files that a program serves: the broker makes no call that could block on one, whatever message brings it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from extmem import wire
from extmem.broker.fd_closer import LIMIT
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import SOCKET
from tests.process.broker.conftest import Start
from tests.process.broker.fuse import SlowFiles, slow_files
from tests.process.broker.steps import RawClient, raw


@pytest.fixture
def files(tmp_path: Path) -> Iterator[SlowFiles]:
    with slow_files(tmp_path / "mount") as mounted:
        yield mounted


@pytest.fixture
def other(own_runtime: Runtime, start: Start) -> Peer:
    """A client that must be served all the time."""
    peer = start()
    peer("from extmem.manager.linux.manager import LinuxManager\nm = LinuxManager(timeout=5)\nshare('x', b'hello')")
    return peer


REQUESTS = {
    "export": wire.Export(1, 1, 1, b"", 1, None, 0, None, False, False),
    "export of a driver's": wire.Export(1, 2, 1, b"", 1, None, 0, None, False, False, 7),
    "where none belongs": wire.KmtAlive(5),
}


@pytest.fixture
def opened(files: SlowFiles) -> Iterator[Peer]:
    """A process that has the file open, and cannot even end while the file system does not answer."""
    with Peer() as holder:
        holder("from extmem import wire\nfrom extmem.wire import transport\nimport socket")
        holder("fd = os.open(path, os.O_RDWR)", path=str(files.path))
        yield holder
        files.end()


@pytest.mark.parametrize("what", REQUESTS)
def test_a_silent_file_is_refused_and_holds_nobody_up(
    own_runtime: Runtime, files: SlowFiles, opened: Peer, other: Peer, what: str
) -> None:
    opened(
        "def send(path, data, count):\n"
        "    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"    sock.connect(path + '/{SOCKET}')\n"
        "    transport.send(sock, wire.encode(wire.Hello(wire.PROTOCOL_VERSION))); transport.receive(sock)\n"
        "    for _ in range(count):\n"
        "        transport.send(sock, data, fd)\n"
        "        reply = wire.decode_reply(transport.receive(sock)[0])\n"
        "        if type(reply) is wire.Fault: break\n"
        "    return type(reply).__name__, reply.detail"
    )
    files.silence()
    data = wire.encode(REQUESTS[what])
    kind, detail = opened("send(path, data, 1)", path=str(own_runtime.path), data=data)
    assert kind == ("Fault" if what == "where none belongs" else "Refusal"), detail
    assert other("reads('x')") == b"hello"


def test_who_sends_many_is_hung_up_on_and_the_others_are_served(
    own_runtime: Runtime, files: SlowFiles, opened: Peer, other: Peer
) -> None:
    files.silence()
    opened(
        "def flood(path, data, count):\n"
        "    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"    sock.connect(path + '/{SOCKET}')\n"
        "    transport.send(sock, wire.encode(wire.Hello(wire.PROTOCOL_VERSION))); transport.receive(sock)\n"
        "    for done in range(count):\n"
        "        try:\n"
        "            transport.send(sock, data, fd)\n"
        "            packet = transport.receive(sock)\n"
        "        except extmem.errors.PeerGoneError: return done\n"
        "        if packet is None or type(wire.decode_reply(packet[0])) is wire.Fault: return done\n"
        "    return done"
    )
    data = wire.encode(REQUESTS["export"])
    done = opened("flood(path, data, 3000)", path=str(own_runtime.path), data=data)
    assert LIMIT - 1 <= done <= LIMIT + 1
    assert other("reads('x')") == b"hello"
    # Other clients of the same user go on, and what they free is closed, though so many threads block.
    pid = own_runtime.broker_pid()
    other(
        "for _ in range(2 * limit):\n"
        "    fd = os.open('/dev/zero', os.O_RDWR)\n"
        "    made = m.export([fd], b'', share=Share.NT, name=None, sddl=None, inherit=False, backing=2, access=ALL)\n"
        "    m.release(made.number)\n"
        "    os.close(fd)",
        limit=LIMIT,
    )
    wait_until(lambda: not _open_there(pid, Path("/dev/zero")), "what was freed to be closed")
    assert other("share('y', b'there').number > 0 and reads('y')") == b"there"


def test_one_that_answers_is_refused_all_the_same_and_closed(
    own_runtime: Runtime, files: SlowFiles, other: Peer
) -> None:
    fd = os.open(files.path, os.O_RDWR)
    with raw(own_runtime) as client:
        for what in ("export", "export of a driver's"):
            reply = client.ask(REQUESTS[what], fd)
            assert isinstance(reply, wire.Refusal) and "cannot be a payload" in reply.detail
    os.close(fd)
    pid = own_runtime.broker_pid()
    wait_until(lambda: not _open_there(pid, files.path), "the broker to have closed them")


def _open_there(pid: int | None, path: Path) -> list[str]:
    places = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    return [place for place in places if os.path.lexists(place) and os.readlink(place) == str(path)]


def test_a_memory_file_is_taken_from_the_very_client(own_runtime: Runtime, other: Peer) -> None:
    import fcntl

    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    client = RawClient(own_runtime.path)
    client.hello()
    assert isinstance(client.ask(REQUESTS["export"], fd), wire.Exported)
    client.close()
    os.close(fd)
