"""Steps that these tests share: the functions of peers, and a client that writes and reads messages itself."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from extmem import wire
from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.wire import transport
from tests.broker_files import SOCKET

PEER = """
import fcntl, mmap, signal, threading, time
from extmem.wire.peers import inheritance
from extmem.errors import *
from extmem.core.name_waits import import_named
from extmem.manager import Reference, manager
from extmem.objects import Share
from extmem.sharing.keeping import Keep, KeepMode
m = manager()
ALL, READ, READ_WRITE = 0x10000000, 0x80000000, 0x80000001

def payload(text=b"", size=4096):
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, text, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd

def share(name=None, text=b"", kmt=False, access=ALL, sddl=None, inherit=False, strict=False, **more):
    fd = payload(text)
    try:
        how = dict(name=name, access=access, sddl=sddl, inherit=inherit, strict_kmt=strict, **more)
        return m.export([fd], b"self-description", share=Share.KMT if kmt else Share.NT, **how)
    finally:
        os.close(fd)

def text(imported, length=5):
    return os.pread(imported.payload.fd, length, 0)

def drop(imported):
    imported.payload.close()
    m.release(imported.number)

def reads(name):
    found = m.import_by_name(name)
    try:
        return text(found)
    finally:
        drop(found)

def fds():
    return len(os.listdir("/proc/self/fd"))

def write(imported, data):
    with mmap.mmap(imported.payload.fd, 4096) as view:
        view[:len(data)] = data
"""


OTHER = 60_000 + 2 * (os.getpid() % 2_000)
"""A user id that no other run of these tests uses at the same time; the next one is free, too."""
BECOME = f"""
def become(uid={OTHER}):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
"""
ASK = """
from extmem import wire
def ask(request):
    with m.client.lock: return m.client.exchange(request)[0]
"""
SYSTEM = """
from pathlib import Path
from extmem.wire.runtime_dir import RuntimeDir
from extmem.manager.linux.manager import LinuxManager
m = LinuxManager(RuntimeDir(Path(os.environ['EXTMEM_RUNTIME_DIR']), system=True))
"""
"""The environment that makes a peer a client of the system-wide broker of `system_broker`."""


CLIMB = """
def tried(what):
    try: return what()
    except ExtmemError as error: return type(error).__name__
def writes(found):
    '''Whether this process can write through the fd of an import.'''
    try:
        with mmap.mmap(found.payload.fd, 4096) as view: view[:4] = b'evil'
        return True
    except PermissionError:
        return False
def attempts(fd):
    '''Attempts to share the fd of a read-only payload again, with the right to write.'''
    from extmem.sharing.kinds import Backing
    how = dict(access=ALL, sddl='D:(A;;GA;;;WD)', inherit=False)
    yield lambda: m.export([fd], b'', share=Share.NT, name='as opaque', backing=Backing.DRIVER_FD, **how)
    yield lambda: m.export([fd], b'', share=Share.NT, name='stated', backing=Backing.DRIVER_FD, identity=5, **how)
    yield lambda: m.export([fd], b'', share=Share.NT, name='as host', **how)
    yield lambda: m.export([fd], b'', share=Share.KMT, name=None, backing=Backing.DRIVER_FD, **how)
    yield lambda: m.export([fd], b'', share=Share.KMT, name=None, **how)
def climb(found):
    '''The results of all attempts to write: True if one wrote.'''
    done = []
    for attempt in attempts(found.payload.fd):
        made = tried(attempt)
        if isinstance(made, str):
            done.append(made)
            continue
        handle = tried(lambda: m.get_handle(made.number)) if made.object else None
        for attempt in (lambda: m.import_by_handle(handle), lambda: m.import_by_kmt(made.kmt)):
            got = tried(attempt)
            if not isinstance(got, str): done.append(writes(got))
    for name in ('as opaque', 'stated', 'as host'):
        got = tried(lambda: m.import_by_name(name, READ_WRITE))
        done.append(got if isinstance(got, str) else writes(got))
    return done
