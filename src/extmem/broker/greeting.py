"""Hello: of a new client, of a child that inherits, or of a client that continues over another connection.

How this works. A client that did not get a reply in time, or was interrupted while it waited, does not have the result
of its last request. It abandons that connection and makes another, whose `Hello` contains the secret from `Welcome` and
the number of replies that it has received. The broker moves everything to the new connection. If it has carried out one
request more than that, what this request created is undone, because its reply is lost. Requests that were not read from
the old connection are dropped with it.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from extmem import wire
from extmem.broker.client_journal import Journal, RecoveryWindow
from extmem.broker.fd_quota import CLIENT, FdQuota
from extmem.broker.listening import MAX_CLIENTS
from extmem.broker.processes import pidfd_of_pid
from extmem.broker.replying import Replying
from extmem.broker.sessions import Session
from extmem.broker.signing import Signer
from extmem.broker.tickets import Tickets
from extmem.errors import PeerProtocolError
from extmem.objects import ObjectManager, Refused, Token
from extmem.wire.process_start import start_time
from extmem.wire.transport import Credentials

__all__ = ["Greeting"]

_SECRET: Final = 16
_HIGHEST: Final = 0x3000_0000
"""The highest value above which a client may have its handles begin: handle values have bits 30 and 31 clear."""


class Greeting(Replying):
    """The handling of Hello."""

    def __init__(
        self,
        listener: socket.socket,
        model: ObjectManager,
        journal: Journal,
        signer: Signer,
        window: RecoveryWindow,
        quota: FdQuota,
        tickets: Tickets,
        *,
        instance: int,
        everybody: bool,
    ) -> None:
        super().__init__(listener, model, journal, signer, quota, tickets, everybody=everybody)
        self._instance = instance
        self._window = window
        self._secrets: dict[bytes, Session] = {}

    def _retire(self, session: Session) -> None:
        if self._secrets.get(session.secret) is session:
            del self._secrets[session.secret]
        super()._retire(session)

    def _hello(self, session: Session, request: wire.Hello, sender: Credentials | None) -> None:
        if request.version != wire.PROTOCOL_VERSION:
            raise PeerProtocolError(
                f"this broker speaks version {wire.PROTOCOL_VERSION} of the wire format and this process version "
                f"{request.version}: they are of different versions of extmem, which share nothing. Use the same "
                "version of extmem in both processes"
            )
        inherited = session.descendant
        old = None if inherited else self._earlier(session, request)
        done, reference, handle = False, 0, 0
        if old is not None:
            done, reference, handle = self._go_on(session, old, old.served - request.received)
        else:
            self._arrive(session, sender)
            session.secret = os.urandom(_SECRET)
            session.announcing = request.announcing and self._window.active
            above = request.above if session.announcing else max(request.above, request.highest)
            if 0 < above <= _HIGHEST and not inherited:
                self._model.begin_handles_above(session.process, above)
        session.answered = True
        self._newcomers.pop(session.fd, None)
        self._secrets[session.secret] = session
        pid = session.credentials.pid
        if session.key is not None:
            self._dispatch.processes[session.key] = session.process
        self._journal.add(session.fd, pid)
        if not session.announcing:
            self._window.announced(pid)
        session.send(
            wire.encode(
                wire.Welcome(
                    wire.PROTOCOL_VERSION,
                    self._instance,
                    os.getpid(),
                    inherited,
                    session.secret,
                    old is not None,
                    done,
                    reference,
                    handle,
                    session.announcing,
                    int(min(self._tickets.seconds + 1, 0xFFFF_FFFF)),
                )
            )
        )

    def _earlier(self, session: Session, request: wire.Hello) -> Session | None:
        """Return the connection that this one continues: of the same user, with at most one reply not received."""
        old = self._secrets.get(request.resume) if request.resume else None
        if old is None or old.token.uid != session.token.uid or old.served - request.received not in (0, 1):
            return None
        return old

    def _go_on(self, session: Session, old: Session, lost: int) -> tuple[bool, int, int]:
        """Move everything to this connection. Return whether the last request was carried out and its reply lost, and
        the reference and the handle that it created, which are undone.
        """
        made = old.made if lost else None
        if made is not None:
            self._dispatch.undo(old, made)
        session.process, session.token, session.secret = old.process, old.token, old.secret
        session.served = old.served - lost
        session.charged, old.charged = old.charged, 0
        if old.replaced:
            self._model.settle(old.process)
        self._retire(old)
        self._dispatch.collect()
        own = made is not None and not made.process
        return bool(lost), made.reference if made is not None else 0, made.handle if made is not None and own else 0

    def _arrive(self, session: Session, sender: Credentials | None) -> None:
        """Register a client. Raises PeerProtocolError if there are too many."""
        if sum(1 for other in self._sessions.values() if other.answered) >= MAX_CLIENTS:
            raise PeerProtocolError(f"this broker has {MAX_CLIENTS} clients, which is its limit; end some")
        if session.descendant:
            self._adopt(session, sender)
        else:
            pid = session.credentials.pid
            session.process = self._model.attach(session.token, pid, start_time(pid))
        try:
            self._quota.take(session.token.uid, session.process, CLIENT)
        except Refused as refusal:
            raise PeerProtocolError(refusal.detail) from None
        session.charged = CLIENT

    def _adopt(self, session: Session, sender: Credentials | None) -> None:
        if sender is None:
            raise PeerProtocolError("an inherited connection's first message came without credentials")
        session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        session.descendant = False
        parent = session.token
        self._quota.give(parent.uid, session.process, session.charged)
        session.charged = 0
        groups = parent.groups if (sender.uid, sender.gid) == (parent.uid, parent.gid) else frozenset[int]()
        session.credentials = sender
        self._follow(session, pidfd_of_pid(sender.pid))
        token = Token(sender.uid, sender.gid, groups)
        session.token = self._tokens.setdefault(token, token)
        self._model.adopt(session.process, session.token, sender.pid, start_time(sender.pid))
