"""The client's end: one connection of this process to its broker, thread-safe, with a deadline, outliving the broker.

How this works. A request and its reply are one round trip under a lock. When the broker has gone, whoever notices
first connects again, starting a new broker if there is none, and announces everything in `State`: the caller whose
request was cut off, or the watcher thread (`reconnect`) if nobody calls. A request that got no reply is then sent
again. That is right for every kind: a broker that died before it answered took the request's effect with it, because
the next broker knows only what the clients announce, and they announce what they were answered.

A reply that does not come in time, or a call cut off by an exception such as KeyboardInterrupt, leaves the connection
out of step; it is given up likewise, but kept open until the new one has announced everything, so that nothing ends
in between.

After `os.fork()` the child has no connection and holds nothing (the broker knows processes, not copies of them).
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import logging
import os
import socket
import stat
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from extmem.broker import launch, transport, wire
from extmem.broker.descriptors import OwnedFd
from extmem.broker.fitting import fit_handle
from extmem.broker.paths import RuntimeDir
from extmem.broker.reconnect import Watcher
from extmem.broker.state import State
from extmem.errors import ExtmemError, HandleStateError, InvalidHandleError, PeerGoneError, PeerProtocolError
from extmem.objects import error_for

__all__ = ["INHERIT_VARIABLE", "TIMEOUT", "Client"]

TIMEOUT: Final = 10.0
"""Seconds that a broker may take for one reply."""
_ATTEMPTS: Final = 4
_CARRIERS: Final = frozenset({wire.Handle, wire.SnapshotFile, wire.Channel})
"""Replies beside `Imported` that may carry a descriptor; the others need no look at the table."""
_decode: Final = wire.reply_decoder
INHERIT_VARIABLE: Final = "EXTMEM_INHERIT_FD"
"""Where a child finds the connection that it was born with."""

_log = logging.getLogger("extmem.broker")
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """The connection. Whoever calls `exchange` holds `lock`, and changes `state` under the same hold."""

    def __init__(self, directory: RuntimeDir, *, timeout: float = TIMEOUT) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.state = State()
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._stale: socket.socket | None = None
        self._watcher: Watcher | None = None
        self.births: deque[tuple[bytes, weakref.ref[object]]] = deque()
        """Tickets for children that are being started."""
        self._later: deque[tuple[Callable[[int], None], int]] = deque()
        self._busy = False
        self.closed = False
        """Whether `close` was called: nothing more can be asked."""
        _clients.add(self)

    # -- requests -----------------------------------------------------------------------------------------------------

    def exchange(self, request: wire.Request, fd: int | None = None) -> tuple[wire.Reply, OwnedFd | None]:
        """One request, one reply. The caller holds `lock`; `fd` is borrowed, received ones belong to the caller.

        Raises the class of `extmem.errors` that a refusal stands for; PeerGoneError when there is no answer in time or
        the broker dies again and again; PeerProtocolError; UnsupportedError where there is no broker to be had.
        """
        return self.exchange_encoded(wire.encode(request), fd)

    def exchange_encoded(self, data: bytes, fd: int | None = None) -> tuple[wire.Reply, OwnedFd | None]:
        """`exchange` for a request that is encoded already."""
        if self._busy:
            raise HandleStateError(
                "a signal handler used shared memory while a call was under way; only set a flag in it"
            )
        for _ in range(_ATTEMPTS):
            sock = self._sock
            if sock is None:
                sock = self._connect()
            self._busy = True
            try:
                answer = self._round_trip(sock, data, fd)
            except BaseException:
                self._give_up(sock, keep=True)
                raise
            finally:
                self._busy = False
            if answer is None:
                self._give_up(sock, keep=False)
                continue
            kind = answer[0].__class__
            if kind is wire.Refusal or kind is wire.Fault:
                self._refused(sock, answer[0])
            return answer
        raise PeerGoneError(f"the broker died {_ATTEMPTS} times in a row on this request; see {self.directory.log}")

    def _refused(self, sock: socket.socket, reply: wire.Reply) -> None:
        if type(reply) is wire.Refusal:
            raise error_for(reply.status, reply.detail)
        if type(reply) is wire.Fault:
            self._give_up(sock, keep=False)
            raise PeerProtocolError(f"the broker hung up: {reply.detail}")

    def free(self, memory: int) -> None:
        """Free a memory object. One that a fork left behind is not ours to free: nothing happens."""
        with self.lock:
            state = self.state
            number = memory - state.base
            if number < 0:
                return
            held = state.memories.get(memory)
            try:
                self.exchange(wire.Free(number, state.forgets(None if held is None else held[0])))
            except InvalidHandleError:
                if held is None:
                    raise
                # The broker lost it over a restart (and said so then): with this it is gone here too.
            state.freed(memory)

    def close_handle(self, value: int) -> None:
        """CloseHandle. One that a fork left behind is not ours to close: nothing happens."""
        with self.lock:
            state = self.state
            value = fit_handle(value)
            held = state.handles.get(value)
            if held is None and value in state.left_behind:
                return
            self.exchange(wire.CloseHandle(value, state.forgets(None if held is None else held.payload)))
            state.closed(value)

    def later(self, verb: Callable[[int], None], number: int) -> None:
        """Call `free` or `close_handle` soon. Never blocks or raises: for finalizers."""
        self._later.append((verb, number))
        watcher = self._watcher
        if watcher is not None:
            watcher.wake()

    def bind_later(self, ticket: bytes, child: object) -> None:
        """Bind the ticket to a child process as soon as its object has a `pid` (`multiprocessing` sets it)."""
        self.births.append((ticket, weakref.ref(child)))
        watcher = self._watcher
        if watcher is not None:
            watcher.wake()

    def bind_births(self) -> None:
        """Do what `bind_later` has collected and can be done by now. A child that was never started gets nothing."""
        for _ in range(len(self.births)):
            ticket, reference = self.births.popleft()
            child = reference()
            pid = getattr(child, "pid", None)
            if child is not None and pid is None:
                self.births.append((ticket, reference))
                continue
            request = wire.Withdraw(ticket) if pid is None else wire.BindOffer(ticket, pid)
            try:
                with self.lock:
                    self.exchange(request)
                    offered = self.state.offered.get(ticket)
                    if offered is not None and pid is not None:
                        offered.pid = pid
                    elif pid is None:
                        self.state.offered.pop(ticket, None)
            except ExtmemError as error:
                # The child has claimed it already, or lives no more: either way there is nothing to bind.
                _log.debug("binding a ticket to process %s: %s", pid, error)

    def free_later(self) -> None:
        """Do what `later` has collected. What cannot be freed now ends with the process."""
        while self._later:
            verb, number = self._later.popleft()
            try:
                verb(number)
            except ExtmemError as error:
                _log.warning("giving back %s after its owner was lost: %s", number, error)

    def probe(self, request: wire.GetStatus | wire.Stop) -> wire.Reply | None:
        """Ask the broker about itself, without starting one: None where there is none.

        Uses the connection if there is one.
        """
        with self.lock:
            sock = self._sock
            if sock is None:
                sock = launch.connect(self.directory, self._timeout)
            if sock is None:
                return None
            try:
                answer = self._round_trip(sock, wire.encode(request), None)
            except BaseException:
                if sock is self._sock:
                    self._give_up(sock, keep=True)
                raise
            finally:
                if sock is not self._sock and sock is not self._stale:
                    sock.close()
            if answer is not None and type(answer[0]) is wire.Fault:
                raise PeerProtocolError(f"the broker hung up: {answer[0].detail}")
            return None if answer is None else answer[0]

    def _round_trip(self, sock: socket.socket, data: bytes, fd: int | None) -> tuple[wire.Reply, OwnedFd | None] | None:
        """The reply, or None when the broker has gone."""
        try:
            if fd is None:
                packet = transport.ask(sock, data)
            else:
                transport.send(sock, data, fd)
                packet = transport.receive(sock)
        except PeerGoneError:
            # What it had answered before it died can still be read, so there was no answer.
            return None
        except BlockingIOError as error:
            raise PeerGoneError(
                f"the broker did not answer within {self._timeout:g} s; see {self.directory.log}, or end it with "
                "`extmem broker stop`: nothing that a living process holds is lost by that"
            ) from error
        if packet is None:
            return None
        data, received, _ = packet
        try:
            reply = _decode(data)
        except wire.NOT_DECODED:
            reply = wire.decode_reply(data)  # which says what is wrong
        if reply.__class__ is wire.Imported:
            carries = reply.mode != 0
        else:
            carries = reply.__class__ in _CARRIERS and wire.fds_of(reply) != 0
        if carries != (received is not None):
            raise PeerProtocolError(f"{type(reply).__name__} came with a wrong number of file descriptors")
        return reply, received

    # -- the connection -----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> socket.socket | None:
        """The socket, if there is a connection."""
        return self._sock

    def reconnect(self, seen: socket.socket | None) -> bool:
        """For the watcher: the connection `seen` was hung up on. Whether nothing is left to be done.

        Where nothing is held, no broker is started; but one that is there is told so, as it may wait for this process.
        """
        with self.lock:
            if self.closed or (self._sock is not None and self._sock is not seen):
                return True
            if self._sock is not None:
                self._give_up(self._sock, keep=False)
            if not self.state.empty:
                self._connect()
                return True
            sock = launch.connect(self.directory, self._timeout)
            if sock is None:
                return False
            return self._greet(sock)

    def _connect(self) -> socket.socket:
        if self.closed:
            raise HandleStateError("this manager is closed; ask for another one")
        for _ in range(_ATTEMPTS):
            sock = self._inherited() or launch.connect_or_start(self.directory, self._timeout)
            if self._greet(sock):
                return sock
        raise PeerGoneError(
            f"the broker in {self.directory.path} leaves whenever this process connects; see {self.directory.log}"
        )

    def _greet(self, sock: socket.socket) -> bool:
        """Say Hello on a fresh connection and announce what is held. False when the broker was just leaving."""
        try:
            hello = wire.Hello(wire.PROTOCOL_VERSION, not self.state.empty)
            answer = self._round_trip(sock, wire.encode(hello), None)
            if answer is None:
                sock.close()
                return False
            welcome = answer[0]
            if type(welcome) is wire.Fault:
                raise PeerProtocolError(f"the broker refuses this process: {welcome.detail}")
            if type(welcome) is not wire.Welcome:
                raise PeerProtocolError(f"the broker answered Hello with {type(welcome).__name__}")
            if welcome.inherited:
                self._take_inheritance(sock)
            if hello.announcing and not self._announce(sock):
                sock.close()
                return False
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        if self._stale is not None:
            self._stale.close()
            self._stale = None
        if self._watcher is None:
            self._watcher = Watcher(self)
        self._watcher.wake()
        return True

    def _announce(self, sock: socket.socket) -> bool:
        requests = list(self.state.announcements())
        for request, fd in [*requests, (wire.Announced(), None)]:
            answer = self._round_trip(sock, wire.encode(request), fd)
            if answer is None:
                return False
            reply = answer[0]
            if type(reply) is wire.PayloadBack and type(request) is wire.AnnouncePayload:
                self.state.came_back(request.payload, reply)
            elif type(reply) is wire.Value and type(request) is wire.AnnounceObject and not reply.value:
                _log.warning("a shared object came back without its name: another process has taken it meanwhile")
            elif type(reply) is wire.Refusal and type(request) is not wire.AnnounceTicket:
                _log.warning("the new broker refuses %s: %s", type(request).__name__, reply.detail)
            elif type(reply) is wire.Fault:
                raise PeerProtocolError(f"the broker hung up: {reply.detail}")
        return True

    def _take_inheritance(self, sock: socket.socket) -> None:
        """The handles that this process was born with."""
        after = 0
        while True:
            answer = self._round_trip(sock, wire.encode(wire.ListHandles(after)), None)
            if answer is None or type(answer[0]) is not wire.Handles or not answer[0].values:
                return
            for value in answer[0].values:
                after = value
                found = self._round_trip(sock, wire.encode(wire.Hold(value)), None)
                if found is not None and type(found[0]) is wire.Handle:
                    self.state.handle(found[0], found[1])

    def _inherited(self) -> socket.socket | None:
        """The connection that this process was born with (`Manager.inherit_socket`), once."""
        text = os.environ.pop(INHERIT_VARIABLE, None)
        if text is None:
            return None
        try:
            fd = int(text)
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                return None
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        except (OSError, ValueError):
            return None  # the variable came further than the descriptor: this is a grandchild
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            sock.detach()
            return None
        sock.setblocking(True)
        launch.set_deadline(sock, self._timeout)
        return sock

    def _give_up(self, sock: socket.socket, *, keep: bool) -> None:
        if sock is self._sock:
            self._sock = None
        if keep and self._stale is None:
            self._stale = sock
        elif sock is not self._stale:
            sock.close()
        if self._watcher is not None:
            self._watcher.wake()

    def close(self) -> None:
        """Leave the broker: all that this process holds there ends."""
        with self.lock:
            self.closed = True
            watcher, self._watcher = self._watcher, None
            for sock in (self._sock, self._stale):
                if sock is not None:
                    sock.close()
            self._sock = self._stale = None
            self.state = State(self.state.generation)
        if watcher is not None:
            watcher.stop()

    def after_fork(self) -> None:
        """In the child: nothing of this is ours. The parent's connection is not shut down by closing our copy."""
        self.lock = threading.RLock()
        for sock in (self._sock, self._stale):
            if sock is not None:
                sock.close()
        self._sock = self._stale = None
        if self._watcher is not None:
            self._watcher.after_fork()
            self._watcher = None
        self._later = deque()
        self.births = deque()
        self._busy = False
        self.state = self.state.after_fork()


def _after_fork() -> None:
    for client in list(_clients):
        client.after_fork()


os.register_at_fork(after_in_child=_after_fork)
