"""Sending replies: if a reply cannot be sent, what its request created is undone.

How this works. A request changes the object manager's state before its reply is sent. If the reply cannot be sent (the
kernel does not take another file descriptor, or this process cannot duplicate one), what the request created is undone
and the client is sent a refusal. So a client never holds something that it has no reply for. The same is done for a
client that lost its reply and continues over another connection (`greeting`).
"""

from __future__ import annotations

import functools
import itertools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Final

from extmem import wire
from extmem.broker.announcements import Loop, no_descriptors
from extmem.broker.background import BackgroundWork
from extmem.broker.client_journal import Journal
from extmem.broker.dispatch import Dispatch
from extmem.broker.fd_quota import FdQuota
from extmem.broker.listening import IN, OUT, PATIENCE, Listening
from extmem.broker.open_cache import OpenCache
from extmem.broker.payload_fds import PayloadFds
from extmem.broker.sessions import Session
from extmem.broker.signing import Signer
from extmem.broker.tickets import Tickets
from extmem.objects import ObjectManager

__all__ = ["Replying"]

_OWNING_REPLIES: Final = (wire.Channel, wire.SnapshotFile, wire.Awaited, wire.NamesPage)
"""Replies whose file descriptor was created for them: it is closed here once it is sent."""


class Replying(Listening):
    """The object manager, and the replies to requests."""

    def __init__(
        self,
        listener: socket.socket,
        model: ObjectManager,
        journal: Journal,
        signer: Signer,
        quota: FdQuota,
        tickets: Tickets,
        *,
        everybody: bool,
    ) -> None:
        super().__init__(listener, journal, quota, everybody=everybody)
        self._signer = signer
        self._background = BackgroundWork()
        self._model = model
        self._payloads = PayloadFds(self._closer, quota)
        self._tickets = tickets
        self._open_cache = OpenCache(model, self._payloads)
        loop = Loop(
            self._watch,
            self._add_descendant,
            self._drop,
            self._wake_at,
            self._open_cache.clear,
            self._attend,
            self._disregard,
        )
        self._dispatch = Dispatch(
            model, self._payloads, self._tickets, self._closer, signer, quota, time.monotonic, loop
        )

    def _ended(self, session: Session) -> None:
        """End all that a client held."""
        if session.process:
            if session.key is not None and self._dispatch.processes.get(session.key) == session.process:
                del self._dispatch.processes[session.key]
            self._dispatch.end_waits(session.process)
            self._quota.end(session.process)
            ending = itertools.chain(
                self._dispatch.signalers.ended(session.process), self._model.detaching(session.process)
            )
            self._background.add(self._collecting(ending))
        if not self._sessions:
            self._open_cache.clear()

    def _watch(self, pidfd: int) -> None:
        """Wait for the end of a process that tickets are bound to."""
        self._attend(pidfd, functools.partial(self._process_ended, pidfd))

    def _process_ended(self, pidfd: int) -> None:
        self._others.pop(pidfd, None)
        self._background.add(self._collecting(self._tickets.died(pidfd)))

    def _collecting(self, steps: Iterator[None]) -> Iterator[None]:
        """Carry out the steps, and `collect` what they end."""
        for _ in steps:
            self._dispatch.collect()
            yield
        self._dispatch.collect()

    def _reply(self, session: Session, reply: wire.Reply, fds: Sequence[int], *, counts: bool = True) -> None:
        """Send a reply, with borrowed file descriptors.

        counts: whether the request counts as one that was replied to (`Session.served`). Raises PeerGoneError, or
        OSError where nothing can be sent: the caller must drop the session then.
        """
        try:
            session.send(wire.encode(reply), fds)
        except ConnectionError:
            raise
        except OSError as error:
            self._undo(session)
            session.send(_refusal(error))
        finally:
            if fds and isinstance(reply, _OWNING_REPLIES):
                for fd in fds:
                    os.close(fd)
        session.served += counts
        if session.queue:
            self._stall(session)

    def _undo(self, session: Session) -> None:
        made, session.made = session.made, None
        if made is not None:
            self._dispatch.undo(session, made)
            self._dispatch.collect()

    def _stall(self, session: Session) -> None:
        self._epoll.modify(session.fd, OUT)
        self._wake_at(session.stalled + PATIENCE)

    def _waiting(self, session: Session, event: int) -> None:
        """Handle an event of a session that is not read from now: it can take a reply again, or has disconnected."""
        if not event & OUT:
            self._drop(session)
            return
        try:
            session.flush()
        except ConnectionError:
            raise
        except OSError as error:
            made = session.replace_first(_refusal(error))
            if made is not None:
                self._dispatch.undo(session, made)
                self._dispatch.collect()
            session.flush()
        if session.ready:
            self._epoll.modify(session.fd, IN)


def _refusal(error: OSError) -> bytes:
    refusal = no_descriptors(error)
    return wire.encode(wire.Refusal(refusal.status, refusal.detail))
