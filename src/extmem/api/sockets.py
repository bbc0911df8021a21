"""An fd handle through a Unix socket of the program's own, with what extmem knows of its payload.

One message is one handle: the descriptor travels as SCM_RIGHTS, its payload's description beside it. The object manager
takes no part, so there is no name and no NT handle, and nothing but the two processes is needed.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from extmem.errors import PeerGoneError, PeerProtocolError, UnsupportedError
from extmem.handles import FdHandle, FdPayload
from extmem.owning import out_of_descriptors
from extmem.sharing.kinds import Backing
from extmem.wire import transport

if sys.platform != "linux":
    raise ImportError("descriptors go through sockets on Linux alone; extmem.api picks what the platform has")

__all__ = ["receive_handle", "send_handle", "send_stated"]


class _Message(msgspec.Struct, array_like=True, frozen=True):
    format: int
    payload: FdPayload | None


_FORMAT = 1
# What `socket.family` and `socket.type` make enum members of; these are asked for at every message.
_family, _type = socket.SocketType.family.__get__, socket.SocketType.type.__get__
_UNIX, _SEQPACKET = int(socket.AF_UNIX), int(socket.SOCK_SEQPACKET)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


def send_handle(sock: socket.socket, handle: FdHandle) -> None:
    """`extmem.process.send_handle`."""
    _check(sock)
    with handle.use() as owned:
        transport.send(sock, _encode(_Message(_FORMAT, handle.payload)), owned.fd)


def send_stated(sock: socket.socket, fd: int, descriptor: bytes) -> None:
    """`extmem.raw.send_payload`: what the description states was not seen here, so that the receiver proves it."""
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
        raise PeerGoneError("the other end of the socket is closed; no handle came")
    data, owned = packet
    if owned is None:
        raise PeerProtocolError("a message without a file descriptor came; the peer has to use extmem.send_handle")
    try:
        message = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"what came with a file descriptor is no handle's description: {error}") from error
    if message.format != _FORMAT:
        raise PeerProtocolError(
            f"the peer sends handles in format {message.format}, and this extmem reads {_FORMAT}; update the older one"
        )
    payload = message.payload
    if payload is not None:
        # What another user says of that counts for nothing.
        if payload.trusted and transport.uid_of(sock) != os.getuid():
            payload = msgspec.structs.replace(payload, trusted=False)
    return FdHandle(owned, payload)


def _check(sock: socket.socket) -> None:
    if _family(sock) != _UNIX or _type(sock) != _SEQPACKET:
        raise UnsupportedError(
            f"a handle cannot go through {sock.family.name}, {sock.type.name}: only a Unix socket carries descriptors, "
            "and only SOCK_SEQPACKET keeps messages whole; make it with socket.socketpair(AF_UNIX, SOCK_SEQPACKET)",
            requires_one_of=["AF_UNIX with SOCK_SEQPACKET"],
        )
