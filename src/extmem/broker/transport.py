"""Packets and file descriptors over AF_UNIX SOCK_SEQPACKET. The only file that knows SCM_RIGHTS.

How this works. One packet is one message; the kernel keeps a packet's file descriptors with it. The kernel puts
descriptors into our table before we can look at anything, so the order in `receive` matters: first every descriptor
gets an owner, then the checks may raise. The control room is given as CMSG_LEN (exact): CMSG_SPACE rounds up, and the
padding after one 4-byte descriptor has room for a second one. With too many, the kernel installs what fits and says
MSG_CTRUNC; with too long a packet it drops the rest and says MSG_TRUNC; both are the peer's fault and an error here.
MSG_CMSG_CLOEXEC is set always: a child started by another thread at this very moment must not get the descriptor.

Calls interrupted by a signal are repeated by Python itself (PEP 475).
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from extmem.broker.wire import MAX_FDS, MAX_MESSAGE
from extmem.errors import PeerGoneError, PeerProtocolError

__all__ = ["Credentials", "Fds", "Packet", "credentials_of", "groups_of", "receive", "send"]

_INT: Final = struct.Struct("i")
_UCRED: Final = struct.Struct("iII")
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no name for it
_ROOM: Final = socket.CMSG_LEN(MAX_FDS * _INT.size)
_ROOM_WITH_CREDENTIALS: Final = socket.CMSG_SPACE(_UCRED.size) + _ROOM
_RECEIVE_FLAGS: Final = socket.MSG_CMSG_CLOEXEC
_SEND_FLAGS: Final = socket.MSG_NOSIGNAL
_BAD: Final = socket.MSG_CTRUNC | socket.MSG_TRUNC


class Credentials(NamedTuple):
    """Who is at the other end, by the kernel's word."""

    pid: int
    uid: int
    gid: int


class Fds:
    """Received file descriptors, owned by this object until taken.

    Closes what was not taken, at the latest when lost.
    """

    __slots__ = ("_fds",)

    def __init__(self) -> None:
        self._fds: list[int] = []

    def __len__(self) -> int:
        return len(self._fds)

    def take(self) -> int:
        """The next descriptor: closing it is the caller's duty now. PeerProtocolError when there is none."""
        if not self._fds:
            raise PeerProtocolError("a message came without the file descriptor that belongs to it")
        return self._fds.pop(0)

    def close(self) -> None:
        """Close what was not taken. Safe to call twice."""
        while self._fds:
            os.close(self._fds.pop())

    def __del__(self) -> None:
        self.close()


class Packet(NamedTuple):
    """One received packet; `fds` is None when none came, `sender` only where it was asked for."""

    data: bytes
    fds: Fds | None
    sender: Credentials | None


def send(sock: socket.socket, data: bytes, fd: int | None = None) -> None:
    """Send one packet, with at most one file descriptor (borrowed: the kernel takes its own reference).

    Raises BlockingIOError when the socket does not take it now (non-blocking or timed out), PeerGoneError when the peer
    has gone, PeerProtocolError when the packet is longer than MAX_MESSAGE (the peer would refuse it).
    """
    if len(data) > MAX_MESSAGE:
        raise PeerProtocolError(f"a message of {len(data)} bytes cannot be sent: at most {MAX_MESSAGE} are allowed")
    try:
        if fd is None:
            sock.send(data, _SEND_FLAGS)
        else:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(fd))
            sock.sendmsg((data,), (rights,), _SEND_FLAGS)
    except (ConnectionError, TimeoutError) as error:
        raise PeerGoneError(f"the other end is gone: {error}") from error


def receive(sock: socket.socket, *, credentials: bool = False) -> Packet | None:
    """Receive one packet; None when the peer hung up.

    credentials: the socket has SO_PASSCRED, and the sender's pid, uid and gid are wanted.
    Ownership: every received descriptor belongs to `Packet.fds`. If anything is wrong, all are closed.
    Raises BlockingIOError when there is nothing now, PeerGoneError for a broken connection, PeerProtocolError for
    a truncated packet, too many descriptors or control data of another kind.
    """
    try:
        data, ancillary, flags, _ = sock.recvmsg(
            MAX_MESSAGE, _ROOM_WITH_CREDENTIALS if credentials else _ROOM, _RECEIVE_FLAGS
        )
    except (ConnectionError, TimeoutError) as error:
        raise PeerGoneError(f"the other end is gone: {error}") from error
    if not ancillary and not flags & _BAD:
        return Packet(data, None, None) if data else None
    return _with_ancillary(data, ancillary, flags)


def _with_ancillary(data: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> Packet | None:
    fds = Fds()
    owned = fds._fds
    # First all descriptors get their owner. A trailing part of an int cannot be one.
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(payload) - len(payload) % _INT.size
            owned.extend(fd for (fd,) in _INT.iter_unpack(payload[:whole]))
    # From here on anything may raise.
    try:
        sender = _check(ancillary, flags)
        if len(fds) > MAX_FDS:
            raise PeerProtocolError(f"{len(fds)} file descriptors came with one message, at most {MAX_FDS} may")
    except PeerProtocolError:
        fds.close()
        raise
    if not data:
        fds.close()
        return None
    return Packet(data, fds if owned else None, sender)


def _check(ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> Credentials | None:
    if flags & socket.MSG_CTRUNC:
        raise PeerProtocolError(f"control data was cut off: more than {MAX_FDS} file descriptor came with one message")
    if flags & socket.MSG_TRUNC:
        raise PeerProtocolError(f"a message is longer than {MAX_MESSAGE} bytes")
    sender = None
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET or kind not in (socket.SCM_RIGHTS, socket.SCM_CREDENTIALS):
            raise PeerProtocolError(f"control data of level {level}, type {kind} came with a message; none may")
        if kind == socket.SCM_CREDENTIALS:
            if len(payload) != _UCRED.size:
                raise PeerProtocolError(f"credentials of {len(payload)} bytes came with a message")
            sender = Credentials(*_UCRED.unpack(payload))
    return sender


def credentials_of(sock: socket.socket) -> Credentials:
    """SO_PEERCRED: who connected, at the time of connecting."""
    return Credentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def groups_of(sock: socket.socket) -> frozenset[int]:
    """SO_PEERGROUPS: the supplementary groups of who connected."""
    item = struct.Struct("I")
    room = 64
    while True:
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, room * item.size)
        except OSError as error:
            # ERANGE: more groups than room; Linux allows 65536 at most.
            if room > 65_536:
                raise PeerGoneError(f"the kernel does not tell the peer's groups: {error}") from error
            room *= 8
            continue
        return frozenset(gid for (gid,) in item.iter_unpack(raw))
