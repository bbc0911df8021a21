"""The client of the broker: one connection of this process, thread-safe, with a deadline, which survives the broker.

How this works. A request and its reply are one round trip in a turn (`turns`). When the broker has ended, the first to
detect it connects again (`connection`) and starts a new broker if none runs: the caller whose request got no reply, or
the watcher thread (`reconnect`). A request that got no reply because the broker ended is then sent again. That is
correct for every request: the effect of a request without a reply ended with its broker, because the next broker has
only what the clients announce, and they announce only what they got replies for.

If a reply does not come in time, or an exception such as KeyboardInterrupt interrupts a call before its reply is
entered in the state, the connection is out of step. The caller gets the exception, and nothing is sent again. The next
request, or the watcher, continues the session over another connection, and what the request created is undone.

A signal handler that runs in the middle of a turn is part of that turn, as turns of one thread nest. While a request is
sent and its reply not yet entered, requests of a handler are refused (`_busy`); at other moments they are sent.

References and handles whose owner was lost (`extmem.owning`) are released at the beginning of the next request, or soon
by a thread.

After `os.fork()` the child has no connection and holds nothing, as the broker identifies clients by process.
"""

from __future__ import annotations

import logging
import os
import socket
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar

from extmem import wire
from extmem.errors import (
    ExtmemError,
    HandleStateError,
    InvalidHandleError,
    OutOfMemoryError,
    PeerGoneError,
    PeerProtocolError,
)
from extmem.handles import HandleEntry
from extmem.manager.linux.connection import INHERIT_VARIABLE, TIMEOUT, Answer, Connection
from extmem.manager.linux.held import State
from extmem.manager.linux.pidfd import pidfd_of
from extmem.manager.linux.records import HeldHandle, Process
from extmem.manager.linux.search import of_other_versions, where_looked
from extmem.manager.linux.validate import check_handle
from extmem.objects import Status, error_for
from extmem.owning import OwnedFd, Step, cleanup_thread
from extmem.wire.process_start import start_time
from extmem.wire.runtime_dir import RuntimeDir

__all__ = ["INHERIT_VARIABLE", "TIMEOUT", "Asked", "Client"]

