"""Steps that these tests share: what peers know, and a client that speaks the wire format by hand."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extmem.broker import transport, wire
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

PEER = """
import fcntl, mmap, signal, threading, time
from extmem.errors import *
from extmem.manager import manager
from extmem.objects import Share
m = manager()
ALL, READ, READ_WRITE = 0x10000000, 0x80000000, 0x80000001

def payload(text=b"", size=4096):
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, text, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd

def share(name=None, text=b"", kmt=False, access=ALL, sddl=None, inherit=False, strict=False):
    fd = payload(text)
    try:
        how = dict(name=name, access=access, sddl=sddl, inherit=inherit, strict_kmt=strict)
        return m.export(fd, b"self-description", share=Share.KMT if kmt else Share.NT, **how)
    finally:
        os.close(fd)

def text(imported, length=5):
    return os.pread(imported.payload.fd, length, 0)

def drop(imported):
    imported.payload.close()
    m.free(imported.memory)

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


def broker_fds(pid: int) -> int:
    """How many descriptors the broker has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_for_broker_fds(pid: int, count: int) -> None:
    """Wait until the broker has let go of all but so many."""
    wait_until(lambda: broker_fds(pid) <= count, lambda: f"{count} descriptors; there are {broker_fds(pid)}")


class RawClient:
    """A client that says what it is told to, right or wrong."""

    def __init__(self, directory: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(str(directory / "broker.sock"))

    def ask(self, message: Any, fd: int | None = None) -> wire.Reply | None:
        """The reply; None if the broker hangs up. Descriptors that come with it are closed."""
        return self.say(wire.encode(message), fd)

    def say(self, data: bytes, fd: int | None = None) -> wire.Reply | None:
        transport.send(self.sock, data, fd)
        return self.hear()

    def hear(self) -> wire.Reply | None:
        packet = transport.receive(self.sock)
        if packet is None:
            return None
        if packet[1] is not None:
            packet[1].close()
        return wire.decode_reply(packet[0])

    def hello(self) -> wire.Welcome:
        reply = self.ask(wire.Hello(wire.PROTOCOL_VERSION))
        assert isinstance(reply, wire.Welcome)
        return reply

    def hung_up(self) -> bool:
        """Whether the broker has hung up, after at most one fault."""
        from extmem.errors import PeerGoneError

        try:
            reply = self.hear()
            return reply is None or (isinstance(reply, wire.Fault) and self.hear() is None)
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
