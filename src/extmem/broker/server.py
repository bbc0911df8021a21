"""The broker's loop: one thread, epoll, a little for everybody in turn.

How this works. Level-triggered epoll says who has something to say; each gets one message served, so that nobody can
keep the others waiting by talking a lot. Whatever a client does wrong costs it its own connection and nothing else: it
gets one `Fault` with the reason, if it reads, and is dropped; all it held is closed. A client that does not read its
replies is not listened to meanwhile, and dropped after `PATIENCE` seconds.

`_tick` is for all that depends on time; `_wake` says when it is due. What else the broker does is in the classes below
this one: `listening`, `replying`, `greeting`, `recovery`.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import math
import os
import socket
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
"""Descriptors that are served in one turn of the loop; those that are left come first in the next one."""
_SETTLE: Final = 0.05
"""Seconds without a change before the broker looks what became of its place: whoever cleans up has finished then."""
_HANDOVER: Final = 5.0
"""Seconds for which a broker that has lost its place tries to tell the one that has it."""


class Server(Recovering):
    """One broker. Ownership: the listening socket, the place and everything that clients send are closed by `close`."""

    def __init__(
        self,
        place: OwnedDirectory,
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
    ) -> None:
        everybody = place.directory.system
        super().__init__(
            listener, model, journal, signer, window, quota, tickets, instance=instance, everybody=everybody
        )
        self._directory = place
        self._idle = idle
        self._dispatch.handlers[wire.GetStatus] = self._status
        self._dispatch.handlers[wire.Stop] = self._stop
        self._started = self._wake = time.monotonic()
        self._look_at = math.inf
        self._lost_since = 0.0
        self._longest = 0.0
        self._leaving = False
        self._signals_in, self._signals_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._attend(self._signals_in, self._signalled)
        self._watch_place()

    @property
    def signal_fd(self) -> int:
        """Whatever is written here (`signal.set_wakeup_fd`) makes the broker leave."""
        return self._signals_out

    def run(self) -> None:
        """Serve until it is time to leave: idle, told to, or by a signal."""
        poll, monotonic = self._epoll.poll, time.monotonic
        sessions, turn, work = self._sessions, self._turn, self._background
        pieces = work.pieces
        ended = monotonic()
        while not self._leaving:
            wake = self._wake
            if pieces:
                events = poll(0, _EVENTS)
            elif wake == math.inf:
                events = poll(-1, _EVENTS)
            else:
                events = poll(max(0.0, wake - ended), _EVENTS)
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
        """Leave. The socket's path goes first: who comes now finds nobody and starts a new broker."""
        if self._directory.intact():
            self._directory.leave()
            self._journal.close()
        super().close()
        self._payloads.close()
        self._tickets.close()
        self._directory.close()
        for fd in (self._signals_in, self._signals_out):
            os.close(fd)

    @staticmethod
    def _guarded(action: Callable[[], None]) -> None:
        """Do something that concerns no client in particular: whatever becomes of it, the broker goes on."""
        try:
            action()
        except Exception:  # noqa: BLE001  (a bug, or the system's refusal, must not take everybody's broker away)
            traceback.print_exc(file=sys.stderr)

    def _signalled(self) -> None:
        self._leaving = True

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
        except Exception as error:  # noqa: BLE001  (a bug that one client meets must not take the others' broker away)
            traceback.print_exc(file=sys.stderr)
            self._fault(
                session, f"the broker failed on this request ({type(error).__name__}: {error}); please report it"
            )

    def _poor(self, session: Session, error: OSError) -> None:
        """The system refuses us something, most likely a descriptor. That is not the client's fault."""
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
                raise PeerProtocolError("a file descriptor came with Hello, none belongs to it")
            self._hello(session, request, sender)
        elif session.descendant:
            raise PeerProtocolError(f"{type(request).__name__} came before Hello on an inherited connection")
        else:
            self._answer(session, request, received, b"")

    # -- the broker itself --------------------------------------------------------------------------------------------

    def _clients_besides(self, session: Session) -> int:
        """Clients besides the one that asks: its connection, or those of its process if it asks without Hello."""
        greeted = [other for other in self._sessions.values() if other.answered]
        if session.answered:
            return len(greeted) - 1
        return sum(1 for other in greeted if other.key is None or other.key != session.key)

    def _stop(self, session: Session, request: wire.Stop, received: Sequence[OwnedFd]) -> Answer:
        others = self._clients_besides(session)
        if not others or request.force:
            self._leaving = True
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
        )
        return reply, ()

    # -- the place ----------------------------------------------------------------------------------------------------

    def _watch_place(self) -> None:
        if self._directory.watch >= 0:
            self._attend(self._directory.watch, self._changed)
        else:
            self._look_at = time.monotonic() + CHECK_INTERVAL
            self._wake_at(self._look_at)

    def _changed(self) -> None:
        """Something has changed in the runtime directory. Our own doings are among it."""
        self._directory.drain()
        if not self._directory.intact():
            self._look_at = time.monotonic() + _SETTLE
            self._wake_at(self._look_at)

    def _look(self, now: float) -> None:
        """Take the place again, if it is not ours any more."""
        watch = self._directory.watch
        if self._directory.intact():
            self._look_at = math.inf if watch >= 0 else now + CHECK_INTERVAL
            return
        self._lost_since = self._lost_since or now
        self._look_at = now + CHECK_INTERVAL
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
            self._look_at = math.inf
        else:
            self._others.pop(watch, None)

    def _hand_over(self, now: float) -> None:
        """Another broker has the place. It is told that our clients are about to come, and we leave."""
        if hand_over(self._directory.directory, self._signer.key) or now >= self._lost_since + _HANDOVER:
            self._leaving = True
        else:
            self._look_at = now + _SETTLE

    # -- time ---------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        self._wake = math.inf
        self._accept_again(now)
        if now >= self._look_at:
            self._look(now)
        if self._look_at < math.inf:
            self._wake_at(self._look_at)
        self._step_recovery(now)
        self._tickets.expire(now)
        self._dispatch.collect()
        deadline = self._tickets.next_deadline
        if deadline is not None:
            self._wake_at(deadline)
        for session in list(self._sessions.values()):
            since = session.stalled or (0.0 if session.answered or session.descendant else session.opened)
            if since and now >= since + PATIENCE:
                self._fault(
                    session, "you took too long to say Hello" if not session.stalled else "you do not read your replies"
                )
            elif since:
                self._wake_at(since + PATIENCE)
        if self._sessions or len(self._payloads) or self._window.active:
            return
        if now >= self._empty_since + self._idle:
            self._accept()  # whoever waits at the door is let in rather than locked out
            self._leaving = not self._sessions
            self._empty_since = now
        self._wake_at(self._empty_since + self._idle)
