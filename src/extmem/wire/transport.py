"""Packets and file descriptors over AF_UNIX SOCK_SEQPACKET. The only file that uses SCM_RIGHTS.

How this works. One packet is one message; the kernel keeps a packet's file descriptors with it. The kernel puts
descriptors into this process's table before any check can run, so the order in `receive_many` matters: first every
descriptor gets an owner, then the checks may raise. The control room is given as CMSG_LEN (exact): CMSG_SPACE rounds
up, and the padding after one 4-byte descriptor has room for a second one. If more descriptors come than fit, the kernel
installs those that fit and sets MSG_CTRUNC; of a packet that is too long it drops the rest and sets MSG_TRUNC. Both are
errors here, and so is control data of another type. `MAX_FDS` is the kernel's own limit: where there is room for so
many, MSG_CTRUNC means that this process cannot open more. MSG_CMSG_CLOEXEC is always set: a child that another thread
starts at this moment must not get the descriptors.

Calls interrupted by a signal are repeated by Python itself (PEP 475).
"""

from __future__ import annotations

import sys

import msgspec

if sys.platform != "linux":
    raise ImportError("the broker and its sockets exist on Linux only; extmem.manager selects what the system has")

import errno
import os
import socket
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from typing import Final, TypeAlias

from extmem.errors import PeerGoneError, PeerProtocolError
from extmem.owning import OwnedFd, raised_by_handler
from extmem.wire.limits import MAX_FDS, MAX_MESSAGE

__all__ = [
    "Credentials",
    "Packet",
    "Packets",
    "TableFullError",
    "credentials_of",
    "groups_of",
    "receive",
    "receive_many",
    "send",
    "send_many",
    "uid_of",
]

_INT: Final = struct.Struct("i")
_UCRED: Final = struct.Struct("iII")
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no name for it
_ROOM_FOR_ONE: Final = socket.CMSG_LEN(_INT.size)
_ROOM: Final = socket.CMSG_LEN(MAX_FDS * _INT.size)
# Plain ints: the constants of `socket` are enum members, and each operation on one costs more than a system call.
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SO_PEERCRED: Final = int(socket.SO_PEERCRED)
_SCM_RIGHTS: Final = int(socket.SCM_RIGHTS)
_SCM_CREDENTIALS: Final = int(socket.SCM_CREDENTIALS)
_RECEIVE_FLAGS: Final = int(socket.MSG_CMSG_CLOEXEC)
_SEND_FLAGS: Final = int(socket.MSG_NOSIGNAL)
_CTRUNC: Final = int(socket.MSG_CTRUNC)
_TRUNC: Final = int(socket.MSG_TRUNC)
_BAD: Final = _CTRUNC | _TRUNC
_CREDENTIALS_ROOM: Final = socket.CMSG_SPACE(_UCRED.size)
_PLAIN: Final = ((MAX_MESSAGE, _ROOM_FOR_ONE, _RECEIVE_FLAGS),)
_MANY: Final = ((MAX_MESSAGE, _ROOM, _RECEIVE_FLAGS),)
_MANY_WITH_CREDENTIALS: Final = ((MAX_MESSAGE, _CREDENTIALS_ROOM + _ROOM, _RECEIVE_FLAGS),)
"""Arguments of recvmsg."""


class TableFullError(OSError):
    """EMFILE: a packet came, and this process could not open its file descriptors. `data` are the packet's bytes."""

    data: bytes = b""


class Credentials(msgspec.Struct, frozen=True):
    """The process at the other end, as the kernel reports it."""

    pid: int
    uid: int
    gid: int


Packet: TypeAlias = tuple[bytes, OwnedFd | None]
"""A received packet: its bytes and its file descriptor (None if none came)."""
Packets: TypeAlias = tuple[bytes, Sequence[OwnedFd], Credentials | None]
"""A received packet: its bytes, its file descriptors, and its sender (only where that was requested)."""
_Ancillary: TypeAlias = Sequence[tuple[int, int, bytes]]
_Answer: TypeAlias = tuple[bytes, _Ancillary, int, object]
"""What recvmsg returns."""


def send(sock: socket.socket, data: bytes, fd: int | None = None) -> None:
    """Send one packet, with at most one file descriptor. See `send_many`."""
    send_many(sock, data, () if fd is None else (fd,))


