"""One client's connection, as the broker sees it."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import socket
import time
from collections import deque

from extmem.broker import transport
from extmem.broker.transport import Credentials
from extmem.errors import PeerGoneError
from extmem.objects import Token

__all__ = ["Session"]

_SEND_ROOM = 65_536
"""Bytes that may wait unread in the kernel: a client that reads its replies never has more than one there."""
_QUEUE_LIMIT = 4
"""Replies that may wait here beyond those. A client has one request in flight, so a fifth is never due."""


class Session:
    """A connection and what belongs to it. Ownership: the socket and every queued descriptor are closed by `close`."""

    __slots__ = (
        "answered",
        "credentials",
        "descendant",
        "favoured",
        "fd",
        "held",
        "opened",
        "parked",
        "process",
        "queue",
        "shy",
        "shyness",
        "sock",
        "stalled",
        "token",
    )

    def __init__(self, sock: socket.socket, now: float, *, process: int = 0, descendant: bool = False) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_ROOM // 2)  # the kernel doubles it
        self.sock = sock
        self.fd = sock.fileno()
        self.opened = now
        self.process = process
        """The object manager's id; 0 before `Hello`, unless the process is a descendant that is still to show up."""
        self.descendant = descendant
        """A child made by `Inherit` that has not said Hello."""
        self.answered = False
        """Hello has been said and welcomed."""
        self.credentials = Credentials(0, 0, 0)
        self.token = Token(0, 0, frozenset())
        self.held: dict[int, int] = {}
        """Payload → modes (READ_ONLY, READ_WRITE bits) of the descriptors that the client has."""
        self.queue: deque[tuple[bytes, int]] = deque()
        self.stalled = 0.0
        """Since when the client has not read its replies; 0 when it does."""
        self.favoured = self.shy = 0
        self.shyness = 1
        """For `crowd`: when it had the favour last, how many turns it goes without, and how many the next time."""
        self.parked = False
        """A request of it waits for the grace to end: nothing more is read from it until then."""
        if descendant:
            # The pair's credentials are the broker's own; the child's come with its first message.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        else:
            self.identify(transport.credentials_of(sock), transport.groups_of(sock))

    def identify(self, credentials: Credentials, groups: frozenset[int]) -> None:
        """Who it is, by the kernel's word."""
        self.credentials = credentials
        self.token = Token(credentials.uid, credentials.gid, groups)

    @property
    def ready(self) -> bool:
        """Whether a request of it may be read and answered now."""
        return not self.queue and not self.parked

    def send(self, data: bytes, fd: int | None) -> None:
        """Send a reply; if the client does not read, it waits in the queue, and `stalled` says since when.

        Raises as `transport.send`, but for BlockingIOError; PeerGoneError too for a client that never reads.
        """
        if self.queue:
            self.wait(data, fd)
            return
        try:
            transport.send(self.sock, data, fd)
        except BlockingIOError:
            self.wait(data, fd)

    def wait(self, data: bytes, fd: int | None) -> None:
        """Put a reply into the queue."""
        if len(self.queue) >= _QUEUE_LIMIT:
            raise PeerGoneError("a client does not read its replies")
        self.queue.append((data, -1 if fd is None else os.dup(fd)))
        self.stalled = self.stalled or time.monotonic()

    def flush(self) -> None:
        """Send what is queued, as far as the client reads."""
        while self.queue:
            data, fd = self.queue[0]
            try:
                transport.send(self.sock, data, None if fd < 0 else fd)
            except BlockingIOError:
                return
            self.queue.popleft()
            if fd >= 0:
                os.close(fd)
        self.stalled = 0.0

    def close(self) -> None:
        """Hang up."""
        while self.queue:
            _, fd = self.queue.popleft()
            if fd >= 0:
                os.close(fd)
        self.sock.close()
