"""A failure of one client, or of a system call for it, affects that client only: the broker serves all others."""

from __future__ import annotations

import functools
import os
import resource
from pathlib import Path

import pytest

from extmem import wire
from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import SOCKET
from tests.process.broker.conftest import Start
from tests.process.broker.steps import (
    BECOME,
    BROKER,
    OTHER,
    SYSTEM,
    RawClient,
    broker_fds,
    needs_root,
    own_broker,
)

NEVER = {"EXTMEM_BROKER_START": "never"}

# -- descriptors that cannot be sent


IN_FLIGHT = """
import array, errno, socket
pairs = []
def fill():
    '''Have as many descriptors unread in sockets as the kernel lets this user have.'''
    while True:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pairs.append(pair)
        try:
            for _ in range(50):
                pair[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1] * 10))])
        except OSError as error:
            assert error.errno == errno.ETOOMANYREFS, error
            return len(pairs)
def empty():
    while pairs:
        for end in pairs.pop(): end.close()
"""
LIMITED = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
KEPT = LIMITED + "run.raise_limit = lambda: 200\n"
"""For a broker of root, which could raise its limit."""
GETS = {
    "open": ("i = m.import_by_name('x')\ntext(i)", b"hello"),
    "open again": ("m.import_by_name('x')\ntext(m.import_by_name('x'))", b"hello"),
    "handle": ("h = m.open_handle('x', READ)\nm.info(h).handle_count", 1),
    "claim": ("text(m.claim(ticket))", b"hello"),
    "inherit": ("m.inherit_socket().close()\n1", 1),
    "snapshot": ("len(m.snapshot())", 1),
}


@pytest.mark.parametrize("verb", GETS)
def test_a_reply_whose_descriptor_cannot_be_sent_is_undone(own_runtime: Runtime, start: Start, verb: str) -> None:
    """The user's processes have as many fds in flight as they may: the broker's user is subject to the limit."""
    needs_root()
    source, expected = GETS[verb]
    with own_broker(own_runtime, LIMITED, uid=OTHER) as broker:
        exporter, other, filler = start(NEVER), start(NEVER), start()
        for peer in (exporter, other):
            peer(BECOME + "become()")
        filler(IN_FLIGHT + LIMITED + BECOME + "become()")
        exporter("a = share('x', b'hello')")
        other("before = m.kmt_alive(1)", ticket=exporter("m.offer(reference=a.number)"))
        held = "[(h.references, len(h.handles)) for row in m.snapshot() for h in row.holders if h.pid != os.getpid()]"
        filler("fill()")
        for _ in range(3):
            error = other.fails(source)
            assert error.is_a("QuotaError") and "not yet received" in error.message, error
        filler("empty()")
        assert exporter(held) == [], "nothing is left of a reply that could not be sent"
        assert other(source) == expected
        assert exporter("reads('x')") == b"hello" and broker.alive


# -- watches, and other errors of the system, raised in the broker one at a time


FAILING = """
import errno, select
from pathlib import Path
failing = Path(sys.argv[1]) / "failing"
class Epoll:
    '''epoll that refuses to watch more while there is a file that says so.'''
    def __init__(self): self._real = select._epoll()
    def register(self, fd, mask):
        if failing.exists(): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._real.register(fd, mask)
    def __getattr__(self, name): return getattr(self._real, name)
select._epoll, select.epoll = select.epoll, Epoll
"""


def test_a_client_that_cannot_be_waited_for_is_reported(own_runtime: Runtime, start: Start) -> None:
    """The error that exhausted fs.epoll.max_user_watches causes."""
    with own_broker(own_runtime, FAILING) as broker:
        peer = start(NEVER)
        peer("a = share('x', b'hello', inherit=True)\nh = m.get_handle(a.number)\nt = m.offer(reference=a.number)")
        before = broker_fds(broker.pid)
        (own_runtime.path / "failing").touch()
        for _ in range(5):
            client = RawClient(own_runtime.path)
            reply = client.receive()
            assert isinstance(reply, wire.Fault) and "No space left" in reply.detail
            assert client.is_disconnected()
            client.close()
        error = start(NEVER).fails("share('y')")
        assert error.is_a("PeerProtocolError") and "No space left" in error.message
        assert peer.fails("m.inherit_socket()").is_a("QuotaError")
        assert peer.fails("m.bind_offer(t, os.getppid())").is_a("QuotaError")
        assert peer("reads('x'), m.info(h).handle_count, m.withdraw(t)") == (b"hello", 1, True)
        wait_until(lambda: broker_fds(broker.pid) <= before, "no descriptor to be left")
        (own_runtime.path / "failing").unlink()
        assert start(NEVER)("reads('x')") == b"hello"
        peer("m.inherit_socket().close()\nt = m.offer(reference=a.number)\nm.bind_offer(t, os.getppid())")


