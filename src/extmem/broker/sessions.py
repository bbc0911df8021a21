"""One client's connection, as the broker sees it."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from extmem.broker.processes import ProcessKey
from extmem.broker.snapshot_pages import SnapshotPages
from extmem.errors import PeerGoneError
from extmem.objects import Claimed, Token
from extmem.wire import transport
from extmem.wire.transport import Credentials

__all__ = ["Session"]

_SEND_ROOM = 65_536
"""Bytes that may wait unread in the kernel: a client that reads its replies never has more than one there."""
_QUEUE_LIMIT = 4
"""Replies that may wait here beyond those. A client has one request in flight, so a fifth is never due."""


class Made(msgspec.Struct, frozen=True, eq=False):
    """What a request made, so that it can be undone if its reply does not arrive; what is 0 or None was not made.

    A Struct, which is quick to make: each opening by name makes one.
    """

    reference: int = 0
    payload: int = 0
    held: int = 0
    """The modes of the descriptors of `payload` that the client had before."""
    handle: int = 0
    process: int = 0
    """Whose handle; 0 is the sender's own."""
    closed: int = 0
    """A handle that was closed, whose value must not be given again while the sender may take it for open."""
    ticket: int = 0
    claimed: Claimed | None = None
    child: Session | None = None


class Session:
    """A connection and what belongs to it. Ownership: the socket and every queued descriptor are closed by `close`."""

    __slots__ = (
        "announcing",
        "answered",
        "attached",
        "charged",
        "credentials",
        "descendant",
        "dispose",
        "fd",
        "held",
        "held_room",
        "key",
        "made",
        "opened",
        "parked",
        "pidfd",
        "process",
        "proven",
        "queue",
        "secret",
        "served",
        "sock",
        "stalled",
        "strange",
        "telling",
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
        self.announcing = False
        """It follows a killed broker, and may announce."""
        self.proven: dict[tuple[int, int], set[tuple[int, bool]]] = {}
        """Payload and object of the records that it has announced → rights, and whether as an exporter."""
        self.charged = 0
        """Descriptors on its accounts for being there."""
        self.pidfd = -1
        """Of its process; -1 where there is none to be had."""
        self.key: ProcessKey | None = None
        """Which process it is."""
        self.secret = b""
        """What another connection of the process goes on for this one with."""
        self.served = 0
        """Requests after Hello that it was sent a reply to."""
        self.made: Made | None = None
        """What the last of them made."""
        self.credentials = Credentials(0, 0, 0)
        self.token = Token(0, 0, frozenset())
        self.held: dict[int, int] = {}
        """Payload → modes (READ_ONLY, READ_WRITE bits) of the descriptors that the client has."""
        self.held_room = 256
        """How many there may be before those of ended payloads are taken out."""
        self.attached: list[int] = []
        """Descriptors of the payload that its next request shares (`AttachFds`), charged to its accounts."""
        self.queue: deque[tuple[bytes, Sequence[int], Made | None]] = deque()
        self.stalled = 0.0
        """Since when the client has not read its replies; 0 when it does."""
        self.dispose: Callable[[int], None] = os.close
        """Closes a descriptor that it sent."""
        self.strange = False
        """It has sent a file that no driver gives."""
        self.telling: SnapshotPages | None = None
        """The snapshot that it is being sent in pages."""
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

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a reply. If the client does not read, the reply is queued, and `stalled` is the time since when.

        Raises as `transport.send_many`, except BlockingIOError; OSError where the descriptors cannot be sent or
        duplicated; PeerGoneError also for a client that never reads.
        """
        if self.queue:
            self.wait(data, fds)
            return
        try:
            transport.send_many(self.sock, data, fds)
        except BlockingIOError:
            self.wait(data, fds)

    def wait(self, data: bytes, fds: Sequence[int]) -> None:
        """Put a reply into the queue."""
        if len(self.queue) >= _QUEUE_LIMIT:
            raise PeerGoneError("a client does not read its replies")
        copies: list[int] = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))
        except OSError:
            _close_all(copies)
            raise
        self.queue.append((data, copies, self.made))
        self.stalled = self.stalled or time.monotonic()

    def flush(self) -> None:
        """Send what is queued, as far as the client reads. Raises as `transport.send_many`, except BlockingIOError, and
        OSError where the descriptors of the first reply cannot be sent (`replace_first`).
        """
        while self.queue:
            data, fds, _ = self.queue[0]
            try:
                transport.send_many(self.sock, data, fds)
            except BlockingIOError:
                return
            self.queue.popleft()
            _close_all(fds)
        self.stalled = 0.0

    def replace_first(self, data: bytes) -> Made | None:
        """Replace the first queued reply by one without descriptors. Return what the request of the old one created."""
        _, fds, made = self.queue.popleft()
        _close_all(fds)
        self.queue.appendleft((data, (), None))
        return made

    def close(self) -> None:
        """Hang up."""
        while self.attached:
            self.dispose(self.attached.pop())
        self.dispose = os.close  # the former value refers to this session
        self.telling = None
        while self.queue:
            _close_all(self.queue.popleft()[1])
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = -1
        self.sock.close()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
