"""Sending fd handles, with the descriptor of the payload, through a Unix socket of the program.

One message contains one handle: the fd is sent with SCM_RIGHTS, and the descriptor of its payload in the data. The
object manager is not involved, so there is no name and no NT handle, and only the two processes are required.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from extmem.arguments import a_type
from extmem.errors import PeerGoneError, PeerProtocolError, UnsupportedError
from extmem.handles import FdHandle
from extmem.handles.fd_payload import FdPayload
from extmem.owning import out_of_descriptors
from extmem.sharing.kinds import Backing
from extmem.wire import transport

if sys.platform != "linux":
    raise ImportError("sockets carry file descriptors only on Linux; use extmem.process, which checks the platform")

__all__ = ["receive_handle", "send_handle", "send_unchecked"]


class _Message(msgspec.Struct, array_like=True, frozen=True):
    format: int
    payload: FdPayload | None


_FORMAT = 1
# The plain numbers behind `socket.family` and `socket.type`, which create an enum member at each access.
_family, _type = socket.SocketType.family.__get__, socket.SocketType.type.__get__
_UNIX, _SEQPACKET = int(socket.AF_UNIX), int(socket.SOCK_SEQPACKET)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


def send_handle(sock: socket.socket, handle: FdHandle) -> None:
    """`extmem.process.send_handle`."""
    _check(sock)
    if not isinstance(handle, FdHandle):
        raise TypeError(f"handle is {handle!r}, {a_type(handle)}; give an FdHandle (extmem.raw.fd_handle(fd))")
    with handle.use() as owned:
        transport.send(sock, _encode(_Message(_FORMAT, handle.payload)), owned.fd)


def send_unchecked(sock: socket.socket, fd: int, descriptor: bytes) -> None:
    """`extmem.raw.send_payload`. The descriptor was not checked against the fd, so the receiver has to check it."""
    _check(sock)
    payload = FdPayload(descriptor, int(Backing.DRIVER_FD), 0, True, trusted=False)
    transport.send(sock, _encode(_Message(_FORMAT, payload)), fd)


def receive_handle(sock: socket.socket) -> FdHandle:
    """`extmem.process.receive_handle`."""
    _check(sock)
    try:
        packet = transport.receive(sock)
    except OSError as error:
        raise out_of_descriptors(error, "recvmsg") from None
    if packet is None:
        raise PeerGoneError("the other end of the socket is closed, and no handle was received")
    data, owned = packet
    if owned is None:
        raise PeerProtocolError(
            "received a message without a file descriptor; the peer has to use extmem.process.send_handle"
        )
    try:
        message = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(
            f"the data received with a file descriptor is not the description of a handle: {error}; the peer has to "
            "use extmem.process.send_handle"
        ) from error
    if message.format != _FORMAT:
        raise PeerProtocolError(
            f"the peer sends handles in format {message.format}, and this extmem reads {_FORMAT}; update the older one"
        )
    payload = message.payload
    # The flag is valid only if the peer runs as this user.
    if payload is not None and payload.trusted and transport.uid_of(sock) != os.getuid():
        payload = msgspec.structs.replace(payload, trusted=False)
    return FdHandle(owned, payload)


def _check(sock: socket.socket) -> None:
    if not isinstance(sock, socket.SocketType):
        raise TypeError(f"sock is {sock!r}, {a_type(sock)}; give a Unix socket (SOCK_SEQPACKET)")
    if _family(sock) != _UNIX or _type(sock) != _SEQPACKET:
        raise UnsupportedError(
            f"a handle cannot be sent through {sock.family.name}, {sock.type.name}: only Unix sockets carry file "
            "descriptors, and only SOCK_SEQPACKET keeps messages whole; use socket.socketpair(AF_UNIX, SOCK_SEQPACKET)",
            requires_one_of=["AF_UNIX with SOCK_SEQPACKET"],
        )
