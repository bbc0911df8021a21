"""Answering requests, and the recovery window after a broker was killed.

How this works. While the window is open (`client_journal.RecoveryWindow`), clients of the killed broker may begin to
announce what they held. Requests that would take a name, list what exists or report that something does not exist are
parked: the client gets its answer when the window has closed. The window closes when all clients of the killed broker
have announced, and after two seconds at most. A client that has begun in time may finish (`FINISH`); the announcements
of all others are refused.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import Final

from extmem import wire
from extmem.broker.announcements import no_descriptors
from extmem.broker.client_journal import Journal, RecoveryWindow
from extmem.broker.dispatch import Answer
from extmem.broker.fd_quota import FdQuota
from extmem.broker.greeting import Greeting
from extmem.broker.listening import IN, MAX_DETAIL
from extmem.broker.rights import permit
from extmem.broker.sessions import Session
from extmem.broker.signing import Signer
from extmem.broker.tickets import Tickets
from extmem.errors import PeerGoneError, PeerProtocolError
from extmem.objects import ObjectKind, ObjectManager, Refused
from extmem.owning import OwnedFd

__all__ = ["FINISH", "Recovering"]

FINISH: Final = 30.0
"""Seconds after its start until which a broker takes announcements from clients that began in the window."""
_STEP: Final = 0.02
_MEMORY: Final = int(ObjectKind.MEMORY)
_SEEKING: Final = (wire.ImportName, wire.ImportKmt, wire.OpenHandle, wire.Claim, wire.KmtAlive)
"""Requests whose refusal, while the window is open, may only mean that the holder has not announced yet."""


class Recovering(Greeting):
    """The answering of requests, at once or when the window has closed."""

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
        super().__init__(
            listener, model, journal, signer, window, quota, tickets, instance=instance, everybody=everybody
        )
        self._parked: list[tuple[Session, wire.Request, Sequence[OwnedFd], bytes]] = []
        self._own_uid = os.geteuid()
        self._finish = time.monotonic() + FINISH
        if not window.active:
            journal.rewrite()
        self._dispatch.handlers[wire.Announced] = self._announced
        self._dispatch.handlers[wire.Follow] = self._follow_another

    # -- answering ----------------------------------------------------------------------------------------------------

    def _answer(self, session: Session, request: wire.Request, received: Sequence[OwnedFd], data: bytes) -> None:
        """Answer a request other than Hello, at once or later.

        `FetchFds` belongs to the request before it: it is not counted, and if it is refused, that request is undone.
        """
        if len(received) != wire.fds_of(request):
            raise PeerProtocolError(
                f"{len(received)} file descriptors came with {type(request).__name__}, {wire.fds_of(request)} belong "
                "to it"
            )
        reply: wire.Reply
        sent: Sequence[int] = ()
        fetches = request.__class__ is wire.FetchFds
        if not fetches:
            session.made = None
            if session.replaced:
                self._dispatch.settle(session)
        try:
            permit(
                request,
                session.token.uid,
                own=self._own_uid,
                greeted=session.answered,
                recovering=session.announcing,
            )
            if self._window.active and self._parks(session, request, received, data):
                return
            reply, sent = self._dispatch.answer(session, request, received)
            if (
                isinstance(reply, wire.Imported)
                and isinstance(request, wire.ImportName)
                and request.object_kind == _MEMORY
            ):
                # The pages of semaphores and fences must be recorded for each process, which the cache does not do.
                self._open_cache.remember(data, session, reply)
        except Refused as refusal:
            reply = wire.Refusal(refusal.status, refusal.detail[:MAX_DETAIL])
        except OSError as error:
            poor = no_descriptors(error)
            reply = wire.Refusal(poor.status, poor.detail)
        if fetches and reply.__class__ is wire.Refusal:
            self._undo(session)
        self._reply(session, reply, sent, counts=not fetches and reply.__class__ is not wire.Attached)
        self._dispatch.collect()

    # -- the window ---------------------------------------------------------------------------------------------------

    def _parks(self, session: Session, request: wire.Request, received: Sequence[OwnedFd], data: bytes) -> bool:
        """Park the request until the window closes, if its answer could differ by then.

        Return whether it was handled.
        """
        if isinstance(request, wire.Duplicate):
            if not received or self._dispatch.target(received[0]):
                return False
        elif isinstance(request, wire.AnnounceRecord):
            if not request.wait or self._dispatch.knows(request):
                return False
        elif isinstance(request, _SEEKING):
            try:
                reply, sent = self._dispatch.answer(session, request, received)
            except Refused:
                pass  # it may not have been announced yet: answered when the window has closed
            else:
                if not (isinstance(request, wire.KmtAlive) and reply == wire.Value(0)):
                    self._reply(session, reply, sent)
                    return True
        elif not isinstance(request, wire.Export | wire.Snapshot):
            return False
        session.parked = True
        self._parked.append((session, request, received, data))
        self._epoll.modify(session.fd, 0)
        return True

    def _retire(self, session: Session) -> None:
        for entry in self._parked:
            if entry[0] is session:
                for fd in entry[2]:
                    session.dispose(fd.take())
        self._parked = [entry for entry in self._parked if entry[0] is not session]
        super()._retire(session)

    def _announced(self, session: Session, request: wire.Announced, received: Sequence[OwnedFd]) -> Answer:
        self._end_announcing(session)
        return wire.Done(), ()

    def _follow_another(self, session: Session, request: wire.Follow, received: Sequence[OwnedFd]) -> Answer:
        """Open the window again for the clients of a broker that had this directory before and is ending."""
        now = time.monotonic()
        self._signer.trust(request.key)
        if self._dispatch.notes is not None:
            self._dispatch.notes.read()
        self._window = RecoveryWindow(None, now)
        self._finish = now + FINISH
        self._wake_at(now)
        return wire.Done(), ()

    def _end_announcing(self, session: Session) -> None:
        session.announcing = False
        session.proven.clear()
        self._background.add(self._collecting(self._model.finishing(session.process)))
        self._window.announced(session.credentials.pid)
        self._wake_at(time.monotonic())

    def _step_recovery(self, now: float) -> None:
        """Close the window when it is over, and end the announcing of clients that have not finished in time."""
        if self._window.active:
            if not self._window.step(now):
                self._wake_at(now + _STEP)
                self._release_parked(known=True)
                return
            self._journal.rewrite()
            self._background.add(self._dispatch.signalers.recovered())
            self._release_parked()
        if now < self._finish:
            return
        for session in [session for session in self._sessions.values() if session.announcing]:
            self._end_announcing(session)

    def _release_parked(self, *, known: bool = False) -> None:
        """Answer the parked requests. known: only announcements whose payload has been announced by now."""
        parked, self._parked = self._parked, []
        for entry in parked:
            session, request, received, data = entry
            if known and not (isinstance(request, wire.AnnounceRecord) and self._dispatch.knows(request)):
                self._parked.append(entry)
                continue
            if session.fd not in self._sessions:
                for fd in received:
                    session.dispose(fd.take())
                continue
            session.parked = False
            try:
                self._epoll.modify(session.fd, IN)
                self._answer(session, request, received, data)
            except PeerProtocolError as error:
                self._fault(session, str(error))
            except (PeerGoneError, OSError):
                self._drop(session)
            finally:
                self._dispose(session, received)

    def _dispose(self, session: Session, received: Sequence[OwnedFd]) -> None:
        """Close the file descriptors that came with a request, unless they were taken."""
        self._dispatch.dispose(session, [fd.take() for fd in received if fd.owes])
        if session.strange and self._closer.crowded(session.token.uid):
            self._fault(
                session, "the files that you sent take too long to close; do not send file descriptors of such files"
            )
