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

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from extmem.broker.descriptors import OwnedFd, raised
from extmem.broker.wire import MAX_FDS, MAX_MESSAGE
from extmem.errors import PeerGoneError, PeerProtocolError

__all__ = ["Credentials", "Packet", "ask", "credentials_of", "groups_of", "receive", "send", "uid_of"]

_INT: Final = struct.Struct("i")
_unpack_int: Final = _INT.unpack
_UCRED: Final = struct.Struct("iII")
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no name for it
_ROOM: Final = socket.CMSG_LEN(MAX_FDS * _INT.size)
_ROOM_WITH_CREDENTIALS: Final = socket.CMSG_SPACE(_UCRED.size) + _ROOM
# Plain ints: Python's own constants are enum members, and each operation on one costs more than a system call.
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SO_PEERCRED: Final = int(socket.SO_PEERCRED)
_SCM_RIGHTS: Final = int(socket.SCM_RIGHTS)
_SCM_CREDENTIALS: Final = int(socket.SCM_CREDENTIALS)
_RECEIVE_FLAGS: Final = int(socket.MSG_CMSG_CLOEXEC)
_SEND_FLAGS: Final = int(socket.MSG_NOSIGNAL)
_CTRUNC: Final = int(socket.MSG_CTRUNC)
_TRUNC: Final = int(socket.MSG_TRUNC)
_BAD: Final = _CTRUNC | _TRUNC
_STANDARD: Final = 2


class Credentials(NamedTuple):
    """Who is at the other end, by the kernel's word."""

    pid: int
    uid: int
    gid: int


Packet: TypeAlias = tuple[bytes, OwnedFd | None, Credentials | None]
"""One received packet: its bytes, its descriptor (None if none came), its sender (only where that was asked for)."""


def send(sock: socket.socket, data: bytes, fd: int | None = None) -> None:
    """Send one packet, with at most one file descriptor (borrowed: the kernel takes its own reference).

    Raises BlockingIOError when the socket does not take it now (non-blocking or timed out), PeerGoneError when the peer
    has gone, PeerProtocolError when the packet is longer than MAX_MESSAGE (the peer would refuse it).
    """
    if len(data) > MAX_MESSAGE:
        raise _too_long(data)
    try:
        if fd is None:
            sock.send(data, _SEND_FLAGS)
        else:
            rights = (_SOL_SOCKET, _SCM_RIGHTS, _INT.pack(fd))
            sock.sendmsg((data,), (rights,), _SEND_FLAGS)
    except (ConnectionError, TimeoutError) as error:
        raise PeerGoneError(f"the other end is gone: {error}") from error


def receive(sock: socket.socket, *, credentials: bool = False) -> Packet | None:
    """Receive one packet; None when the peer hung up.

    credentials: the socket has SO_PASSCRED, and the sender's pid, uid and gid are wanted.
    Ownership: a received descriptor closes itself unless it is taken. If anything is wrong, all are closed.
    Raises BlockingIOError when there is nothing now, PeerGoneError for a broken connection, PeerProtocolError for a
    truncated packet, too many descriptors or control data of another kind, and OSError (EMFILE) when this process could
    not take a descriptor in because it has too many.
    """
    try:
        data, ancillary, flags, _ = sock.recvmsg(
            MAX_MESSAGE, _ROOM_WITH_CREDENTIALS if credentials else _ROOM, _RECEIVE_FLAGS
        )
    except (ConnectionError, TimeoutError) as error:
        raise PeerGoneError(f"the other end is gone: {error}") from error
    return _packet(data, ancillary, flags)


def ask(sock: socket.socket, data: bytes) -> Packet | None:
    """Send one packet without a descriptor on a blocking socket, and receive one. Raises as `send` and `receive`.

    The two in one: what a client does thousands of times a second.
    """
    if len(data) > MAX_MESSAGE:
        raise _too_long(data)
    try:
        sock.send(data, _SEND_FLAGS)
        answer, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, _ROOM, _RECEIVE_FLAGS)
    except (ConnectionError, TimeoutError) as error:
        raise PeerGoneError(f"the other end is gone: {error}") from error
    return _packet(answer, ancillary, flags)


def _too_long(data: bytes) -> PeerProtocolError:
    return PeerProtocolError(f"a message of {len(data)} bytes cannot be sent: at most {MAX_MESSAGE} are allowed")


def _packet(data: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> Packet | None:
    if not flags & _BAD:
        if not ancillary:
            return (data, None, None) if data else None
        if data and len(ancillary) == 1:
            level, kind, payload = ancillary[0]
            if kind == _SCM_RIGHTS and level == _SOL_SOCKET and len(payload) == _INT.size:
                fd = _unpack_int(payload)[0]
                # As it should be; all else goes the long way.
                return data, OwnedFd(fd if fd > _STANDARD else raised(fd)), None
    return _with_control(data, ancillary, flags)


def _with_control(data: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> Packet | None:
    # First every descriptor gets its owner. A trailing part of an int cannot be one.
    owned = [
        OwnedFd(fd)
        for level, kind, payload in ancillary
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS
        for (fd,) in _INT.iter_unpack(payload[: len(payload) - len(payload) % _INT.size])
    ]
    # From here on anything may raise: an owner that is lost closes.
    if flags & _CTRUNC and not owned:
        # There is room for one: if not even that came, this process could not open any more.
        raise OSError(errno.EMFILE, "a file descriptor could not be received: this process has too many open files")
    sender = _check(ancillary, flags)
    for one in owned:
        one.fd = raised(one.take())
    if len(owned) > MAX_FDS:
        raise PeerProtocolError(f"{len(owned)} file descriptors came with one message, at most {MAX_FDS} may")
    if not data:
        return None
    return data, owned[0] if owned else None, sender


def _check(ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> Credentials | None:
    if flags & _BAD:
        raise PeerProtocolError(
            f"control data was cut off: more than {MAX_FDS} file descriptor came with one message"
            if flags & _CTRUNC
            else f"a message is longer than {MAX_MESSAGE} bytes"
        )
    sender = None
    for level, kind, payload in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            continue
        if level != _SOL_SOCKET or kind != _SCM_CREDENTIALS or len(payload) != _UCRED.size:
            raise PeerProtocolError(f"control data of level {level}, type {kind} came with a message; none may")
        sender = Credentials(*_UCRED.unpack(payload))
    return sender


def credentials_of(sock: socket.socket) -> Credentials:
    """SO_PEERCRED: who connected, at the time of connecting."""
    return Credentials(*_UCRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size)))


def uid_of(sock: socket.socket) -> int:
    """`credentials_of`, the user alone: what is asked with every handle that comes."""
    uid: int = _UCRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size))[1]
    return uid


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
