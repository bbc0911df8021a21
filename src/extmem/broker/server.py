"""The broker's loop: one thread, epoll, one message per client and turn.

How this works. Level-triggered epoll says who has something to say; each gets one message served, so that nobody can
keep the others waiting by talking a lot. Whatever a client does wrong costs it its own connection and nothing else:
it gets one `Fault` with the reason, if it reads, and is dropped; all it held is closed. A client that does not read
its replies is not listened to meanwhile, and dropped after `PATIENCE` seconds.

For the time of a grace (`journal`), requests that would take a name or say that something is not there are parked: the
client simply gets its answer later. `_tick` is for all that depends on time; `_wake` says when it is due.
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
import traceback
from typing import Final

from extmem.broker import transport, wire
from extmem.broker.descriptors import OwnedFd
from extmem.broker.dispatch import Dispatch
from extmem.broker.journal import Grace, Journal
from extmem.broker.paths import RuntimeDir
from extmem.broker.payloads import Payloads
from extmem.broker.quick import QuickOpens
from extmem.broker.sessions import Session
from extmem.broker.tickets import Tickets
from extmem.broker.transport import receive
from extmem.errors import PeerGoneError, PeerProtocolError
from extmem.objects import ObjectManager, Refused, Status, Token

__all__ = ["MAX_CLIENTS", "PATIENCE", "Server"]

PATIENCE: Final = 5.0
"""Seconds that a client may take to say Hello, or to read a reply that does not fit into the socket any more."""
MAX_CLIENTS: Final = 4_096
_DETAIL: Final = 3_000
_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_GRACE_STEP: Final = 0.02

_ANNOUNCING: Final = (
    wire.AnnouncePayload,
    wire.AnnounceObject,
    wire.AnnounceMemory,
    wire.AnnounceHandle,
    wire.AnnounceTicket,
    wire.AnnounceClaimed,
)
# While a grace lasts, a refusal of one of these may only mean that the one who holds it has not announced it yet.
_SEEKING: Final = (
    wire.ImportName,
    wire.ImportKmt,
    wire.OpenHandle,
    wire.Duplicate,
    wire.Claim,
    wire.KmtAlive,
)
_GIVEN_AWAY: Final = (wire.Channel, wire.SnapshotFile)
"""Replies whose descriptor was made for them: it is closed here once it is sent."""


class Server:
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
        self._directory = directory
        self._listener = listener
        self._model = model
        self._instance = instance
        self._idle = idle
        self._journal = journal
        self._grace = grace
        self._payloads = Payloads()
        self._tickets = Tickets(model)
        self._dispatch = Dispatch(model, self._payloads, self._tickets, time.monotonic)
        self._dispatch.watch_process = self._watch
        self._dispatch.add_descendant = self._add_descendant
        self._dispatch.wake_at = self._wake_at
        self._quick = QuickOpens(model, self._payloads)
        self._tokens: dict[Token, Token] = {}
        self._sessions: dict[int, Session] = {}
        self._parked: list[tuple[Session, wire.Request, OwnedFd | None, bytes]] = []
        self._started = time.monotonic()
        self._empty_since = self._started
        self._wake = self._started
        self._leaving = False
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._signals_in, self._signals_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll = select.epoll()
        listener.setblocking(False)
        self._epoll.register(listener.fileno(), _IN)
        self._epoll.register(self._signals_in, _IN)

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
            for fd, event in events:
                session = sessions.get(fd)
                if session is not None:
                    turn(session, event)
                else:
                    self._other(fd)

    def close(self) -> None:
        """Leave. The socket's path goes first: who comes now finds nobody and starts a new broker."""
        self._directory.socket.unlink(missing_ok=True)
        self._listener.close()
        self._journal.close()
        for session in list(self._sessions.values()):
            session.close()
        self._payloads.close()
        self._tickets.close()
        self._epoll.close()
        for fd in (self._signals_in, self._signals_out, self._spare):
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
        elif not self._directory.system and uid not in (0, os.geteuid()):
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
        self._epoll.register(session.fd, _IN)
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
        for _, _, fd, _ in [entry for entry in self._parked if entry[0] is session]:
            if fd is not None:
                fd.close()
        self._parked = [entry for entry in self._parked if entry[0] is not session]
        if session.process:
            if self._dispatch.processes.get(session.credentials.pid) == session.process:
                del self._dispatch.processes[session.credentials.pid]
            self._model.detach(session.process)
            self._dispatch.collect()
        if not self._sessions:
            self._tokens.clear()
            self._quick.clear()
            self._empty_since = time.monotonic()
            self._wake_at(self._empty_since + self._idle)

    def _fault(self, session: Session, detail: str) -> None:
        try:
            session.send(wire.encode(wire.Fault(detail[:_DETAIL])), None)
        except (PeerGoneError, OSError):
            pass  # it does not listen; it is dropped either way
        self._drop(session)

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
            if fd is None and session.answered and self._quick.serve(data, session):
                if session.queue:
                    self._stall(session)
                return
            try:
                request = wire.decode_request(data)
                if (fd is not None) != wire.fds_of(request):
                    raise PeerProtocolError(
                        f"{int(fd is not None)} file descriptors came with {type(request).__name__}, "
                        f"{wire.fds_of(request)} belong to it"
                    )
                if session.answered:
                    self._answer(session, request, fd, data)
                else:
                    self._meet(session, request, sender)
            finally:
                if fd is not None and not session.parked:
                    fd.close()
        except Refused as refusal:
            self._reply(session, wire.Refusal(refusal.status, refusal.detail[:_DETAIL]), None)
        except BlockingIOError:
            return
        except PeerProtocolError as error:
            self._fault(session, str(error))
        except PeerGoneError:
            self._drop(session)
        except Exception as error:  # noqa: BLE001  (a bug that one client meets must not take the others' broker away)
            traceback.print_exc(file=sys.stderr)
            self._fault(
                session, f"the broker failed on this request ({type(error).__name__}: {error}); please report it"
            )

    def _waiting(self, session: Session, event: int) -> None:
        """Nothing is read from this one now, so it has room for a reply again, or has hung up."""
        if not event & _OUT:
            self._drop(session)
            return
        session.flush()
        if session.ready:
            self._epoll.modify(session.fd, _IN)

    def _answer(self, session: Session, request: wire.Request, fd: OwnedFd | None, data: bytes) -> None:
        reply: wire.Reply
        sent = None
        try:
            if self._grace.active and self._parks(session, request, fd, data):
                return
            if isinstance(request, wire.Announced):
                reply = self._announced(session)
            elif isinstance(request, wire.GetStatus | wire.Stop):
                reply = self._about(session, request)
            else:
                reply, sent = self._dispatch.answer(session, request, fd)
                if type(reply) is wire.Imported and type(request) is wire.ImportName:
                    self._quick.remember(data, session, reply)
                elif type(request) is wire.AnnouncePayload:
                    self._quick.clear()
        except Refused as refusal:
            reply = wire.Refusal(refusal.status, refusal.detail[:_DETAIL])
        except OSError as error:
            reply = wire.Refusal(
                Status.INSUFFICIENT_RESOURCES, f"The broker failed on this request: {error}. Try again."
            )
        self._reply(session, reply, sent)
        self._dispatch.collect()

    def _reply(self, session: Session, reply: wire.Reply, fd: int | None) -> None:
        try:
            self._send(session, wire.encode(reply), fd)
        finally:
            if fd is not None and isinstance(reply, _GIVEN_AWAY):
                os.close(fd)

    def _send(self, session: Session, data: bytes, fd: int | None) -> None:
        session.send(data, fd)
        if session.queue:
            self._stall(session)

    def _stall(self, session: Session) -> None:
        self._epoll.modify(session.fd, _OUT)
        self._wake_at(session.stalled + PATIENCE)

    def _meet(self, session: Session, request: wire.Request, sender: transport.Credentials | None) -> None:
        """The first message: Hello, or a question about the broker itself."""
        if isinstance(request, wire.GetStatus | wire.Stop):
            self._reply(session, self._about(session, request), None)
            return
        if not isinstance(request, wire.Hello):
            raise PeerProtocolError(f"{type(request).__name__} came before Hello")
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

    def _about(self, session: Session, request: wire.GetStatus | wire.Stop) -> wire.Reply:
        others = sum(1 for other in self._sessions.values() if other.answered and other is not session)
        if isinstance(request, wire.Stop):
            if others and not request.force:
                return wire.Value(others)
            self._leaving = True
            return wire.Value(0)
        with open("/proc/self/statm", "rb") as file:
            resident = int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
        return wire.BrokerState(
            os.getpid(),
            wire.PROTOCOL_VERSION,
            int((time.monotonic() - self._started) * 1000),
            others + session.answered,
            len(self._payloads),
            self._payloads.fds,
            resident,
            self._instance,
        )

    # -- the grace after a killed broker ------------------------------------------------------------------------------

    def _parks(self, session: Session, request: wire.Request, fd: OwnedFd | None, data: bytes) -> bool:
        """Put the request aside until the grace ends, if its answer could be another by then."""
        if isinstance(request, _SEEKING):
            try:
                reply, sent = self._dispatch.answer(session, request, fd)
            except Refused:
                pass  # perhaps only not announced yet: asked again when all have
            else:
                if not (isinstance(request, wire.KmtAlive) and reply == wire.Value(0)):
                    self._reply(session, reply, sent)
                    return True
        elif not isinstance(request, wire.Export):
            return False
        session.parked = True
        self._parked.append((session, request, fd, data))
        self._epoll.modify(session.fd, 0)
        return True

    def _announced(self, session: Session) -> wire.Reply:
        self._model.restore_done(session.process)
        self._grace.announced(session.credentials.pid)
        self._wake_at(time.monotonic())
        return wire.Done()

    def _release_parked(self) -> None:
        parked, self._parked = self._parked, []
        for session, request, fd, data in parked:
            if session.fd not in self._sessions:
                continue
            session.parked = False
            self._epoll.modify(session.fd, _IN)
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

    def _watch(self, pidfd: int) -> None:
        self._epoll.register(pidfd, _IN)

    def _wake_at(self, when: float) -> None:
        self._wake = min(self._wake, when)

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
            self._leaving = not self._caller_waits()
            self._empty_since = now
        self._wake_at(self._empty_since + self._idle)

    def _caller_waits(self) -> bool:
        self._accept()
        return bool(self._sessions)
