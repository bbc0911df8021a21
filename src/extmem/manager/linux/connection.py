"""The client's connection to a broker: it is made, lost, continued, and made anew to another broker.

How this works. `_reach` returns a connection to a trusted broker. `_greet` sends Hello on it, and the answer shows
which of these cases it is:

- The broker that this process is out of step with (a reply did not come in time, or a call was interrupted): the new
  connection continues the old one, by the secret of the first Welcome. What the last request created is undone by the
  broker and removed from `State` (`State.repair`). Nothing is announced.
- Another broker, which accepts announcements, because it is the successor of a killed one. Every reference, handle and
  ticket in `State` is announced, with the records that the killed broker signed.
- A broker that does not accept announcements: this process was stopped for longer than the recovery window, or its
  connection was closed. What it held is lost, which `State.after_loss` records; mapped memory stays mapped.

A connection that is out of step stays open until its session is continued: if the broker saw it end, it would end what
this process holds. If the Welcome to a Hello does not come in time, Hello is not sent again: the next attempt waits for
the same Welcome.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from typing import Final, overload

from extmem import wire
from extmem.errors import HandleStateError, PeerGoneError, PeerProtocolError
from extmem.manager.linux import launch
from extmem.manager.linux.held import State
from extmem.manager.linux.pidfd import pidfd_of
from extmem.manager.linux.records import HeldPayload, Loss, Process, handles_in
from extmem.manager.linux.turns import Turns
from extmem.manager.linux.watcher import Watched, Watcher
from extmem.owning import OwnedFd, out_of_descriptors, raised_by_handler, require_fds
from extmem.wire import transport
from extmem.wire.peers import inherited_socket, require_broker
from extmem.wire.runtime_dir import RuntimeDir, lock_holder

__all__ = ["INHERIT_VARIABLE", "TIMEOUT", "Answer", "Connection"]

TIMEOUT: Final = 10.0
"""Seconds that a broker may take for one reply."""
_ATTEMPTS: Final = 4
_CARRIERS: Final = frozenset({wire.Handle, wire.SnapshotFile, wire.Channel, wire.Fds, wire.Awaited, wire.NamesPage})
"""Replies except `Imported` that may carry file descriptors; the others need no look-up in the table."""
_ATTACH: Final = wire.encode(wire.AttachFds())
_decode: Final = wire.reply_decoder
INHERIT_VARIABLE: Final = "EXTMEM_INHERIT_FD"
"""The environment variable that names the connection that a child inherits."""

_log = logging.getLogger("extmem.broker")
Answer = tuple[wire.Reply, Sequence[OwnedFd]]


class Connection(Watched):
    """The connection and the state of what this process holds. The caller of each method holds `lock`."""

    def __init__(self, directory: RuntimeDir, *, timeout: float = TIMEOUT) -> None:
        self.directory = directory
        self.state = State()
        self._timeout = timeout
        self.lock = self._new_lock()
        self._sock: socket.socket | None = None
        self._stale: list[socket.socket] = []
        """Connections that are out of step, kept open until another one continues them."""
        self._waiting: socket.socket | None = None
        """A connection on which Hello was sent and Welcome has not come yet."""
        self._secret = b""
        self._received = 0
        """Number of replies that were received and entered since the Welcome."""
        self._unsettled: wire.Request | bytes | None = None
        """The request whose reply is not entered in `state` yet."""
        self._watcher: Watcher | None = None
        self.closed = False
        """Whether `close` was called. No request can be sent afterwards."""

    def _new_lock(self) -> Turns:
        return Turns(self._timeout, self._silence)

    def _silence(self) -> str:
        pid = lock_holder(self.directory.broker_lock)
        process = f" (process {pid})" if pid else ""
        return (
            f"the broker in {self.directory.path}{process} did not answer within {self._timeout:g} s"
            f"{self.directory.see_log()}. Try again, or {launch.how_to_end(pid)}"
        )

    @property
    def unfinished(self) -> bool:
        """Whether the watcher must connect although no request waits."""
        return self._sock is None and (not self.state.empty or bool(self._stale))

    @property
    def connected(self) -> socket.socket | None:
        """The socket, if there is a connection."""
        return self._sock

    # -- one request --------------------------------------------------------------------------------------------------

    def _fetch_rest(self, sock: socket.socket, reply: wire.Reply, received: Sequence[OwnedFd]) -> Answer | None:
        """Return a reply with all handles of its payload, of which it brought the first ones.

        It brings none if this process has them already. Those that were set aside are fetched again.
        """
        if type(reply) is wire.Imported:
            facts = wire.decode_facts(reply.facts)
            payload, mode, count = facts.payload, facts.needs, facts.handles
        elif type(reply) is wire.Handle:
            payload, mode, count = reply.payload, reply.mode, reply.handles
        else:
            return reply, received
        if not received and (type(reply) is wire.Handle or not self.state.lacks(payload, mode, count)):
            return reply, received
        found = list(received)
        if len(found) < count:
            require_fds(count - len(found), f"a payload of {count} handles, of which {len(found)} have come,")
        while len(found) < count:
            more = self._round_trip(sock, wire.encode(wire.FetchFds(payload, mode, len(found))))
            if more is None or type(more[0]) is not wire.Fds:
                return more
            if not more[1]:
                raise PeerProtocolError(f"the broker sent {len(found)} of {count} handles of payload {payload}")
            found += more[1]
        return reply, found

    def _round_trip(self, sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> Answer | None:
        """Send a request and return its reply, with all handles; None when the broker has gone.

        Handles beyond what one packet carries go in requests of their own, which the broker counts as part of this one.
        A refusal of one of them is returned as the refusal of this one.
        """
        while len(fds) > wire.MAX_FDS:
            attached = self._round_trip(sock, _ATTACH, fds[: wire.MAX_FDS])
            if attached is None or type(attached[0]) is not wire.Attached:
                return attached
            fds = fds[wire.MAX_FDS :]
        try:
            transport.send_many(sock, data, fds)
            packet = transport.receive_many(sock)
        except PeerGoneError:
            # A reply that was sent before the broker ended can still be read, so there was none.
            return None
        except BlockingIOError as error:
            if raised_by_handler(error):
                raise
            raise self._gave_up() from error
        except transport.TableFullError as error:
            raise out_of_descriptors(error, "recvmsg", handles_in(error.data)) from None
        except OSError as error:
            raise out_of_descriptors(error, "sendmsg", len(fds)) from None
        answer = _parsed(packet)
        if answer is None or (len(answer[1]) < wire.MAX_FDS and not self.state.sets_aside):
            return answer
        return self._fetch_rest(sock, answer[0], answer[1])

    def _gave_up(self) -> PeerGoneError:
        self.lock.note_silence()
        return PeerGoneError(self._silence())

    # -- a new connection ---------------------------------------------------------------------------------------------

    def reconnect(self, seen: socket.socket | None) -> bool:
        """For the watcher: the broker closed the connection `seen`. Return whether nothing is left to be done.

        If this process holds nothing, no broker is started. A running one is still sent Hello, as it may wait for this
        process to announce.
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
            raise HandleStateError("this manager is closed; get another one from extmem.manager.manager()")
        for _ in range(_ATTEMPTS):
            sock = self._waiting or self._reach()
            if self._greet(sock):
                return sock
        raise PeerGoneError(
            f"the broker in {self.directory.path} ends whenever this process connects{self.directory.see_log()}. Run "
            "`extmem broker run` in a terminal and connect again: it prints its error there"
        )

    @overload
    def _reach(self) -> socket.socket: ...

    @overload
    def _reach(self, *, start: bool) -> socket.socket | None: ...

    def _reach(self, *, start: bool = True) -> socket.socket | None:
        """Return a connection to a trusted broker (`peers`). Every connection of this process is made here.

        start: start a broker where none runs, and use the inherited connection of this process, once
            (`Manager.inherit_socket`). Without it, return None where no broker runs.
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
        """Send Hello, and act on the answer. Return False if the broker was ending."""
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
        """Return the answer to Hello, which is sent unless it was already; None if the broker closed the connection."""
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
            packet = _last_packet(sock)
        except BlockingIOError as error:
            self._waiting = sock
            raise self._gave_up() from error
        except BaseException:
            self._stale.append(sock)
            raise
        return _parsed(packet)

    def _settle_in(self, sock: socket.socket, welcome: wire.Welcome) -> bool:
        """Make `state` and the broker agree. Return False if the broker has ended meanwhile."""
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
            "this process connected later than the two seconds in which its successor accepts announcements. Memory "
            "that is mapped in this process stays mapped; share or open it anew"
        )
        _log.warning(
            "%d memory objects and %d handles of this process are lost: each %s",
            len(self.state.references),
            len(self.state.handles),
            why,
        )
        claimed = self.state.claimed
        self.state = self.state.after_loss(Loss(PeerGoneError, why))
        return all(self._ask(sock, wire.AnnounceClaimed(ticket)) is not None for ticket in claimed)

    def _ask(self, sock: socket.socket, request: wire.Request, fds: Sequence[int] = ()) -> Answer | None:
        """Send one request while the connection is being set up."""
        answer = self._round_trip(sock, wire.encode(request), fds)
        self._received += 1
        if answer is not None and type(answer[0]) is wire.Fault:
            raise PeerProtocolError(f"the broker in {self.directory.path} closed the connection: {answer[0].detail}")
        return answer

    def _announce(self, sock: socket.socket) -> bool:
        """Announce everything. Return False if the broker has ended. What it refuses is lost, which is logged."""
        state = self.state
        records = state.records()
        origins = {record: wire.decode_record(record[wire.SIGNATURE :]).payload for record in records}
        entries = state.announced_entries(origins)
        tickets = state.announced_tickets()
        refused: list[str] = []
        later: list[tuple[bytes, HeldPayload]] = []
        for wait in (False, True):
            for record, held in later if wait else list(records.items()):
                handles = wire.decode_record(record[wire.SIGNATURE :]).handles
                best, why = held.all_fds(handles)
                if why:
                    refused.append(why)
                    state.lose_record(record, Loss(PeerGoneError, f"was lost with a broker: {why}"))
                    continue
                announcement = wire.AnnounceRecord(record, held.description, handles, wait)
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
                            "a shared object was restored without its name, which another process has taken meanwhile"
                        )
        for entry, table, number, lose in entries:
            if number in table:  # its record was not refused
                answer = self._ask(sock, entry)
                if answer is None:
                    return False
                if type(answer[0]) is not wire.Done:
                    lose(number, _refused(answer[0], refused))
        rest: list[tuple[wire.Request, Process | None]] = [
            *((wire.AnnounceClaimed(ticket), None) for ticket in state.claimed),
            *tickets,
            (wire.Announced(), None),
        ]
        for request, process in rest:
            pidfd = None if process is None else pidfd_of(process.pid)
            if process is not None and (pidfd is None or not process.alive):
                continue  # it is bound to a process that has ended
            if self._ask(sock, request, () if pidfd is None else (pidfd.fd,)) is None:
                return False
        if refused:
            _log.warning(
                "the new broker in %s refused %d announcements of this process; the first: %s",
                self.directory.path,
                len(refused),
                refused[0],
            )
        return True

    def _take_inheritance(self, sock: socket.socket) -> None:
        """Enter the handles that this process inherited."""
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

    # -- the end of a connection --------------------------------------------------------------------------------------

    def _give_up(self, sock: socket.socket, *, keep: bool) -> None:
        """Stop using the connection.

        keep: leave it open, as the broker ends what this process holds when it is closed.
        """
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
        reply = wire.decode_reply(data)  # raises with the reason
    if reply.__class__ is wire.Imported:
        expected = reply.fds
    else:
        expected = wire.fds_of(reply) if reply.__class__ in _CARRIERS else 0
    if expected != len(received):
        raise PeerProtocolError(f"{type(reply).__name__} came with a wrong number of file descriptors")
    return reply, received


def _last_packet(sock: socket.socket) -> transport.Packets | None:
    """Return the packet that the broker sent before it closed the connection, which contains the reason."""
    for _ in range(2):  # the first time the kernel may report that the sent message was not read
        try:
            return transport.receive_many(sock)
        except (PeerGoneError, BlockingIOError):
            continue
    return None


def _refused(reply: wire.Reply, refused: list[str]) -> Loss:
    why = reply.detail if type(reply) is wire.Refusal else f"it answered with {type(reply).__name__}"
    refused.append(why)
    return Loss(PeerGoneError, f"was refused by the broker that replaced a killed one: {why}")