def send_many(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet, with at most `MAX_FDS` file descriptors (borrowed: the kernel takes its own references).

    Raises BlockingIOError when the socket cannot take it now (non-blocking or timed out), PeerGoneError when the peer
    has gone, PeerProtocolError when the packet is longer than MAX_MESSAGE (the peer would refuse it).
    """
    if len(data) > MAX_MESSAGE:
        raise PeerProtocolError(f"a message of {len(data)} bytes cannot be sent: at most {MAX_MESSAGE} are allowed")
    try:
        if not fds:
            sock.send(data, _SEND_FLAGS)
        else:
            rights = (_SOL_SOCKET, _SCM_RIGHTS, array("i", fds))
            sock.sendmsg((data,), (rights,), _SEND_FLAGS)
    except (ConnectionError, TimeoutError) as error:
        if raised_by_handler(error):
            raise
        raise _gone(error) from error


def receive(sock: socket.socket) -> Packet | None:
    """Receive one packet with at most one file descriptor; None when the peer hung up. Errors: as `receive_many`."""
    packet = receive_many(sock, most=1)
    if packet is None:
        return None
    data, owned, _ = packet
    return data, owned[0] if owned else None


def receive_many(
    sock: socket.socket,
    *,
    most: int = MAX_FDS,
    credentials: bool = False,
    dispose: Callable[[int], None] = os.close,
) -> Packets | None:
    """Receive one packet with at most `most` file descriptors, 1 or `MAX_FDS`; None when the peer hung up.

    credentials: the socket has SO_PASSCRED, and the sender's pid, uid and gid are requested.
    Ownership: a received descriptor closes itself unless it is taken. On an error all are closed, by `dispose`: closing
    a file of an untrusted process may take time.
    Raises BlockingIOError when nothing has come yet, PeerGoneError for a broken connection, PeerProtocolError for a
    truncated packet or control data of another type, and TableFullError when this process could not receive a
    descriptor because it has too many open files.
    """
    answers: list[_Answer] = []
    owned: list[OwnedFd] = []
    numbers: Iterator[int] | None = None
    try:
        # One call: no signal handler runs before the descriptors that came are recorded.
        answers.extend(starmap(sock.recvmsg, _MANY_WITH_CREDENTIALS if credentials else _MANY if most > 1 else _PLAIN))
        data, ancillary, flags, _ = answers[0]
        if not ancillary and not flags & _BAD:  # most packets
            return (data, (), None) if data else None
        fds, sender, problem = _control_data(ancillary)
        numbers = iter(fds)
        for _ in fds:
            owned.append(OwnedFd(numbers=numbers))
    except BaseException as error:
        for _, ancillary, _, _ in answers:
            for fd in _control_data(ancillary)[0] if numbers is None else numbers:  # those that have no owner yet
                os.close(fd)
        if isinstance(error, (ConnectionError, TimeoutError)) and not raised_by_handler(error):
            raise _gone(error) from error
        raise
    taken = False
    try:
        if problem or flags & _BAD or len(owned) > most:
            raise _refusal(problem, flags, len(owned), most, data)
        taken = bool(data)
    finally:
        if not taken:
            for one in owned:
                dispose(one.take())
    if owned and min(fds) < OwnedFd.first:
        owned = [one.above_standard_streams() for one in owned]
    return (data, owned, sender) if data else None


def _gone(error: OSError) -> PeerGoneError:
    return PeerGoneError(f"the other end has gone: {error}")


def _control_data(ancillary: _Ancillary) -> tuple[array[int], Credentials | None, str]:
    """Return the file descriptors in control data, its sender, if that was requested, and what may not be in it.

    A trailing part of an int cannot be a file descriptor.
    """
    numbers, sender, problem = array("i"), None, ""
    for level, kind, payload in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) & -_INT.size])
        elif level == _SOL_SOCKET and kind == _SCM_CREDENTIALS and len(payload) == _UCRED.size:
            sender = Credentials(*_UCRED.unpack(payload))
        else:
            problem = problem or f"control data of level {level}, type {kind} came with a message; none may"
    return numbers, sender, problem


def _refusal(problem: str, flags: int, count: int, most: int, data: bytes) -> Exception:
    """Return the error to raise for a packet that is truncated, or has control data that it may not have."""
    if flags & _CTRUNC and (not count or most == MAX_FDS):
        full = TableFullError(
            errno.EMFILE, "a file descriptor could not be received: this process has too many open files"
        )
        full.data = data
        return full
    if flags & _CTRUNC:
        problem = f"control data was cut off: more than {most} file descriptor came with one message"
    elif flags & _TRUNC:
        problem = f"a message is longer than {MAX_MESSAGE} bytes"
    return PeerProtocolError(problem or f"{count} file descriptors came with one message, at most {most} may")


def credentials_of(sock: socket.socket) -> Credentials:
    """Return SO_PEERCRED: the process that connected, at the time of connecting."""
    return Credentials(*_UCRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size)))


def uid_of(sock: socket.socket) -> int:
    """Return the user of `credentials_of` alone: it is needed for every handle that comes."""
    uid: int = _UCRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size))[1]
    return uid


def groups_of(sock: socket.socket) -> frozenset[int]:
    """Return SO_PEERGROUPS: the supplementary groups of the process that connected."""
    item = struct.Struct("I")
    room = 64
    while True:
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, room * item.size)
        except OSError as error:
            # ERANGE: more groups than room; Linux allows 65536 at most.
            if room > 65_536:
                raise PeerGoneError(f"the kernel does not report the peer's groups: {error}") from error
            room *= 8
            continue
        return frozenset(gid for (gid,) in item.iter_unpack(raw))
