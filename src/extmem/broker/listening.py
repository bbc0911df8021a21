"""Who is connected: accepting, adding and dropping clients, and what the loop waits for.

How this works. `Listening` owns the listening socket, the epoll object and all sessions. Whatever a client does wrong
costs it its own connection and nothing else: it gets one `Fault` with the reason, if it reads, and is dropped; all
it held is closed.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import math
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from extmem.broker import wire
from extmem.broker.journal import Journal
from extmem.broker.sessions import Session
from extmem.errors import PeerGoneError
from extmem.objects import Token

__all__ = ["IN", "MAX_CLIENTS", "MAX_DETAIL", "OUT", "PATIENCE", "Listening"]

PATIENCE: Final = 5.0
"""Seconds that a client may take to say Hello, or to read a reply that does not fit into the socket any more."""
MAX_CLIENTS: Final = 4_096
MAX_DETAIL: Final = 3_000
"""Characters of a refusal's or fault's text."""
IN: Final = int(select.EPOLLIN)
OUT: Final = int(select.EPOLLOUT)


class Listening:
    """The connections. Ownership: the listening socket and all sessions are closed by `close`."""

    def __init__(self, listener: socket.socket, journal: Journal, *, everybody: bool) -> None:
        self._listener = listener
        self._journal = journal
        self._everybody = everybody
        self._sessions: dict[int, Session] = {}
        self._tokens: dict[Token, Token] = {}
        """One object per user, so that tokens can be compared by identity."""
        self._left: list[Callable[[Session], None]] = []
        """Whom to tell that a session has been dropped."""
        self._wake = math.inf
        # Whoever started this broker is on the way to it: a second of patience, however little idleness is allowed.
        self._empty_since = time.monotonic() + 1.0
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        listener.setblocking(False)
        self._epoll.register(listener.fileno(), IN)

    def close(self) -> None:
        """Hang up on everybody."""
        self._listener.close()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._epoll.close()
        os.close(self._spare)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            self._refuse_one()
            return
        now = time.monotonic()
        try:
            session = Session(sock, now)
        except (OSError, PeerGoneError):
            sock.close()
            return
        self._add(session, now)
        uid = session.credentials.uid
        if len(self._sessions) > MAX_CLIENTS:
            self._fault(session, f"this broker has {MAX_CLIENTS} clients already, as many as it serves; end some")
        elif not self._everybody and uid not in (0, os.geteuid()):
            self._fault(session, f"this broker serves user {os.geteuid()} alone, you are user {uid}")

    def _refuse_one(self) -> None:
        # Out of descriptors: with the spare one the caller is at least taken from the queue and hung up on; it would
        # otherwise keep the loop awake for nothing.
        os.close(self._spare)
        try:
            sock, _ = self._listener.accept()
            sock.close()
        except OSError:
            pass  # nobody waits any more
        finally:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _add(self, session: Session, now: float) -> None:
        session.token = self._tokens.setdefault(session.token, session.token)
        self._sessions[session.fd] = session
        self._epoll.register(session.fd, IN)
        self._wake_at(now + PATIENCE)

    def _add_descendant(self, sock: socket.socket, process: int, parent: Session) -> None:
        now = time.monotonic()
        session = Session(sock, now, process=process, descendant=True)
        session.token = parent.token
        self._add(session, now)

    def _drop(self, session: Session) -> None:
        if self._sessions.pop(session.fd, None) is None:
            return
        session.close()  # epoll forgets a closed descriptor by itself
        self._journal.remove(session.fd)
        for told in self._left:
            told(session)
        if not self._sessions:
            self._tokens.clear()
            self._empty_since = time.monotonic()
            self._wake_at(self._empty_since)

    def _fault(self, session: Session, detail: str) -> None:
        try:
            session.send(wire.encode(wire.Fault(detail[:MAX_DETAIL])), None)
        except (PeerGoneError, OSError):
            pass  # it does not listen; it is dropped either way
        self._drop(session)

    def _watch(self, pidfd: int) -> None:
        self._epoll.register(pidfd, IN)

    def _wake_at(self, when: float) -> None:
        self._wake = min(self._wake, when)
