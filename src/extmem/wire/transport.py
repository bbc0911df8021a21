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
import os
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Final, NamedTuple, TypeAlias

from extmem.errors import PeerGoneError, PeerProtocolError
from extmem.owning import OwnedFd, raised_by_handler
from extmem.wire.limits import MAX_FDS, MAX_MESSAGE

__all__ = ["Credentials", "Packet", "credentials_of", "groups_of", "receive", "send", "uid_of"]

_INT: Final = struct.Struct("i")
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
_PLAIN: Final = ((MAX_MESSAGE, _ROOM, _RECEIVE_FLAGS),)
_WITH_CREDENTIALS: Final = ((MAX_MESSAGE, _ROOM_WITH_CREDENTIALS, _RECEIVE_FLAGS),)
"""Arguments of recvmsg."""


class Credentials(NamedTuple):
    """Who is at the other end, by the kernel's word."""

    pid: int
    uid: int
    gid: int


Packet: TypeAlias = tuple[bytes, OwnedFd | None, Credentials | None]
"""One received packet: its bytes, its descriptor (None if none came), its sender (only where that was asked for)."""
_Ancillary: TypeAlias = Sequence[tuple[int, int, bytes]]
_Answer: TypeAlias = tuple[bytes, _Ancillary, int, object]
"""What recvmsg returns."""


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
        if raised_by_handler(error):
            raise
        raise _gone(error) from error


def receive(
    sock: socket.socket, *, credentials: bool = False, dispose: Callable[[int], None] | None = None
) -> Packet | None:
    """Receive one packet; None when the peer hung up.

    credentials: the socket has SO_PASSCRED, and the sender's pid, uid and gid are wanted.
    Ownership: a received descriptor closes itself unless it is taken. If anything is wrong, all are closed, by
    `dispose` where that is given: closing a file of a stranger's may take its time.
    Raises BlockingIOError when there is nothing now, PeerGoneError for a broken connection, PeerProtocolError for a
    truncated packet, too many descriptors or control data of another kind, and OSError (EMFILE) when this process could
    not take a descriptor in because it has too many.
    """
    answers: list[_Answer] = []
    owned: list[OwnedFd] = []
    try:
        # One call: no signal handler runs before what came is noted.
        answers.extend(starmap(sock.recvmsg, _WITH_CREDENTIALS if credentials else _PLAIN))
        data, ancillary, flags, _ = answers[0]
        if not ancillary and not flags & _BAD:  # most packets
            return (data, None, None) if data else None
        for fd in _numbers(ancillary):
            one = OwnedFd()
            owned.append(one)
            one.own(fd)
    except BaseException as error:
        for _, ancillary, _, _ in answers:
            for fd in _numbers(ancillary)[sum(one.owes for one in owned) :]:
                os.close(fd)
        if isinstance(error, (ConnectionError, TimeoutError)) and not raised_by_handler(error):
            raise _gone(error) from error
        raise
    if not flags & _BAD and len(ancillary) == len(owned) <= MAX_FDS:  # as it should be; all else goes the long way
        return (data, owned[0].above_standard_streams(), None) if data else None
    taken = False
    try:
        sender = _judge(ancillary, flags, owned)
        taken = bool(data)
    finally:
        if not taken and dispose is not None:
            for one in owned:
                dispose(one.take())
    return (data, owned[0].above_standard_streams() if owned else None, sender) if data else None


def _too_long(data: bytes) -> PeerProtocolError:
    return PeerProtocolError(f"a message of {len(data)} bytes cannot be sent: at most {MAX_MESSAGE} are allowed")


def _gone(error: OSError) -> PeerGoneError:
    return PeerGoneError(f"the other end is gone: {error}")


def _numbers(ancillary: _Ancillary) -> array[int]:
    """The descriptors in control data. A trailing part of an int cannot be one."""
    numbers = array("i")
    for level, kind, payload in ancillary:
        if kind == _SCM_RIGHTS and level == _SOL_SOCKET:
            numbers.frombytes(payload[: len(payload) & -_INT.size])
    return numbers


def _judge(ancillary: _Ancillary, flags: int, owned: list[OwnedFd]) -> Credentials | None:
    if flags & _CTRUNC and not owned:
        # There is room for one: if not even that came, this process could not open any more.
        raise OSError(errno.EMFILE, "a file descriptor could not be received: this process has too many open files")
    sender = _check(ancillary, flags)
    if len(owned) > MAX_FDS:
        raise PeerProtocolError(f"{len(owned)} file descriptors came with one message, at most {MAX_FDS} may")
    return sender


def _check(ancillary: _Ancillary, flags: int) -> Credentials | None:
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