ACCEPTING = """
import errno, socket
from pathlib import Path
failing = Path(sys.argv[1]) / "failing"
class Listener(socket.socket):
    def accept(self):
        if failing.exists(): raise OSError(int(failing.read_text()), "told to")
        return super().accept()
from extmem.broker import owned_directory
owned_directory.socket.socket = Listener
"""


@pytest.mark.parametrize("code", ["ENFILE", "ENOMEM", "ENOBUFS", "EMFILE", "EPERM"])
def test_where_nobody_can_be_accepted_the_broker_tries_again(own_runtime: Runtime, start: Start, code: str) -> None:
    import errno

    with own_broker(own_runtime, ACCEPTING) as broker:
        peer = start(NEVER)
        peer("a = share('x', b'hello')")
        (own_runtime.path / "failing").write_text(str(getattr(errno, code)))
        waiting = start(NEVER)
        waiting.start("reads('x')")
        assert peer("[reads('x') for _ in range(200)]")[0] == b"hello"
        spent = _processor_time(broker.pid)
        assert not waiting.connection.poll(0.5)
        assert _processor_time(broker.pid) - spent < 0.25, "it waits, and does not try again and again"
        (own_runtime.path / "failing").unlink()
        assert waiting.finish() == b"hello"
        assert broker.alive


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_a_descriptor_newcomers_are_told_and_others_served(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    peer("a = share('x', b'hello')")
    pid = own_runtime.broker_pid()
    assert pid is not None
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (broker_fds(pid), limits[1]))
    try:
        for _ in range(3):
            client = RawClient(own_runtime.path)
            reply = client.receive()
            assert isinstance(reply, wire.Fault) and "ulimit -n" in reply.detail
            client.close()
        error = start(NEVER).fails("share('y')")
        assert error.is_a("PeerProtocolError") and "ulimit -n" in error.message
        assert str(own_runtime.path) in error.message
        assert peer("reads('x')") == b"hello"
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert start(NEVER)("reads('x')") == b"hello" and own_runtime.broker_pid() == pid


# -- one client's quota and the broker's limit


def test_one_client_cannot_take_all_the_brokers_descriptors(own_runtime: Runtime, start: Start) -> None:
    with own_broker(own_runtime, KEPT) as broker:
        greedy, other = start(NEVER), start(NEVER)
        error = greedy.fails("held = []\nwhile True: held.append(share(None))")
        assert error.is_a("QuotaError") and "200 files" in error.message and str(own_runtime.path) in error.message
        count = greedy("len(held)")
        assert 90 < count < 150
        assert other("a = [share(f'x{i}', b'hello') for i in range(8)]\nreads('x7')") == b"hello"
        status = other("m.status()")
        assert (status.limit, status.reserve) == (200, 50)
        assert status.used == count + 8 + 4 and status.client_share < 40
        assert greedy("len(m.snapshot())") == count + 8
        # As many as may come without a Hello are in the reserve, and a status request is answered.
        silent = [RawClient(own_runtime.path) for _ in range(60)]
        assert other("m.status().pid") == broker.pid
        assert other("from extmem.manager.linux.manager import LinuxManager\nLinuxManager().status().pid") == broker.pid
        for client in silent:
            client.close()
        greedy("for one in held: m.release(one.number)\nheld.clear()")
        assert other("more = [share(None) for _ in range(80)]\nlen(more)") == 80
        assert other("from extmem.manager.linux.manager import LinuxManager\nLinuxManager().stop()") is False
        assert other("LinuxManager().stop(force=True)") is True


