"""The client's connection: made, lost, gone on with, and made anew to another broker.

How this works. `_reach` gives a connection to a broker that may be talked to. `_greet` says Hello on it, and the answer
says which of these it is:

- the broker that this process was out of step with (a reply that did not come in time, an interrupted call): the new
  connection goes on for the old one, by the secret of the first Welcome. What the last request made is undone there and
  forgotten here (`State.repair`). Nothing is announced.
- another broker, which takes announcements: it follows one that was killed. Everything in `State` is announced, each
  thing with the record that the killed broker signed.
- a broker that takes none: this process was stopped for longer than the recovery window, or was hung up on. What it
  held is lost, and the state remembers that (`State.after_loss`); memory that is mapped stays.

A connection that is out of step stays open until its session was gone on with: the broker must not see it end. A Hello
whose Welcome did not come in time is not said again: the same Welcome is waited for the next time.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the broker runs on Linux only; extmem.manager selects what the system has")

import errno
import logging
import os
import socket
from collections.abc import Sequence
from typing import Final, overload

from extmem import wire
from extmem.errors import HandleStateError, PeerGoneError, PeerProtocolError
from extmem.manager.linux import launch
from extmem.manager.linux.held import HeldPayload, Loss, Process, State
from extmem.manager.linux.turns import Turns
from extmem.manager.linux.watcher import Watcher
from extmem.owning import OwnedFd, out_of_descriptors, raised_by_handler
from extmem.wire import transport
from extmem.wire.peers import inherited_socket, require_broker
from extmem.wire.runtime_dir import RuntimeDir

__all__ = ["INHERIT_VARIABLE", "TIMEOUT", "Answer", "Connecting", "pidfd_of"]

TIMEOUT: Final = 10.0
"""Seconds that a broker may take for one reply."""
_ATTEMPTS: Final = 4
_CARRIERS: Final = frozenset({wire.Handle, wire.SnapshotFile, wire.Channel, wire.Fds})
"""Replies except `Imported` that may carry file descriptors; the others need no look-up in the table."""
_ATTACH: Final = wire.encode(wire.AttachFds())
_decode: Final = wire.reply_decoder
INHERIT_VARIABLE: Final = "EXTMEM_INHERIT_FD"
"""Where a child finds the connection that it was born with."""

_log = logging.getLogger("extmem.broker")
Answer = tuple[wire.Reply, Sequence[OwnedFd]]


class Connecting:
    """The connection and the state behind it. Whoever calls anything here holds `lock`."""

    def __init__(self, directory: RuntimeDir, *, timeout: float = TIMEOUT) -> None:
        self.directory = directory
        self.state = State()
        self._timeout = timeout
        self.lock = self._new_lock()
        self._sock: socket.socket | None = None
        self._stale: list[socket.socket] = []
        """Connections that are out of step, kept open until another one goes on for them."""
        self._waiting: socket.socket | None = None
        """A connection on which Hello was said and no Welcome has come yet."""
        self._secret = b""
        self._received = 0
        """Replies that were taken in since the Welcome."""
        self._unsettled: wire.Request | bytes | None = None
        """The request whose reply has come, or was waited for, and is not taken in yet."""
        self._watcher: Watcher | None = None
        self.closed = False
        """Whether `close` was called: nothing more can be asked."""

    def _new_lock(self) -> Turns:
        return Turns(self._timeout, self._silence)

    def _silence(self) -> str:
        return (
            f"the broker in {self.directory.path} did not answer within {self._timeout:g} s; see {self.directory.log}. "
            "Try again, or end it (`extmem broker stop --force`, or by its pid): nothing that a living process holds "
            "is lost by that"
        )

    @property
    def unfinished(self) -> bool:
        """Whether a connection is to be made although nobody asks for anything."""
        return self._sock is None and (not self.state.empty or bool(self._stale))

    @property
    def connected(self) -> socket.socket | None:
        """The socket, if there is a connection."""
        return self._sock

    def work(self) -> bool:
        """For the watcher: do what was left to be done. Whether to look again in a moment. Raises as requests do."""
        return False

    # -- one request --------------------------------------------------------------------------------------------------

    def _whole_trip(self, sock: socket.socket, data: bytes, fds: Sequence[int]) -> Answer | None:
        """Send a request and return its reply, with all handles; None when the broker has gone.

        Handles beyond what one packet carries go in requests of their own, which the broker counts as part of this one.
        A refusal of one of them is returned as the refusal of this one.
        """
        last = wire.last_part(len(fds)) if fds else 0
        for first in range(0, len(fds) - last, wire.MAX_FDS):
            attached = self._round_trip(sock, _ATTACH, fds[first : first + wire.MAX_FDS])
            if attached is None or type(attached[0]) is not wire.Attached:
                return attached
        answer = self._round_trip(sock, data, fds[len(fds) - last :])
        if answer is None or len(answer[1]) < wire.MAX_FDS:
            return answer
        return self._fetch_rest(sock, answer[0], answer[1])

    def _fetch_rest(self, sock: socket.socket, reply: wire.Reply, received: Sequence[OwnedFd]) -> Answer | None:
        """Return a reply with all handles of its payload, of which it brought the first ones."""
        if type(reply) is wire.Imported:
            facts = wire.decode_facts(reply.facts)
            payload, mode, count = facts.payload, facts.needs, facts.handles
        elif type(reply) is wire.Handle:
            payload, mode, count = reply.payload, reply.mode, reply.handles
        else:
            return reply, received
        found = list(received)
        while len(found) < count:
            more = self._round_trip(sock, wire.encode(wire.FetchFds(payload, mode, len(found))))
            if more is None or type(more[0]) is not wire.Fds:
                return more
            if not more[1]:
                raise PeerProtocolError(f"the broker sent {len(found)} of {count} handles of payload {payload}")
            found += more[1]
        return reply, found

    def _round_trip(self, sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> Answer | None:
        """Send one packet and return the one that answers it; None when the broker has gone."""
        try:
            transport.send_many(sock, data, fds)
            packet = transport.receive_many(sock)
        except PeerGoneError:
            # What it had answered before it died can still be read, so there was no answer.
            return None
        except BlockingIOError as error:
            if raised_by_handler(error):
                raise
            raise self._gave_up() from error
        except OSError as error:
            raise out_of_descriptors(error, "recvmsg") from None
        return _parsed(packet)

    def _gave_up(self) -> PeerGoneError:
        self.lock.note_silence()
        return PeerGoneError(self._silence())

    # -- a new connection ---------------------------------------------------------------------------------------------

    def reconnect(self, seen: socket.socket | None) -> bool:
        """For the watcher: the connection `seen` was hung up on. Whether nothing is left to be done.

        Where nothing is held, no broker is started; but one that is there is told so, as it may wait for this process.
        """
        with self.lock:
            if self.closed or (self._sock is not None and self._sock is not seen):
                return True
            if self._sock is not None:
                self._give_up(self._sock, keep=False)
            if not self.state.empty or self._stale:
                self._connect()
                return True
            sock = self._waiting or self._reach(start=False)
            return sock is not None and self._greet(sock)

    def _connect(self) -> socket.socket:
        if self.closed:
            raise HandleStateError("this manager is closed; ask for another one")
        for _ in range(_ATTEMPTS):
            sock = self._waiting or self._reach()
            if self._greet(sock):
                return sock
        raise PeerGoneError(
            f"the broker in {self.directory.path} leaves whenever this process connects; see {self.directory.log}"
        )

    @overload
    def _reach(self) -> socket.socket: ...

    @overload
    def _reach(self, *, start: bool) -> socket.socket | None: ...

    def _reach(self, *, start: bool = True) -> socket.socket | None:
        """A connection to a broker that may be talked to (`peers`): every connection of this process is made here.

        start: start a broker where there is none, and take the connection that this process was born with, once
        (`Manager.inherit_socket`); else None where there is none.
        """
        text = os.environ.pop(INHERIT_VARIABLE, None) if start else None
        sock = None if text is None else inherited_socket(text)
        if sock is not None:
            sock.set_inheritable(False)
            sock.setblocking(True)
            launch.set_deadline(sock, self._timeout)
            return sock
        if start:
            sock = launch.connect_or_start(self.directory, self._timeout)
        else:
            sock = launch.connect(self.directory, self._timeout)
        if sock is not None:
            try:
                require_broker(sock, self.directory)
            except BaseException:
                sock.close()
                raise
        return sock

    def _greet(self, sock: socket.socket) -> bool:
        """Say Hello, and do what the answer asks for. False when the broker was just leaving."""
        answer = self._welcomed(sock)
        if answer is None:
            sock.close()
            return False
        try:
            welcome = answer[0]
            if type(welcome) is wire.Fault:
                raise PeerProtocolError(f"the broker in {self.directory.path} refuses this process: {welcome.detail}")
            if type(welcome) is not wire.Welcome:
                raise PeerProtocolError(
                    f"the broker in {self.directory.path} answered Hello with {type(welcome).__name__}"
                )
            if not self._settle_in(sock, welcome):
                sock.close()
                return False
        except BaseException:
            self._stale.append(sock)  # the broker may have moved everything to it
            raise
        self._sock = sock
        self._secret = welcome.secret
        for stale in self._stale:
            stale.close()
        self._stale.clear()
        if self._watcher is None:
            self._watcher = Watcher(self)
        self._watcher.wake()
        return True

    def _welcomed(self, sock: socket.socket) -> Answer | None:
        """The answer to Hello, which is said unless this connection waits for it already; None for a hang-up."""
        state = self.state
        hello = wire.Hello(
            wire.PROTOCOL_VERSION, not state.empty, self._secret, self._received, state.above, state.highest
        )
        waited, self._waiting = self._waiting is sock, None
        try:
            if not waited:
                transport.send_many(sock, wire.encode(hello))
            packet = transport.receive_many(sock)
        except PeerGoneError:
            packet = _last_words(sock)
        except BlockingIOError as error:
            self._waiting = sock
            raise self._gave_up() from error
        except BaseException:
            self._stale.append(sock)
            raise
        return _parsed(packet)

    def _settle_in(self, sock: socket.socket, welcome: wire.Welcome) -> bool:
        """Make state and broker agree. False when the broker has gone meanwhile."""
        last, self._unsettled = self._unsettled, None
        self.state.ticket_seconds = welcome.ticket_seconds
        if welcome.resumed:
            request = wire.decode_request(last) if isinstance(last, bytes) else last
            self.state.repair(welcome, request if welcome.done else None)
            return True
        self._secret = b""
        self._received = 0
        holds = not self.state.empty
        if welcome.inherited:
            self._take_inheritance(sock)
        if not holds:
            return True
        if welcome.recovering:
            return self._announce(sock)
        why = (
            f"was lost: the connection to the broker in {self.directory.path} broke, or that broker was killed and "
            "this process came back later than the two seconds in which the next one takes announcements. Memory that "
            "is mapped here stays; share or open it anew"
        )
        _log.warning(
            "%d memory objects and %d handles of this process are gone: each %s",
            len(self.state.references),
            len(self.state.handles),
            why,
        )
        claimed = self.state.claimed
        self.state = self.state.after_loss(Loss(PeerGoneError, why))
        return all(self._ask(sock, wire.AnnounceClaimed(ticket)) is not None for ticket in claimed)

    def _ask(self, sock: socket.socket, request: wire.Request, fds: Sequence[int] = ()) -> Answer | None:
        """Send one request while the connection is being set up."""
        answer = self._whole_trip(sock, wire.encode(request), fds)
        self._received += 1
        if answer is not None and type(answer[0]) is wire.Fault:
            raise PeerProtocolError(f"the broker in {self.directory.path} hung up: {answer[0].detail}")
        return answer

    def _announce(self, sock: socket.socket) -> bool:
        """Announce everything. False when the broker has gone. What it does not take back is lost, and logged."""
        state = self.state
        records = state.records()
        origins = {record: wire.decode_record(record[wire.SIGNATURE :]).payload for record in records}
        references, handles = state.announced_references(origins), state.announced_handles(origins)
        tickets = state.announced_tickets()
        refused: list[str] = []
        later: list[tuple[bytes, HeldPayload]] = []
        for wait in (False, True):
            for record, held in later if wait else list(records.items()):
                best = held.fds.get(wire.READ_WRITE) or held.fds[wire.READ_ONLY]
                announcement = wire.AnnounceRecord(record, held.description, len(best), wait)
                answer = self._ask(sock, announcement, [one.fd for one in best])
                if answer is None:
                    return False
                back = answer[0]
                if type(back) is not wire.RecordBack:
                    state.lose_record(record, _refused(back, refused))
                elif not back.payload:
                    later.append((record, held))
                else:
                    state.came_back(held, back)
                    if not back.named:
                        _log.warning(
                            "a shared object came back without its name: another process has taken it meanwhile"
                        )
        for reference, said in references:
            if reference in state.references:
                answer = self._ask(sock, said)
                if answer is None:
                    return False
                if type(answer[0]) is not wire.Done:
                    state.lose_reference(reference, _refused(answer[0], refused))
        for value, put in handles:
            if value in state.handles:
                answer = self._ask(sock, put)
                if answer is None:
                    return False
                if type(answer[0]) is not wire.Done:
                    state.lose_handle(value, _refused(answer[0], refused))
        rest: list[tuple[wire.Request, Process | None]] = [
            *((wire.AnnounceClaimed(ticket), None) for ticket in state.claimed),
            *tickets,
            (wire.Announced(), None),
        ]
        for request, process in rest:
            pidfd = None if process is None else pidfd_of(process.pid)
            if process is not None and (pidfd is None or not process.alive):
                continue  # it was for a process that has ended
            if self._ask(sock, request, () if pidfd is None else (pidfd.fd,)) is None:
                return False
        if refused:
            _log.warning(
                "the broker that follows in %s did not take back %d things of this process; the first: %s",
                self.directory.path,
                len(refused),
                refused[0],
            )
        return True

    def _take_inheritance(self, sock: socket.socket) -> None:
        """The handles that this process was born with."""
        after = 0
        while True:
            answer = self._ask(sock, wire.ListHandles(after))
            if answer is None or type(answer[0]) is not wire.Handles:
                return
            for value in answer[0].values:
                found = self._ask(sock, wire.Hold(value))
                if found is not None and type(found[0]) is wire.Handle:
                    self.state.handle(found[0], found[1])
            after = answer[0].next
            if not after:
                return

    # -- its end ------------------------------------------------------------------------------------------------------

    def _give_up(self, sock: socket.socket, *, keep: bool) -> None:
        """Stop using the connection. keep: the broker must not see it end, as what this process holds ends with it."""
        if sock is self._sock:
            self._sock = None
        if keep:
            self._stale.append(sock)
        else:
            sock.close()
        if self._watcher is not None:
            self._watcher.wake()

    def _close_sockets(self) -> None:
        for sock in (self._sock, self._waiting, *self._stale):
            if sock is not None:
                sock.close()
        self._sock = self._waiting = None
        self._stale.clear()
        self._secret = b""
        self._unsettled = None


def _parsed(packet: transport.Packets | None) -> Answer | None:
    if packet is None:
        return None
    data, received, _ = packet
    try:
        reply = _decode(data)
    except wire.NOT_DECODED:
        reply = wire.decode_reply(data)  # which says what is wrong
    if reply.__class__ is wire.Imported:
        expected = reply.fds
    else:
        expected = wire.fds_of(reply) if reply.__class__ in _CARRIERS else 0
    if expected != len(received):
        raise PeerProtocolError(f"{type(reply).__name__} came with a wrong number of file descriptors")
    return reply, received


def _last_words(sock: socket.socket) -> transport.Packets | None:
    """What the broker said before it hung up without reading on: why."""
    for _ in range(2):  # the first time the kernel may say that our message was not read
        try:
            return transport.receive_many(sock)
        except (PeerGoneError, BlockingIOError):
            continue
    return None


def pidfd_of(pid: int) -> OwnedFd | None:
    """A pidfd of that process, as this process's pid namespace has it; None if there is no such process."""
    try:
        return OwnedFd.of(os.pidfd_open, pid)
    except (ProcessLookupError, ValueError, OverflowError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None  # no process, but a thread of one
        raise


def _refused(reply: wire.Reply, refused: list[str]) -> Loss:
    why = reply.detail if type(reply) is wire.Refusal else f"it answered with {type(reply).__name__}"
    refused.append(why)
    return Loss(PeerGoneError, f"was not taken back by the broker that followed a killed one: {why}")