T = TypeVar("T")
Asked: TypeAlias = wire.Request | Callable[[], wire.Request]
_ATTEMPTS: Final = range(4)
_REFUSALS: Final = (wire.Refusal, wire.Fault)
_log = logging.getLogger("extmem.broker")
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client(Connection):
    """The connection. The caller of `exchange` holds `lock`, and changes `state` before it releases it."""

    def __init__(self, directory: RuntimeDir, *, timeout: float = TIMEOUT) -> None:
        super().__init__(directory, timeout=timeout)
        self.births: deque[tuple[bytes, weakref.ref[object]]] = deque()
        """Tickets for children that are being started."""
        self._later: deque[tuple[Callable[[Any], None], Any]] = deque()
        """What lost owners held: a function, which may be called repeatedly, and its argument."""
        self._wake: Step | None = None
        self._busy = self._freeing = False
        _clients.add(self)

    # -- requests -----------------------------------------------------------------------------------------------------

    def exchange(self, request: Asked, fds: Sequence[int] = ()) -> Answer:
        """Send a request and return its reply, without a change of `state`. Otherwise as `perform`.

        `fds` are borrowed, received ones belong to the caller.
        """
        return self.perform(request, lambda state, reply, received: (reply, received), fds)

    def perform(
        self,
        request: Asked | bytes,
        enter: Callable[[State, wire.Reply, Sequence[OwnedFd]], T],
        fds: Sequence[int] = (),
    ) -> T:
        """Send one request, receive its reply, and enter what it changes in `state`. The caller holds `lock`.

        fds: borrowed. They are sent beside the request; if they are more than one packet can carry, the first ones are
            sent before it (`AttachFds`). Handles that a reply does not carry are fetched (`FetchFds`).

        request: it may be encoded already. One that depends on `state` is given as a function: it is called when there
            is a connection, and again for another one. enter: enters the reply in the state, and returns this
            call's result. After an exception in it the request counts as not answered: what it created is undone.
        Raises the class of `extmem.errors` for the status of a refusal; PeerGoneError without an answer in time, or
        when the broker ends repeatedly; PeerProtocolError; UnsupportedError where no broker runs or can be started.
        """
        if self._busy:
            raise HandleStateError(
                "a signal handler or finalizer used shared memory while a call of this thread was under way; only set "
                "a flag in it"
            )
        if self._later:
            self.free_later()
        # A signal handler can run only in a call, and between `try` and the end of `finally` there are only the calls
        # in the block.
        self._busy = True
        try:
            if self._unsettled is not None and self._sock is not None:
                self._give_up(self._sock, keep=True)
            for _ in _ATTEMPTS:
                sock = self._sock
                if sock is None:
                    sock = self._connect()
                if request.__class__ is bytes:
                    data = request
                else:
                    data = wire.encode(request() if callable(request) else request)
                self._unsettled = data
                try:
                    answer = self._round_trip(sock, data, fds)
                except BaseException:
                    self._give_up(sock, keep=True)
                    raise
                if answer is None:
                    self._give_up(sock, keep=False)
                    continue
                reply, received = answer
                if isinstance(reply, _REFUSALS):
                    self._settle_refusal(sock, reply)
                result = enter(self.state, reply, received)
                # A signal handler cannot run between here and the return, because there is no call.
                self._received += 1
                self._unsettled = None
                return result
        finally:
            self._busy = False
        raise PeerGoneError(
            f"the broker in {self.directory.path} ended {len(_ATTEMPTS)} times in a row on this "
            f"request{self.directory.see_log()}. Try another call; if that fails as well, report this as a bug"
        )

    def _settle_refusal(self, sock: socket.socket, reply: wire.Refusal | wire.Fault) -> NoReturn:
        self._received += 1
        self._unsettled = None
        if type(reply) is wire.Fault:
            self._give_up(sock, keep=False)
        raise self._refused(reply)

    def release_once(self, reference: int) -> None:
        """Release a reference for its owner. If it was released or lost already, nothing happens."""
        with self.lock:
            if reference in self.state.references:
                self._release_reference(reference, known=True)
            self.state.ended.discard(("reference", reference))

    def release(self, reference: int) -> None:
        """Release a reference. Nothing happens for one of the parent of a fork, or one that was lost with a broker."""
        with self.lock:
            known = reference in self.state.references
            if known or not self._gone("reference", reference):
                self._release_reference(reference, known)

    def _release_reference(self, reference: int, known: bool) -> None:
        def request() -> wire.Release:
            held = self.state.references.get(reference)
            return wire.Release(self.number(reference), self.state.forgets(None if held is None else held[0]))

        try:
            self.perform(request, lambda state, reply, fds: state.released(reference))
        except InvalidHandleError:
            if not known and not self._gone("reference", reference):
                raise
            # It was lost over a restart of the broker, which was reported then, or a signal handler has released it.
            self.state.released(reference)
            self.state.ended.discard(("reference", reference))
        except PeerGoneError:
            if not self._gone("reference", reference):
                raise

    def close_handle(self, value: int, entry: HandleEntry | None = None) -> None:
        """CloseHandle. Nothing happens for a handle of the parent of a fork, or one that was lost with a broker.

        entry: the owner of the value. If it does not own it any more, the handle is closed already.
        """
        with self.lock:
            if entry is None:
                self._close_handle(check_handle(value), lambda: True, _nothing)
            else:
                self._close_handle(check_handle(value), lambda: entry.owes, entry.forget)

    def close_lost(self, lost: tuple[int, HeldHandle | None]) -> None:
        """Close a handle whose owner was lost, unless it is closed already: another handle may have its value."""
        value, held = lost
        with self.lock:
            self._close_handle(value, lambda: held is None or self.state.handles.get(value) is held, _nothing)

    def _close_handle(self, value: int, is_open: Callable[[], bool], forget: Callable[[], object]) -> None:
        def request() -> wire.CloseHandle:
            # Checked again here, where a signal handler cannot run between the check and the request.
            if not is_open():
                raise _ClosedMeanwhileError
            held = self.state.handles.get(value)
            return wire.CloseHandle(self.value(value), self.state.forgets(None if held is None else held.payload))

        def closed(state: State, reply: wire.Reply, fds: Sequence[OwnedFd]) -> None:
            state.closed(value)
            forget()

        if not is_open() or (value not in self.state.handles and self._gone("handle", value)):
            return
        try:
            self.perform(request, closed)
        except _ClosedMeanwhileError:
            pass
        except (InvalidHandleError, PeerGoneError):
            if not self._gone("handle", value):
                raise
            # It was lost during the request, with a broker that closed the connection.

    def _gone(self, what: Literal["reference", "handle"], number: int) -> bool:
        """Return whether this has ended: by a call that did not get its reply, or it was lost with a broker."""
        state = self.state
        if (what, number) in state.ended:
            state.ended.discard((what, number))
            return True
        loss = state.reference_loss(number) if what == "reference" else state.handle_loss(number)
        return loss is not None

    def number(self, reference: int) -> int:
        """Return the broker's number of a reference.

        Raises the error of its loss if it is lost. The caller holds `lock`.
        """
        loss = self.state.reference_loss(reference)
        if loss is not None:
            raise loss.error(f"reference {reference:#x} {loss.why}")
        return reference - self.state.base

    def value(self, handle: int) -> int:
        """Return the handle value. Raises the error of its loss if it is lost. The caller holds `lock`."""
        loss = self.state.handle_loss(handle)
        if loss is not None:
            raise loss.error(f"the handle {handle:#x} {loss.why}")
        return handle

    def when_lost(self, verb: Callable[[Any], None], thing: object) -> tuple[Step, Step]:
        """Return the steps of an owner that make a thread call `verb` soon, when the owner is lost."""
        wake = self._wake
        if wake is None:
            wake = self._wake = cleanup_thread.step(self._free_soon)
        return (self._later.append, (verb, thing)), wake

    def bind_later(self, ticket: bytes, child: object) -> None:
        """Bind the ticket to a child process as soon as its object has a `pid` (`multiprocessing` sets it)."""
        self.births.append((ticket, weakref.ref(child)))
        watcher = self._watcher
        if watcher is not None:
            watcher.wake()

    def bind_births(self) -> None:
        """Bind the tickets of `bind_later` whose children have a pid now.

        Withdraw those of children that were not started.
        """
        for _ in range(len(self.births)):
            ticket, reference = self.births.popleft()
            child = reference()
            pid = getattr(child, "pid", None)
            if child is not None and pid is None:
                self.births.append((ticket, reference))
                continue
            try:
                with self.lock:
                    if pid is None or not self.bind(ticket, pid):
                        self.withdraw(ticket)
            except ExtmemError as error:
                # The child has claimed it already: there is nothing to bind.
                _log.debug("binding a ticket to process %s: %s", pid, str(error))

    def bind(self, ticket: bytes, pid: int) -> bool:
        """Bind a ticket of this process to another process. Return False if that has ended. The caller holds `lock`."""
        pidfd = pidfd_of(pid)
        if pidfd is None:
            return False
        process = Process(pid, start_time(pid))

        def bound(state: State, reply: wire.Reply, fds: Sequence[OwnedFd]) -> None:
            offered = state.offered.get(ticket)
            if offered is not None:
                offered.bound = process

        self.perform(wire.BindOffer(ticket), bound, (pidfd.fd,))
        return True

    def withdraw(self, ticket: bytes) -> bool:
        """Withdraw a ticket. Return whether it was in flight. The caller holds `lock`."""

        def withdrawn(state: State, reply: wire.Reply, fds: Sequence[OwnedFd]) -> bool:
            state.offered.pop(ticket, None)
            return type(reply) is wire.Value and bool(reply.value)

        return self.perform(wire.Withdraw(ticket), withdrawn)

    def work(self) -> bool:
        """For the watcher: release what was lost, and bind tickets to children that have been started."""
        self.work_off()
        self.bind_births()
        return bool(self.births)

    def work_off(self) -> None:
        """Release what was lost."""
        if self._later:
            with self.lock:
                self.free_later()

    def _free_soon(self) -> None:
        try:
            self.work_off()
        except (ExtmemError, OSError):
            if self._watcher is not None:
                self._watcher.wake()  # it tries again
            raise

    def free_later(self) -> None:
        """Release what was lost. The caller holds `lock`.

        What cannot be released now is tried again the next time; PeerGoneError, OutOfMemoryError or OSError is raised
        then, as by a request.
        """
        if self._freeing:
            return
        self._freeing = True
        try:
            while self._later:
                verb, thing = self._later[0]  # it stays in the queue until it is done, also after an exception
                try:
                    verb(thing)
                except (PeerGoneError, OutOfMemoryError, OSError):
                    raise
                except ExtmemError as error:
                    _log.warning("releasing %s after its owner was lost: %s", str(thing), str(error))
                self._later.popleft()
        finally:
            self._freeing = False

    def probe(self, request: wire.GetStatus | wire.Stop) -> wire.Reply | None:
        """Send a request about the broker over a new connection. Return None where no broker runs; none is started.

        Raises the class of `extmem.errors` for the status of a refusal, and as `exchange`.
        """
        sock = self._reach(start=False)
        if sock is None:
            return None
        try:
            answer = self._round_trip(sock, wire.encode(request))
        finally:
            sock.close()
        if answer is None:
            return None
        reply = answer[0]
        if isinstance(reply, _REFUSALS):
            raise self._refused(reply)
        return reply

    def _refused(self, refusal: wire.Refusal | wire.Fault) -> ExtmemError:
        if isinstance(refusal, wire.Fault):
            return PeerProtocolError(f"the broker in {self.directory.path} closed the connection: {refusal.detail}")
        detail = refusal.detail
        if refusal.status == Status.OBJECT_NAME_NOT_FOUND:
            detail = f"{detail} {where_looked(self.directory)}"
        elif refusal.status in (Status.INVALID_CID, Status.INVALID_HANDLE):
            detail += of_other_versions(self.directory)
        return error_for(refusal.status, detail)

    def close(self) -> None:
        """Close the connection. All that this process holds in the broker ends."""
        with self.lock:
            self.closed = True
            watcher, self._watcher = self._watcher, None
            self._close_sockets()
            self.state = State(self.state.generation)
        if watcher is not None:
            watcher.stop()

    def before_fork(self) -> None:
        """End the watcher's thread, so that the process does not fork with a thread of this library."""
        if self._watcher is not None:
            self._watcher.pause()

    def after_fork_in_parent(self) -> None:
        """Start the watcher's thread again."""
        if self._watcher is not None:
            self._watcher.resume()

    def after_fork(self) -> None:
        """In the child: hold nothing. Closing the copy of the socket does not shut down the parent's connection."""
        self.lock = self._new_lock()
        self._close_sockets()
        if self._watcher is not None:
            self._watcher.after_fork()
            self._watcher = None
        self._later = deque()
        self._wake = None
        self.births = deque()
        self._busy = self._freeing = False
        self._received = 0
        self.state = self.state.after_fork()


class _ClosedMeanwhileError(Exception):
    """A signal handler has closed the handle since."""


def _nothing() -> None:
    """Used where a handle has no entry."""


def _for_each_client(action: Callable[[Client], None]) -> Callable[[], None]:
    """Return a function that calls a method of each client."""

    def call() -> None:
        for client in list(_clients):
            action(client)

    return call


os.register_at_fork(
    before=_for_each_client(Client.before_fork),
    after_in_parent=_for_each_client(Client.after_fork_in_parent),
    after_in_child=_for_each_client(Client.after_fork),
)
