"""The broker's loop: one thread, epoll, a little for everybody in turn.

How this works. Level-triggered epoll says who has something to say; each gets one message served (in a crowd, some
messages in a row: `crowd`), so that nobody can keep the others waiting by talking a lot. Whatever a client does wrong
costs it its own connection and nothing else: it gets one `Fault` with the reason, if it reads, and is dropped; all it
held is closed. A client that does not read its replies is not listened to meanwhile, and dropped after `PATIENCE`
seconds.

For the time of a grace (`journal`), requests that would take a name, list what is there or say that something is not
are parked: the client simply gets its answer later. `_tick` is for all that depends on time; `_wake` says when it is
due.
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
from typing import Final

from extmem.broker import transport, wire
from extmem.broker.announcing import no_descriptors
from extmem.broker.crowd import Crowd
from extmem.broker.descriptors import OwnedFd
from extmem.broker.dispatch import Answer, Dispatch
from extmem.broker.journal import Grace, Journal
from extmem.broker.listening import IN, MAX_DETAIL, OUT, PATIENCE, Listening
from extmem.broker.paths import RuntimeDir
from extmem.broker.payloads import Payloads
from extmem.broker.quick import QuickOpens
from extmem.broker.sessions import Session
from extmem.broker.tickets import Tickets
from extmem.broker.transport import receive
from extmem.errors import PeerGoneError, PeerProtocolError
from extmem.objects import ObjectManager, Refused, Token

__all__ = ["Server"]

_GRACE_STEP: Final = 0.02

_SEEKING: Final = (wire.ImportName, wire.ImportKmt, wire.OpenHandle, wire.Claim, wire.KmtAlive)
"""While a grace lasts, a refusal of these may only mean that the one who holds the thing has not announced it yet."""
_GIVEN_AWAY: Final = (wire.Channel, wire.SnapshotFile)
"""Replies whose descriptor was made for them: it is closed here once it is sent."""


class Server(Listening):
    """One broker. Ownership: the listening socket and everything that clients send are closed by `close`."""

    def __init__(
        self,
        directory: RuntimeDir,
        listener: socket.socket,
        model: ObjectManager,
        *,
        instance: int,
        idle: float,
        journal: Journal,
        grace: Grace,
    ) -> None:
        super().__init__(listener, journal, everybody=directory.system)
        self._directory = directory
        self._model = model
        self._instance = instance
        self._idle = idle
        self._grace = grace
        self._payloads = Payloads()
        self._tickets = Tickets(model)
        self._quick = QuickOpens(model, self._payloads)
        self._dispatch = Dispatch(model, self._payloads, self._tickets, time.monotonic)
        self._dispatch.watch_process = self._watch
        self._dispatch.add_descendant = self._add_descendant
        self._dispatch.wake_at = self._wake_at
        self._dispatch.payload_changed = self._quick.clear
        self._dispatch.handlers.update(
            {wire.Announced: self._announced, wire.GetStatus: self._status, wire.Stop: self._stop}
        )
        self._left += [self._forget_parked, self._detach]
        self._crowd = Crowd(self._sessions, self._turn)
        self._parked: list[tuple[Session, wire.Request, OwnedFd | None, bytes]] = []
        self._started = self._wake = time.monotonic()
        self._leaving = False
        self._signals_in, self._signals_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._signals_in, IN)

    @property
    def signal_fd(self) -> int:
        """Whatever is written here (`signal.set_wakeup_fd`) makes the broker leave."""
        return self._signals_out

    def run(self) -> None:
        """Serve until it is time to leave: idle, told to, or by a signal."""
        poll = self._epoll.poll
        monotonic = time.monotonic
        sessions = self._sessions
        turn = self._turn
        crowd = self._crowd
        while not self._leaving:
            wake = self._wake
            if wake == math.inf:
                events = poll()
            else:
                now = monotonic()
                if now >= wake:
                    self._tick(now)
                    continue
                events = poll(wake - now)
            if crowd.gathers(len(events)):
                crowd.serve(events, self._other)
                continue
            for fd, event in events:
                session = sessions.get(fd)
                if session is not None:
                    turn(session, event)
                else:
                    self._other(fd)

    def close(self) -> None:
        """Leave. The socket's path goes first: who comes now finds nobody and starts a new broker."""
        self._directory.socket.unlink(missing_ok=True)
        self._journal.close()
        super().close()
        self._crowd.close()
        self._payloads.close()
        self._tickets.close()
        for fd in (self._signals_in, self._signals_out):
            os.close(fd)

    # -- clients ------------------------------------------------------------------------------------------------------

    def _other(self, fd: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd == self._signals_in:
            self._leaving = True
        elif self._tickets.watches(fd):
            self._tickets.died(fd)
            self._dispatch.collect()

    def _detach(self, session: Session) -> None:
        if session.process:
            if self._dispatch.processes.get(session.credentials.pid) == session.process:
                del self._dispatch.processes[session.credentials.pid]
            self._model.detach(session.process)
            self._dispatch.collect()
        if not self._sessions:
            self._quick.clear()

    # -- one turn -----------------------------------------------------------------------------------------------------

    def _turn(self, session: Session, event: int) -> None:
        try:
            if session.queue or session.parked:
                self._waiting(session, event)
                return
            packet = receive(session.sock, credentials=True) if session.descendant else receive(session.sock)
            if packet is None:
                self._drop(session)
                return
            data, fd, sender = packet
            if fd is None and session.answered:
                if self._quick.serve(data, session):
                    if session.queue:
                        self._stall(session)
                    return
                self._answer(session, wire.decode_request(data), None, data)
                return
            with contextlib.ExitStack() as owned:
                if fd is not None:
                    owned.callback(self._close_unless_parked, session, fd)
                if session.answered:
                    self._answer(session, wire.decode_request(data), fd, data)
                else:
                    self._meet(session, wire.decode_request(data), fd, sender)
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
            self._reply(session, wire.Refusal(refusal.status, refusal.detail), None)
        except (PeerGoneError, OSError):
            self._drop(session)

    @staticmethod
    def _close_unless_parked(session: Session, fd: OwnedFd) -> None:
        if not session.parked:
            fd.close()

    def _waiting(self, session: Session, event: int) -> None:
        """Nothing is read from this one now, so it has room for a reply again, or has hung up."""
        if not event & OUT:
            self._drop(session)
            return
        session.flush()
        if session.ready:
            self._epoll.modify(session.fd, IN)

    def _answer(self, session: Session, request: wire.Request, fd: OwnedFd | None, data: bytes) -> None:
        if (fd is not None) is not (request.__class__ in wire.FDS):
            raise PeerProtocolError(
                f"{int(fd is not None)} file descriptors came with {type(request).__name__}, "
                f"{wire.fds_of(request)} belong to it"
            )
        reply: wire.Reply
        sent = None
        try:
            if self._grace.active and self._parks(session, request, fd, data):
                return
            reply, sent = self._dispatch.answer(session, request, fd)
            if reply.__class__ is wire.Imported and request.__class__ is wire.ImportName:
                self._quick.remember(data, session, reply)
        except Refused as refusal:
            reply = wire.Refusal(refusal.status, refusal.detail[:MAX_DETAIL])
        except OSError as error:
            poor = no_descriptors(error)
            reply = wire.Refusal(poor.status, poor.detail)
        self._reply(session, reply, sent)
        self._dispatch.collect()

    def _reply(self, session: Session, reply: wire.Reply, fd: int | None) -> None:
        try:
            session.send(wire.encode(reply), fd)
        finally:
            if fd is not None and isinstance(reply, _GIVEN_AWAY):
                os.close(fd)
        if session.queue:
            self._stall(session)

    def _stall(self, session: Session) -> None:
        self._epoll.modify(session.fd, OUT)
        self._wake_at(session.stalled + PATIENCE)

    def _meet(
        self, session: Session, request: wire.Request, fd: OwnedFd | None, sender: transport.Credentials | None
    ) -> None:
        """The first message: Hello, or a question about the broker itself."""
        if fd is not None or not isinstance(request, wire.Hello | wire.GetStatus | wire.Stop):
            raise PeerProtocolError(f"{type(request).__name__} came before Hello, or with a file descriptor")
        if not isinstance(request, wire.Hello):
            self._reply(session, *self._dispatch.answer(session, request, None))
            return
        if request.version != wire.PROTOCOL_VERSION:
            raise PeerProtocolError(
                f"this broker speaks version {wire.PROTOCOL_VERSION} of the wire format, you speak {request.version}. "
                "Run `extmem broker stop` with one of the two installed alone; the other's broker then starts by itself"
            )
        inherited = session.descendant
        if inherited:
            self._adopt(session, sender)
        else:
            session.process = self._model.attach(session.token, session.credentials.pid)
        session.answered = True
        pid = session.credentials.pid
        self._dispatch.processes[pid] = session.process
        self._journal.add(session.fd, pid)
        if not request.announcing:
            self._grace.announced(pid)
        self._reply(session, wire.Welcome(wire.PROTOCOL_VERSION, self._instance, os.getpid(), inherited), None)

    def _adopt(self, session: Session, sender: transport.Credentials | None) -> None:
        if sender is None:
            raise PeerProtocolError("an inherited connection's first message came without credentials")
        session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        session.descendant = False
        parent = session.token
        groups = parent.groups if (sender.uid, sender.gid) == (parent.uid, parent.gid) else frozenset[int]()
        session.credentials = sender
        token = Token(sender.uid, sender.gid, groups)
        session.token = self._tokens.setdefault(token, token)
        self._model.adopt(session.process, session.token, sender.pid)

    def _others(self, session: Session) -> int:
        return sum(1 for other in self._sessions.values() if other.answered and other is not session)

    def _stop(self, session: Session, request: wire.Stop, fd: OwnedFd | None) -> Answer:
        others = self._others(session)
        if not others or request.force:
            self._leaving = True
            others = 0
        return wire.Value(others), None

    def _status(self, session: Session, request: wire.GetStatus, fd: OwnedFd | None) -> Answer:
        with open("/proc/self/statm", "rb") as file:
            resident = int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
        reply = wire.BrokerState(
            os.getpid(),
            wire.PROTOCOL_VERSION,
            int((time.monotonic() - self._started) * 1000),
            self._others(session) + session.answered,
            len(self._payloads),
            self._payloads.fds,
            resident,
            self._instance,
        )
        return reply, None

    # -- the grace after a killed broker ------------------------------------------------------------------------------

    def _parks(self, session: Session, request: wire.Request, fd: OwnedFd | None, data: bytes) -> bool:
        """Put the request aside until the grace ends, if its answer could be another by then."""
        if isinstance(request, wire.Duplicate):
            if request.into in (None, session.credentials.pid) or request.into in self._dispatch.processes:
                return False
        elif isinstance(request, _SEEKING):
            try:
                reply, sent = self._dispatch.answer(session, request, fd)
            except Refused:
                pass  # perhaps only not announced yet: asked again when all have
            else:
                if not (isinstance(request, wire.KmtAlive) and reply == wire.Value(0)):
                    self._reply(session, reply, sent)
                    return True
        elif not isinstance(request, wire.Export | wire.Snapshot):
            return False
        session.parked = True
        self._parked.append((session, request, fd, data))
        self._epoll.modify(session.fd, 0)
        return True

    def _forget_parked(self, session: Session) -> None:
        for entry in self._parked:
            if entry[0] is session and entry[2] is not None:
                entry[2].close()
        self._parked = [entry for entry in self._parked if entry[0] is not session]

    def _announced(self, session: Session, request: wire.Announced, fd: OwnedFd | None) -> Answer:
        self._model.restore_done(session.process)
        self._grace.announced(session.credentials.pid)
        self._wake_at(time.monotonic())
        return wire.Done(), None

    def _release_parked(self) -> None:
        parked, self._parked = self._parked, []
        for session, request, fd, data in parked:
            if session.fd not in self._sessions:
                continue
            session.parked = False
            self._epoll.modify(session.fd, IN)
            try:
                self._answer(session, request, fd, data)
            except PeerProtocolError as error:
                self._fault(session, str(error))
            except PeerGoneError:
                self._drop(session)
            finally:
                if fd is not None:
                    fd.close()

    # -- time ---------------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self._wake = math.inf
        if self._grace.active:
            if self._grace.step(now):
                self._release_parked()
            else:
                self._wake_at(now + _GRACE_STEP)
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
        if self._sessions or len(self._payloads) or self._grace.active:
            return
        if now >= self._empty_since + self._idle:
            self._accept()  # whoever waits at the door is let in rather than locked out
            self._leaving = not self._sessions
            self._empty_since = now
        self._wake_at(self._empty_since + self._idle)
