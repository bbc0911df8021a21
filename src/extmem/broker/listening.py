"""The connections: accepting, adding and dropping clients, and the descriptors that the loop waits for.

How this works. `Listening` owns the listening socket, the epoll object and all sessions. A client that violates the
protocol loses its own connection and nothing else changes: it is sent one `Fault` with the reason, if it reads, and is
dropped; all that it held is closed. The same happens where the system refuses something for one client: a file
descriptor, a watch, or a pidfd.

Where no connection can be accepted at all (the system has no files or memory left), accepting pauses for `_PAUSE`
seconds. Where this process has no file descriptor left, a spare one is closed to accept the connection, send it a
`Fault` and close it. Connections that have not sent Hello are not charged to an account yet (`fd_quota`) and use the
reserve. If there are too many of them, the oldest is closed, because a client sends its first message at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from extmem import wire
from extmem.broker.client_journal import Journal
from extmem.broker.fd_closer import FdCloser
from extmem.broker.fd_quota import FdQuota
from extmem.broker.processes import key_of, pidfd_of_peer
from extmem.broker.sessions import Session
from extmem.errors import PeerGoneError
from extmem.objects import Refused, Token
from extmem.wire import transport
from extmem.wire.peers import admits

__all__ = ["IN", "MAX_CLIENTS", "MAX_DETAIL", "OUT", "PATIENCE", "Listening"]

PATIENCE: Final = 5.0
"""Seconds that a client may take to send Hello, or to read a reply that does not fit into the socket any more."""
MAX_CLIENTS: Final = 4_096
MAX_DETAIL: Final = 3_000
"""Number of characters in the text of a refusal or fault, at most."""
IN: Final = int(select.EPOLLIN)
OUT: Final = int(select.EPOLLOUT)
_PAUSE: Final = 0.1
"""Seconds without accepting, after the system could not accept a connection."""


class Listening:
    """The connections. Ownership: the listening socket and all sessions are closed by `close`."""

    def __init__(self, listener: socket.socket, journal: Journal, quota: FdQuota, *, everybody: bool) -> None:
        self._listener = listener
        self._closer = FdCloser()
        self._quota = quota
        self._journal = journal
        self._everybody = everybody
        self._sessions: dict[int, Session] = {}
        self._newcomers: dict[int, Session] = {}
        """Sessions that have not sent Hello, oldest first."""
        self._others: dict[int, Callable[[], None]] = {}
        """The action for each other file descriptor, called when it is ready."""
        self._tokens: dict[Token, Token] = {}
        """One object per user, so that tokens can be compared by identity."""
        self._wake = math.inf
        self._paused = 0.0
        """The time until which no connection is accepted; 0 when accepting."""
        # The process that started this broker is about to connect: wait a second for it, however short the idle time
        # is.
        self._empty_since = time.monotonic() + 1.0
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._listen_at(listener)

    def close(self) -> None:
        """Close all connections."""
        self._listener.close()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._epoll.close()
        if self._spare >= 0:
            os.close(self._spare)

    # -- what the loop waits for --------------------------------------------------------------------------------------

    def _attend(self, fd: int, action: Callable[[], None]) -> None:
        """Wait for a file descriptor that is not a client's. Raises OSError where the system refuses."""
        self._epoll.register(fd, IN)
        self._others[fd] = action

    def _disregard(self, fd: int) -> None:
        """Stop waiting for a file descriptor, which the caller is about to close: that removes it from epoll."""
        self._others.pop(fd, None)

    def _listen_at(self, listener: socket.socket) -> None:
        """Accept from this socket, and close the former one."""
        if listener is not self._listener:
            self._others.pop(self._listener.fileno(), None)
            self._listener.close()
            self._listener = listener
        listener.setblocking(False)
        self._attend(listener.fileno(), self._accept)

    def _wake_at(self, when: float) -> None:
        self._wake = min(self._wake, when)

    # -- newcomers ----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            if error.errno != errno.EMFILE or not self._refuse_one():
                self._pause()
            return
        now = time.monotonic()
        try:
            session = Session(sock, now)
        except (OSError, PeerGoneError):
            sock.close()
            return
        uid = session.credentials.uid
        if not admits(uid, everybody=self._everybody):
            self._turn_away(session, f"this broker serves user {os.geteuid()} alone, you are user {uid}")
        elif self._closer.crowded(uid) and not admits(uid, everybody=False):
            self._turn_away(session, f"files that user {uid} has sent take too long to close; end what serves them")
        elif self._add(session, now):
            self._follow(session, pidfd_of_peer(sock, session.credentials.pid))

    def _refuse_one(self) -> bool:
        """Accept one connection with the spare file descriptor, and send it a `Fault`.

        Without this, the waiting connection would wake the loop again and again. Return whether it could be done.
        """
        if self._spare < 0:
            return False
        os.close(self._spare)
        self._spare = -1
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            pass  # no connection waits any more
        except OSError:
            return False
        else:
            fault = wire.Fault(
                "this broker has no file descriptor left; raise its limit (ulimit -n), or end some clients"
            )
            with sock, contextlib.suppress(OSError):
                transport.send(sock, wire.encode(fault))
        self._spare_again()
        return self._spare >= 0

    def _spare_again(self) -> None:
        if self._spare < 0:
            with contextlib.suppress(OSError):
                self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _pause(self) -> None:
        """Stop accepting for `_PAUSE` seconds."""
        self._epoll.modify(self._listener.fileno(), 0)
        self._paused = time.monotonic() + _PAUSE
        self._wake_at(self._paused)

    def _accept_again(self, now: float) -> None:
        """Accept again if the pause is over."""
        if not self._paused:
            return
        if now < self._paused:
            self._wake_at(self._paused)
            return
        self._paused = 0.0
        self._spare_again()
        self._epoll.modify(self._listener.fileno(), IN)

    def _add(self, session: Session, now: float) -> bool:
        """Serve a new connection. Return False if the system refuses; the connection is closed then."""
        session.token = self._tokens.setdefault(session.token, session.token)
        session.dispose = functools.partial(self._end_descriptor, session)
        try:
            self._epoll.register(session.fd, IN)
        except OSError as error:
            self._turn_away(session, f"the broker cannot wait for you ({error.strerror}); end some of its clients")
            return False
        self._sessions[session.fd] = session
        self._newcomers[session.fd] = session
        if len(self._newcomers) > max(4, self._quota.reserve // 4):
            oldest = next(iter(self._newcomers.values()))
            self._fault(oldest, "too many connections without Hello are open; send Hello at once")
        self._wake_at(now + PATIENCE)
        return session.fd in self._sessions

    def _turn_away(self, session: Session, detail: str) -> None:
        """Close a connection that has not been added."""
        with contextlib.suppress(PeerGoneError, OSError):
            session.send(wire.encode(wire.Fault(detail[:MAX_DETAIL])))
        session.close()

    def _follow(self, session: Session, pidfd: int) -> None:
        """Record which process this is.

        Its connection ends with it, even if another process has a copy of the socket.
        """
        if pidfd < 0:
            return
        session.pidfd = pidfd
        try:
            session.key = key_of(pidfd)
            self._attend(pidfd, functools.partial(self._drop, session))
        except Refused:
            self._drop(session)  # it has ended
        except OSError as error:
            self._fault(session, f"the broker cannot watch your process ({error.strerror}); end some of its clients")

    def _end_descriptor(self, session: Session, fd: int) -> None:
        session.strange |= self._closer.dispose(fd, session.token.uid)

    def _add_descendant(self, sock: socket.socket, process: int, parent: Session) -> Session | None:
        """Serve a child that will connect. Return None if the system refuses."""
        now = time.monotonic()
        session = Session(sock, now, process=process, descendant=True)
        session.token = parent.token
        if not self._add(session, now):
            return None
        del self._newcomers[session.fd]
        return session

    # -- the end of a connection --------------------------------------------------------------------------------------

    def _drop(self, session: Session) -> None:
        """Close the connection and end all that the client held."""
        if self._sessions.get(session.fd) is session:
            self._retire(session)
            self._ended(session)

    def _retire(self, session: Session) -> None:
        """Close the connection only."""
        del self._sessions[session.fd]
        self._newcomers.pop(session.fd, None)
        self._others.pop(session.pidfd, None)
        if session.attached:
            self._quota.give(session.token.uid, session.process, len(session.attached))
        session.close()  # epoll removes a closed descriptor by itself
        self._journal.remove(session.fd)
        if session.charged:
            self._quota.give(session.token.uid, session.process, session.charged)
            session.charged = 0
        if not self._sessions:
            self._tokens.clear()
            self._empty_since = time.monotonic()
            self._wake_at(self._empty_since)

    def _ended(self, session: Session) -> None:
        """End all that a client held. Subclasses, which have the model, override this."""

    def _fault(self, session: Session, detail: str) -> None:
        with contextlib.suppress(PeerGoneError, OSError):  # it does not read; it is dropped in any case
            session.send(wire.encode(wire.Fault(detail[:MAX_DETAIL])))
        self._drop(session)