"""
"""Source of peers: `climb` tries to get write access to what may only be read."""


def needs_root() -> None:
    """Skip where this process cannot become another user."""
    if os.geteuid():
        pytest.skip("needs root, to be another user")


@contextmanager
def system_broker(runtime: Runtime) -> Iterator[Child]:
    """Start a broker that serves all users, in this runtime directory."""
    needs_root()
    runtime.path.chmod(0o755)
    command = [sys.executable, "-m", "extmem.broker", "--system", "--directory", str(runtime.path)]
    with Child(command, env=runtime.environment) as child:
        wait_until(lambda: (runtime.path / SOCKET).exists(), "its socket")
        try:
            yield child
        finally:
            child.kill()


def heir(parent: Peer, source: str, uid: int = OTHER) -> str:
    """Return the output of a child of another user that inherits the peer's connection, and with it its handles."""
    script = "import os\n" + BECOME + PEER + ASK + f"become({uid})\n" + source
    return str(
        parent(
            "import subprocess, sys\n"
            "with m.inherit_socket() as channel:\n"
            "    environment = dict(os.environ, EXTMEM_INHERIT_FD=inheritance(channel))\n"
            "    child = subprocess.Popen([sys.executable, '-c', script], env=environment,\n"
            "        pass_fds=[channel.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)\n"
            "out = child.communicate(timeout=60)[0]\n"
            "out.strip()",
            script=script,
        )
    )


@contextmanager
def next_broker(runtime: Runtime, *, window: float = 25.0, system: bool = False) -> Iterator[Child]:
    """Start a broker after a killed one, with a recovery window that is long enough for checks."""
    source = (
        "import sys\nfrom extmem.broker import client_journal\nclient_journal.WINDOW = float(sys.argv[2])\n"
        "from extmem.broker.run import run\nsys.exit(run(sys.argv[1], system=len(sys.argv) > 3))"
    )
    (runtime.path / SOCKET).unlink(missing_ok=True)
    arguments = [str(runtime.path), str(window), *["system"] * system]
    with Child.python(source, *arguments, env=runtime.environment) as child:
        wait_until(lambda: (runtime.path / SOCKET).exists() or not child.alive, "its socket")
        assert child.alive, child.output
        yield child


BROKER = """
import os, sys
from extmem.broker import run, server
from extmem.manager.linux import client
import extmem.manager, extmem.testing.runtime
"""
"""The beginning of the source of a broker in a process of a test; another user cannot import it later."""


@contextmanager
def own_broker(runtime: Runtime, prelude: str = "", *, uid: int | None = None) -> Iterator[Child]:
    """Start a broker in whose process `prelude` runs first."""
    source = BROKER + BECOME + prelude + (f"become({uid})\n" if uid else "") + "sys.exit(run.run(sys.argv[1]))"
    if uid:
        os.chown(runtime.path, uid, uid)
    with Child.python(source, str(runtime.path), env=runtime.environment) as child:
        wait_until(lambda: (runtime.path / SOCKET).exists() or not child.alive, "its socket")
        assert child.alive, child.output
        yield child


def broker_fds(pid: int) -> int:
    """Return how many fds the broker has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_for_broker_fds(pid: int, count: int) -> None:
    """Wait until the broker has only so many fds open."""
    wait_until(lambda: broker_fds(pid) <= count, lambda: f"{count} descriptors; there are {broker_fds(pid)}")


class RawClient:
    """A client that sends what a test gives it, valid or not."""

    def __init__(self, directory: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(str(directory / SOCKET))

    def ask(self, message: Any, *fds: int | None) -> wire.Reply | None:
        """Send a request and return the reply; None if the broker closes the connection. Its fds are closed."""
        return self.exchange(wire.encode(message), *fds)

    def exchange(self, data: bytes, *fds: int | None) -> wire.Reply | None:
        """Send these bytes and return the reply, as `ask`."""
        transport.send_many(self.sock, data, [fd for fd in fds if fd is not None])
        return self.receive()

    def receive(self) -> wire.Reply | None:
        """Return the next reply, as `ask`."""
        packet = transport.receive_many(self.sock)
        if packet is None:
            return None
        for one in packet[1]:
            one.close()
        return wire.decode_reply(packet[0])

    def hello(self, **more: Any) -> wire.Welcome:
        reply = self.ask(wire.Hello(wire.PROTOCOL_VERSION, **more))
        assert isinstance(reply, wire.Welcome)
        return reply

    def is_disconnected(self) -> bool:
        """Return whether the broker closes the connection, after at most one Fault."""
        from extmem.errors import PeerGoneError

        try:
            reply = self.receive()
            return reply is None or (isinstance(reply, wire.Fault) and self.receive() is None)
        except PeerGoneError:
            return True

    def close(self) -> None:
        self.sock.close()


@contextmanager
def raw(runtime: Runtime, *, hello: bool = True) -> Iterator[RawClient]:
    client = RawClient(runtime.path)
    try:
        if hello:
            client.hello()
        yield client
    finally:
        client.close()
