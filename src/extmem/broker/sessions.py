"""The broker's state of one client's connection."""

from __future__ import annotations

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

__all__ = ["Session"]

_SEND_ROOM = 65_536
"""Bytes that may wait unread in the kernel. A client that reads its replies never has more than one reply there."""
_QUEUE_LIMIT = 4
"""Number of replies that may wait here beyond those. A client has one request in flight, so more are never due."""


class Made(msgspec.Struct, frozen=True, eq=False):
    """What a request created, so that it can be undone if its reply does not arrive. 0 and None mean: not created.

    A msgspec Struct, because it is created quickly: each opening by name creates one.
    """

    reference: int = 0
    payload: int = 0
    held: int = 0
    """The modes of the file descriptors of `payload` that the client had before."""
    handle: int = 0
    process: int = 0
    """The process that has the handle; 0 is the sender."""
    closed: int = 0
    """A handle that was closed. Its value must not be reused while the sender may still treat it as open."""
    ticket: int = 0
    claimed: Claimed | None = None
    wait: int = 0
    """A wait for a name."""
    child: Session | None = None


class Session:
    """A connection and its state. Ownership: `close` closes the socket and every queued file descriptor."""

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
        "replaced",
        "secret",
        "served",
        "snapshot",
        "sock",
        "stalled",
        "strange",
        "token",
    )

    def __init__(self, sock: socket.socket, now: float, *, process: int = 0, descendant: bool = False) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_ROOM // 2)  # the kernel doubles it
        self.sock = sock
        self.fd = sock.fileno()
        self.opened = now
        self.process = process
        """The object manager's id; 0 before `Hello`, unless the process is a descendant that has not connected yet."""
        self.descendant = descendant
        """Whether it is a child created by `Inherit` that has not sent Hello."""
        self.answered = False
        """Whether Hello was received and `Welcome` sent."""
        self.announcing = False
        """Whether it was a client of a killed broker, and may announce."""
        self.proven: dict[tuple[int, int], set[tuple[int, bool]]] = {}
        """Payload and object of the records that it announced → rights, and whether as an exporter."""
        self.charged = 0
        """Number of file descriptors that are charged to its accounts for the connection itself."""
        self.pidfd = -1
        """The pidfd of its process; -1 where the kernel does not provide one."""
        self.key: ProcessKey | None = None
        """The identity of its process."""
        self.secret = b""
        """The secret with which another connection of the process may continue this one."""
        self.served = 0
        """Number of requests after Hello that were replied to."""
        self.made: Made | None = None
        """What the last of them created."""
        self.replaced = False
        """Whether its last request may have replaced an object; not known yet is whether it has got the reply."""
        self.credentials = transport.Credentials(0, 0, 0)
        self.token = Token(0, 0, frozenset())
        self.held: dict[int, int] = {}
        """Payload → modes (READ_ONLY, READ_WRITE bits) of the file descriptors that the client has."""
        self.held_room = 256
        """Number of entries from which on those of ended payloads are removed."""
        self.attached: list[int] = []
        """File descriptors of the payload that its next request exports (`AttachFds`), charged to its accounts."""
        self.queue: deque[tuple[bytes, Sequence[int], Made | None]] = deque()
        self.stalled = 0.0
        """The time since which the client has not read its replies; 0 if it reads them."""
        self.dispose: Callable[[int], None] = os.close
        """Closes a file descriptor that it sent."""
        self.strange = False
        """Whether it has sent a file that cannot be a payload."""
        self.snapshot: SnapshotPages | None = None
        """The snapshot that is being sent to it in pages."""
        self.parked = False
        """Whether a request waits for the end of the recovery window: nothing is read from it until then."""
        if descendant:
            # The credentials of the socket pair are the broker's; the child's come with its first message.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        else:
            self.identify(transport.credentials_of(sock), transport.groups_of(sock))

    def identify(self, credentials: transport.Credentials, groups: frozenset[int]) -> None:
        """Set the credentials, as the kernel reports them."""
        self.credentials = credentials
        self.token = Token(credentials.uid, credentials.gid, groups)

    @property
    def ready(self) -> bool:
        """Whether a request may be read and answered now."""
        return not self.queue and not self.parked

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a reply. If the client does not read, the reply is queued, and `stalled` is set.

        Raises as `transport.send_many`, except BlockingIOError; OSError where the file descriptors cannot be sent
        or duplicated; PeerGoneError also for a client that never reads.
        """
        if self.queue:
            self.wait(data, fds)
            return
        try:
            transport.send_many(self.sock, data, fds)
        except BlockingIOError:
            self.wait(data, fds)

    def wait(self, data: bytes, fds: Sequence[int]) -> None:
        """Queue a reply."""
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
        """Send the queued replies, as far as the client reads.

        Raises as `transport.send_many`, except BlockingIOError; OSError where the file descriptors of the first reply
        cannot be sent (see `replace_first`).
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
        """Close the connection."""
        while self.attached:
            self.dispose(self.attached.pop())
        self.dispose = os.close  # the former value refers to this session
        self.snapshot = None
        while self.queue:
            _close_all(self.queue.popleft()[1])
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = -1
        self.sock.close()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
