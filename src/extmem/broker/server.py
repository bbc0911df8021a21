"""The broker's loop: one thread with epoll, which serves one message of each client in turn.

How this works. Level-triggered epoll reports which clients have sent something. One message of each is served in a
turn, so that a client with many messages does not delay the others. A client that violates the protocol loses its own
connection and nothing else changes: it is sent one `Fault` with the reason, if it reads, and is dropped; all that it
held is closed. A client that does not read its replies is not read from, and is dropped after `PATIENCE` seconds.

`_tick` does all that depends on time; `_wake` is the time at which it is due. The rest is in the base classes:
`listening`, `replying`, `greeting`, `recovery`.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from extmem import wire
from extmem.broker.announcements import no_descriptors
from extmem.broker.client_journal import Journal, RecoveryWindow
from extmem.broker.dispatch import Answer
from extmem.broker.fd_quota import FdQuota
from extmem.broker.listening import PATIENCE
from extmem.broker.object_notes import ObjectNotes
from extmem.broker.owned_directory import CHECK_INTERVAL, DirectoryLostError, OwnedDirectory, hand_over
from extmem.broker.recovery import Recovering
from extmem.broker.sessions import Session
from extmem.broker.signing import Signer, restore_key
from extmem.broker.tickets import Tickets
from extmem.errors import PeerGoneError, PeerProtocolError, UnsupportedError
from extmem.objects import ObjectManager
from extmem.owning import OwnedFd
from extmem.wire.transport import Credentials, receive_many

__all__ = ["Server"]


_EVENTS: Final = 64
"""Number of file descriptors that are served in one turn of the loop; the others come first in the next one."""
_LONGEST_WAIT: Final = 86_400.0
"""Seconds of one wait. epoll accepts at most 2**31 milliseconds; the loop waits again for what is due later."""
_SETTLE: Final = 0.05
"""Seconds without a change before the broker checks its directory: the program that cleans up has finished then."""
_HANDOVER: Final = 5.0
"""Seconds for which a broker that has lost its directory tries to notify the broker that has it."""


class Server(Recovering):
    """One broker. Ownership: `close` closes the listening socket, the directory's files and all that clients sent."""

    def __init__(
        self,
        directory: OwnedDirectory,
        listener: socket.socket,
        model: ObjectManager,
        *,
        instance: int,
        idle: float,
        journal: Journal,
        window: RecoveryWindow,
        signer: Signer,
        quota: FdQuota,
        tickets: Tickets,
        notes: ObjectNotes,
    ) -> None:
        everybody = directory.directory.system
        super().__init__(
            listener, model, journal, signer, window, quota, tickets, instance=instance, everybody=everybody
        )
        self._directory = directory
        self._idle = idle
        self._notes = self._dispatch.notes = notes
        model.superseded_before, model.forgotten_before = notes.superseded, notes.forgotten
        self._dispatch.handlers[wire.GetStatus] = self._status
        self._dispatch.handlers[wire.Stop] = self._stop
        self._started = self._wake = time.monotonic()
        self._check_at = math.inf
        self._lost_since = 0.0
        self._longest = 0.0
        self._ending = False
        self._signals_in, self._signals_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._attend(self._signals_in, self._signalled)
        self._watch_directory()

    @property
    def signal_fd(self) -> int:
        """A byte that is written here (`signal.set_wakeup_fd`) ends the broker."""
        return self._signals_out

    def run(self) -> None:
        """Serve until the broker is idle, or a `Stop` or a signal ends it."""
        poll, monotonic = self._epoll.poll, time.monotonic
        sessions, turn, work = self._sessions, self._turn, self._background
        pieces = work.pieces
        ended = monotonic()
        while not self._ending:
            wake = self._wake
            if pieces:
                events = poll(0, _EVENTS)
            elif wake == math.inf:
                events = poll(-1, _EVENTS)
            else:
                events = poll(min(max(0.0, wake - ended), _LONGEST_WAIT), _EVENTS)
            began = monotonic()
            for fd, event in events:
                session = sessions.get(fd)
                if session is not None:
                    turn(session, event)
                elif fd in self._others:
                    self._guarded(self._others[fd])
            if pieces:
                self._guarded(work.step)
            if began >= self._wake:
                self._guarded(self._tick)
            ended = monotonic()
            if ended - began > self._longest:
                self._longest = ended - began

    def close(self) -> None:
        """End. The socket's path is removed first: a client that comes now starts a new broker."""
        if self._directory.intact():
            self._directory.leave()
            self._notes.close(remove=not self._sessions)
            self._journal.close()
        self._notes.close(remove=False)
        self._dispatch.close()
        super().close()
        self._payloads.close()
        self._tickets.close()
        self._directory.close()
        for fd in (self._signals_in, self._signals_out):
            os.close(fd)

    @staticmethod
    def _guarded(action: Callable[[], None]) -> None:
        """Do something that does not concern a certain client. If it fails, the broker continues."""
        try:
            action()
        except Exception:  # noqa: BLE001  (a bug, or a refusal of the system, must not end the broker of all clients)
            traceback.print_exc(file=sys.stderr)

    def _signalled(self) -> None:
        self._ending = True

    # -- one turn -----------------------------------------------------------------------------------------------------

    def _turn(self, session: Session, event: int) -> None:
        try:
            if session.queue or session.parked:
                self._waiting(session, event)
                return
            packet = receive_many(session.sock, credentials=session.descendant, dispose=session.dispose)
            if packet is None:
                self._drop(session)
                return
            data, received, sender = packet
            if not received and session.answered:
                if self._open_cache.serve(data, session):
                    if session.queue:
                        self._stall(session)
                    return
                self._answer(session, wire.decode_request(data), (), data)
                return
            with contextlib.ExitStack() as owned:
                if received:
                    owned.callback(self._dispose_unless_parked, session, received)
                if session.answered:
                    self._answer(session, wire.decode_request(data), received, data)
                else:
                    self._meet(session, wire.decode_request(data), received, sender)
        except BlockingIOError:
            return
        except PeerProtocolError as error:
            self._fault(session, str(error))
        except PeerGoneError:
            self._drop(session)
        except OSError as error:
            self._poor(session, error)
        except Exception as error:  # noqa: BLE001  (a bug must not end the broker of the other clients)
            traceback.print_exc(file=sys.stderr)
            self._fault(
                session, f"the broker failed on this request ({type(error).__name__}: {error}); please report it"
            )

    def _poor(self, session: Session, error: OSError) -> None:
        """Reply that the system refused something, most likely a file descriptor. That is not the client's fault."""
        refusal = no_descriptors(error)
        try:
            self._reply(session, wire.Refusal(refusal.status, refusal.detail), ())
        except (PeerGoneError, OSError):
            self._drop(session)

    def _dispose_unless_parked(self, session: Session, received: Sequence[OwnedFd]) -> None:
        if not session.parked:
            self._dispose(session, received)

    def _meet(
        self, session: Session, request: wire.Request, received: Sequence[OwnedFd], sender: Credentials | None
    ) -> None:
        """Answer the first message: Hello, or a request about the broker itself."""
        if isinstance(request, wire.Hello):
            if received:
                raise PeerProtocolError("a file descriptor came with Hello; Hello does not take one")
            self._hello(session, request, sender)
        elif session.descendant:
            raise PeerProtocolError(f"{type(request).__name__} came before Hello on an inherited connection")
        else:
            self._answer(session, request, received, b"")

    # -- the broker itself --------------------------------------------------------------------------------------------

    def _clients_besides(self, session: Session) -> int:
        """Return the number of other clients.

        A session without Hello is not one, and the others of its process do not count.
        """
        greeted = [other for other in self._sessions.values() if other.answered]
        if session.answered:
            return len(greeted) - 1
        return sum(1 for other in greeted if other.key is None or other.key != session.key)

    def _stop(self, session: Session, request: wire.Stop, received: Sequence[OwnedFd]) -> Answer:
        others = self._clients_besides(session) + self._model.kept_count()
        if not others or request.force:
            self._ending = True
            others = 0
        return wire.Value(others), ()

    def _status(self, session: Session, request: wire.GetStatus, received: Sequence[OwnedFd]) -> Answer:
        with open("/proc/self/statm", "rb") as file:
            resident = int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
        quota = self._quota
        reply = wire.BrokerState(
            os.getpid(),
            wire.PROTOCOL_VERSION,
            int((time.monotonic() - self._started) * 1000),
            sum(1 for other in self._sessions.values() if other.answered),
            len(self._payloads),
            self._payloads.fds,
            resident,
            self._instance,
            quota.limit,
            quota.used,
            quota.reserve,
            quota.client_share,
            quota.user_share,
            int(self._longest * 1_000_000),
            self._model.kept_count(),
            self._model.wait_count(),
        )
        return reply, ()

    # -- the directory ------------------------------------------------------------------------------------------------

    def _watch_directory(self) -> None:
        if self._directory.watch >= 0:
            self._attend(self._directory.watch, self._changed)
        else:
            self._check_at = time.monotonic() + CHECK_INTERVAL
            self._wake_at(self._check_at)

    def _changed(self) -> None:
        """Handle a change in the runtime directory, which may be the broker's own."""
        self._directory.drain()
        if not self._directory.intact():
            self._check_at = time.monotonic() + _SETTLE
            self._wake_at(self._check_at)

    def _check_directory(self, now: float) -> None:
        """Take the directory again, if the lock or the socket is not this broker's any more."""
        watch = self._directory.watch
        if self._directory.intact():
            self._check_at = math.inf if watch >= 0 else now + CHECK_INTERVAL
            return
        self._lost_since = self._lost_since or now
        self._check_at = now + CHECK_INTERVAL
        try:
            self._listen_at(self._directory.restore())
        except DirectoryLostError:
            self._hand_over(now)
            return
        except (OSError, UnsupportedError) as error:
            print(f"{self._directory.directory.path} cannot be taken again now: {error}", file=sys.stderr)  # noqa: T201
            return
        self._lost_since = 0.0
        restore_key(self._directory.directory, self._signer.key)
        self._journal.rewrite()
        if self._directory.watch >= 0:
            self._check_at = math.inf
        else:
            self._others.pop(watch, None)

    def _hand_over(self, now: float) -> None:
        """Notify the broker that has the directory now that this broker's clients will connect to it, and end."""
        if hand_over(self._directory.directory, self._signer.key) or now >= self._lost_since + _HANDOVER:
            self._ending = True
        else:
            self._check_at = now + _SETTLE

    # -- time ---------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        self._wake = math.inf
        self._accept_again(now)
        if now >= self._check_at:
            self._check_directory(now)
        if self._check_at < math.inf:
            self._wake_at(self._check_at)
        self._step_recovery(now)
        self._tickets.expire(now)
        self._dispatch.end_times(now)
        self._dispatch.collect()
        deadline = self._tickets.next_deadline
        if deadline is not None:
            self._wake_at(deadline)
        for session in list(self._sessions.values()):
            since = session.stalled or (0.0 if session.answered or session.descendant else session.opened)
            if since and now >= since + PATIENCE:
                self._fault(
                    session,
                    "you took too long to send Hello" if not session.stalled else "you do not read your replies",
                )
            elif since:
                self._wake_at(since + PATIENCE)
        if self._sessions or len(self._payloads) or self._window.active:
            return
        if now >= self._empty_since + self._idle:
            self._accept()  # a connection that waits is accepted rather than refused
            self._ending = not self._sessions
            self._empty_since = now
        self._wake_at(self._empty_since + self._idle)