ENDINGS = {
    "leaves": "",
    "killed": "os.kill(os.getpid(), 9)",
    "cut off": "m.client._sock.shutdown(2)\nm.kmt_alive(1)",
    "child": "channel = m.inherit_socket()\nchannel.close()",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_client_had_is_free_when_it_has_ended(own_runtime: Runtime, start: Start, ending: str) -> None:
    """Otherwise a broker that has served some thousand processes would serve no more."""
    with own_broker(own_runtime):
        looker = start(NEVER)
        before = looker("m.status().used")
        for _ in range(3):
            peer = start(NEVER)
            peer("a = share(None, b'hello')")
            if ending == "killed":
                peer.kill()
            else:
                peer(ENDINGS[ending])
                peer.leave()
        left = functools.partial(looker, "m.status().used")
        wait_until(lambda: left() == before, lambda: f"{before} in use as before; {left()} are")


def test_one_user_cannot_take_all_from_another(own_runtime: Runtime, start: Start) -> None:
    """Nor by many processes."""
    needs_root()
    own_runtime.path.chmod(0o755)
    source = BROKER + KEPT + "sys.exit(run.run(sys.argv[1], system=True))"
    with Child.python(source, str(own_runtime.path), env=own_runtime.environment) as broker:
        wait_until(lambda: (own_runtime.path / SOCKET).exists() or not broker.alive, "its socket")
        greedy, other = [start(NEVER) for _ in range(6)], start(NEVER)
        for peer in greedy:
            peer(BECOME + "become()\n" + SYSTEM + "held = []")
            error = peer.fails("while True: held.append(share(None))")
            assert error.is_a("QuotaError") or "refuses this process" in error.message, error
            assert str(own_runtime.path) in error.message
        taken = sum(peer("len(held)") for peer in greedy)
        other(BECOME + f"become({OTHER + 1})\n" + SYSTEM)
        assert other("a = [share(f'x{i}', b'hello') for i in range(4)]\nreads('x3')") == b"hello"
        status = other("m.status()")
        assert status.limit == 200 and status.used > taken > 100
        assert greedy[0].fails("share(None)").is_a("QuotaError")
        assert start(NEVER)(SYSTEM + "m.stop(force=True)") is True


def test_the_broker_takes_the_limit_that_the_system_lets_it_have(own_runtime: Runtime, start: Start) -> None:
    """Whatever limit its starter has set for itself."""
    peer = start()
    peer("import resource\nsoft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)")
    peer("resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\nshare('x', b'hello')")
    assert peer("m.status().limit >= hard, m.status().limit")[0]
    pid = own_runtime.broker_pid()
    assert pid is not None
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == peer("m.status().limit")


@pytest.mark.slow("it fills the handle table of a process")
def test_handles_put_into_a_process_leave_it_room_for_its_own(own_runtime: Runtime, start: Start) -> None:
    """As many as allowed: the giver is refused, and the receiver is not affected."""
    victim, giver = start(), start()
    victim("a = share('x', b'hello')\nh = m.get_handle(a.number)")
    giver.start(
        "b = share('evil', b'evil.')\nh = m.get_handle(b.number)\n"
        "from extmem import wire\nfrom extmem.wire import transport\n"
        "sock, pidfd = m.client.connected, os.pidfd_open(pid)\n"
        "data = wire.encode(wire.Duplicate(h, None, False, False, False, True, 0))\n"
        "def give():\n"
        "    transport.send(sock, data, pidfd)\n"
        "    return wire.decode_reply(transport.receive(sock)[0])\n"
        "count = 0\n"
        "with m.client.lock:\n"
        "    while type(reply := give()) is wire.Value: count += 1\n"
        "count, getattr(reply, 'status', 0), reply.detail",
        pid=victim.pid,
    )
    count, status, detail = giver.finish(deadline=120)
    assert (count, status) == (65_536, 0xC0000044) and "65536" in detail
    assert victim("hs = [m.open_handle('x', READ) for _ in range(50)]\nlen(hs), reads('x')") == (50, b"hello")
    assert victim("m.info(h).handle_count") == 51
    assert isinstance(victim, Peer)
