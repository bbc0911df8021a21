"""The user of the other end: a client uses only a broker of its own user or of root, and a broker serves only its own
user or root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from extmem.manager import INHERIT_VARIABLE
from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.wire import PROTOCOL_VERSION
from tests.broker_files import SOCKET
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, OTHER, needs_root

IMPOSTOR = (
    "import os, socket, sys\n"
    + BECOME
    + """
os.umask(0)
path = sys.argv[1]
if os.path.exists(path): os.unlink(path)
become(int(sys.argv[2]))
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen(64)
print("listening", flush=True)
while True:
    sock, _ = listener.accept()
    print("got", len(sock.recv(20_000)), "bytes", flush=True)
"""
)


@pytest.fixture
def impostor(own_runtime: Runtime) -> Iterator[Child]:
    """A process of another user that listens in the broker's place, like one that won a race for the path."""
    needs_root()
    own_runtime.path.chmod(0o777)
    with Child.python(IMPOSTOR, str(own_runtime.path / SOCKET), str(OTHER)) as child:
        wait_until(lambda: "listening" in child.output or not child.alive, "it to listen")
        own_runtime.path.chmod(0o700)
        yield child
        assert not re.search("got [1-9]", child.output), "something was sent to it"


def refused(peer: Peer, call: str) -> None:
    error = peer.fails(call)
    assert error.is_a("UnsupportedError"), error
    assert f"user {OTHER}" in error.message and "nothing was sent" in error.message


@pytest.mark.parametrize("call", ["share('x')", "m.status()", "m.stop(force=True)"])
def test_another_users_socket_is_not_spoken_to(start: Start, impostor: Child, call: str) -> None:
    refused(start({"EXTMEM_BROKER_START": "never"}), call)


def test_neither_when_the_connection_is_made_again(own_runtime: Runtime, start: Start) -> None:
    needs_root()
    peer = start({"EXTMEM_BROKER_START": "never"})
    starter = start()
    starter("share('y')")
    peer("a = share('x', b'hello')")
    own_runtime.path.chmod(0o777)
    starter.kill()
    own_runtime.kill_broker()
    with Child.python(IMPOSTOR, str(own_runtime.path / SOCKET), str(OTHER)) as child:
        wait_until(lambda: "listening" in child.output or not child.alive, "it to listen")
        own_runtime.path.chmod(0o700)
        refused(peer, "m.import_by_name('x')")
        wait_until(lambda: "got 0 bytes" in child.output, "the watcher or the call to have tried")
        assert not [line for line in child.output.splitlines() if line.startswith("got") and line != "got 0 bytes"]


def test_roots_own_socket_is_spoken_to(own_runtime: Runtime, start: Start) -> None:
    """A process of the same user that only listens is like a broker that does not answer, and gets the request."""
    with Child.python(IMPOSTOR, str(own_runtime.path / SOCKET), str(os.geteuid())) as child:
        wait_until(lambda: "listening" in child.output or not child.alive, "it to listen")
        peer = start()
        peer("from extmem.manager.linux.manager import LinuxManager\nm = LinuxManager(timeout=0.3)")
        assert peer.fails("m.status()").is_a("PeerGoneError")
        assert "got 0 bytes" not in child.output and "got" in child.output


# -- the number of an inherited connection


OWN = """
import socket
mine, other = socket.socketpair(socket.AF_UNIX, {kind})
mine.set_inheritable(True)
os.environ[{variable!r}] = f"{{mine.fileno()}}{tail}"
"""


@pytest.mark.parametrize("kind", ["socket.SOCK_SEQPACKET", "socket.SOCK_STREAM"])
@pytest.mark.parametrize("tail", ["", ":1", ":nonsense"])
def test_a_stale_number_takes_no_socket_of_the_programs_own(start: Start, kind: str, tail: str) -> None:
    start()("share('x', b'hello')")
    peer = start()
    peer(OWN.format(kind=kind, variable=INHERIT_VARIABLE, tail=tail))
    assert peer("reads('x')") == b"hello"
    assert peer("mine.get_inheritable(), mine.send(b'still mine'), other.recv(99)") == (True, 10, b"still mine")
    assert peer(f"{INHERIT_VARIABLE!r} in os.environ") is False


def test_the_right_inode_on_a_socket_of_another_kind_is_no_connection_either(start: Start) -> None:
    start()("share('x', b'hello')")
    peer = start()
    peer(OWN.format(kind="socket.SOCK_STREAM", variable=INHERIT_VARIABLE, tail=""))
    peer(f"os.environ[{INHERIT_VARIABLE!r}] += f':{{os.fstat(mine.fileno()).st_ino}}:{PROTOCOL_VERSION}'")
    assert peer("reads('x'), mine.get_inheritable()") == (b"hello", True)


CALLER = (
    "import os, socket, sys\nfrom extmem import wire\nfrom extmem.wire import transport\n"
    + BECOME
    + """
become(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
sock.settimeout(10)
while (packet := transport.receive(sock)) is not None:
    print(wire.decode_reply(packet[0]), flush=True)
print("hung up")
"""
)


@pytest.mark.parametrize("uid", [OTHER, 65_534], ids=["another user", "nobody"])
def test_a_broker_turns_another_user_away(own_runtime: Runtime, start: Start, uid: int) -> None:
    """A client that reached the socket while the directory was open for a moment. What it sends is not waited for."""
    needs_root()
    owner = start()
    owner("share('x', b'hello', sddl='D:(A;;GA;;;WD)')")
    socket_path = own_runtime.path / SOCKET
    mode = socket_path.stat().st_mode
    own_runtime.path.chmod(0o711)
    socket_path.chmod(0o666)
    try:
        with Child.python(CALLER, str(own_runtime.path / SOCKET), str(uid), env=own_runtime.environment) as child:
            child.wait()
            [reply, end] = child.output.splitlines()
    finally:
        socket_path.chmod(mode)
        own_runtime.path.chmod(0o700)
    assert reply.startswith("Fault(") and f"serves user 0 alone, you are user {uid}" in reply and end == "hung up"
    assert owner("reads('x')") == b"hello" and start()("reads('x')") == b"hello"
