"""The client's end: one connection of this process to its broker, thread-safe, with a deadline, outliving the broker.

How this works. A request and its reply are one round trip in a turn (`turns`). When the broker has gone, whoever
notices first connects again (`connecting`), starting a new broker if there is none: the caller whose request was cut
off, or the watcher thread (`reconnect`) if nobody calls. A request that got no reply because the broker has gone is
then sent again. That is right for every kind: a broker that died before it answered took the request's effect with it,
because the next broker knows only what the clients announce, and they announce what they were answered.

A reply that does not come in time, or a call cut off by an exception such as KeyboardInterrupt, leaves the connection
out of step, and so does an exception between a reply and the end of its entry in the state. The caller is told, and
nothing is sent again; the next request, or the watcher, goes on with the session over another connection, and what the
request made is undone.

A signal handler that runs in the middle of a turn is in that turn, as turns of one thread nest. From the moment on at
which a request is made until its reply is entered, what it asks is refused (`_busy`); at other moments it is answered.

What is lost (`extmem.owning`) is freed at the beginning of the next request, or soon by a thread.

After `os.fork()` the child has no connection and holds nothing (the broker knows processes, not copies of them).
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the broker runs on Linux only; extmem.manager selects what the system has")

import logging
import os
import socket
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from extmem import wire
from extmem.broker.client_journal import start_time
from extmem.errors import (
    ExtmemError,
    HandleStateError,
    InvalidHandleError,
    OutOfMemoryError,
    PeerGoneError,
    PeerProtocolError,
)
from extmem.manager.linux.connection import INHERIT_VARIABLE, TIMEOUT, Answer, Connecting, pidfd_of
from extmem.manager.linux.held import HeldHandle, Process, State
from extmem.manager.linux.search import of_other_versions, where_looked
from extmem.manager.linux.validate import fit_handle
from extmem.objects import Status, error_for
from extmem.owning import OwnedFd, Step, cleanup_thread
from extmem.wire.runtime_dir import RuntimeDir

if TYPE_CHECKING:
    from extmem.handles import HandleEntry

__all__ = ["INHERIT_VARIABLE", "TIMEOUT", "Asked", "Client"]

T = TypeVar("T")
Asked: TypeAlias = wire.Request | Callable[[], wire.Request]
_ATTEMPTS: Final = range(4)
_log = logging.getLogger("extmem.broker")
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client(Connecting):
    """The connection. Whoever calls `exchange` holds `lock`, and changes `state` under the same hold."""

    def __init__(self, directory: RuntimeDir, *, timeout: float = TIMEOUT) -> None:
        super().__init__(directory, timeout=timeout)
        self.births: deque[tuple[bytes, weakref.ref[object]]] = deque()
        """Tickets for children that are being started."""
        self._later: deque[tuple[Callable[[Any], None], Any]] = deque()
        """What lost owners have left: a verb, which is safe to repeat, and what it is called with."""
        self._wake: Step | None = None
        self._busy = self._freeing = False
        _clients.add(self)

    # -- requests -----------------------------------------------------------------------------------------------------

    def exchange(self, request: Asked, fds: Sequence[int] = ()) -> Answer:
        """One request, one reply, and nothing to be entered in `state`. The caller holds `lock`; else as `perform`.

        `fds` are borrowed, received ones belong to the caller.
        """
        return self.perform(request, _as_it_is, fds)

    def perform(
        self, request: Asked | bytes, enter: Callable[[wire.Reply, Sequence[OwnedFd]], T], fds: Sequence[int] = ()
    ) -> T:
        """Send one request, receive its reply, and enter what it changes in `state`. The caller holds `lock`.

        fds: borrowed. They are sent beside the request; if they are more than one packet can carry, the first ones are
            sent before it (`AttachFds`). Handles that a reply does not carry are fetched (`FetchFds`).

        request: it may be encoded already. One that depends on `state` is given as a function: it is called when there
            is a connection, and again for another one. enter: enters the reply in `state`, and gives this call's
            result. After an exception in it the request counts as not answered: what it made is undone.
        Raises the class of `extmem.errors` that a refusal stands for; PeerGoneError when there is no answer in time or
        the broker dies again and again; PeerProtocolError; UnsupportedError where there is no broker to be had.
        """
        if self._busy:
            raise HandleStateError(
                "a signal handler or finalizer used shared memory while a call of this thread was under way; only set "
                "a flag in it"
            )
        if self._later:
            self.free_later()
        # No call is between `try` and the end of `finally` but those in the block: a signal handler runs there or not
        # at all.
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
                    answer = self._whole_trip(sock, data, fds)
                except BaseException:
                    self._give_up(sock, keep=True)
                    raise
                if answer is None:
                    self._give_up(sock, keep=False)
                    continue
                reply, received = answer
                kind = reply.__class__
                if kind is wire.Refusal or kind is wire.Fault:
                    self._settle_refusal(sock, reply)
                result = enter(reply, received)
                # No signal handler runs between here and the return: there is no call.
                self._received += 1
                self._unsettled = None
                return result
        finally:
            self._busy = False
        raise PeerGoneError(
            f"the broker in {self.directory.path} died {len(_ATTEMPTS)} times in a row on this request; see "
            f"{self.directory.log}"
        )

    def _settle_refusal(self, sock: socket.socket, reply: wire.Reply) -> None:
        self._received += 1
        self._unsettled = None
        if type(reply) is wire.Refusal:
            raise self._refused(reply)
        if type(reply) is wire.Fault:
            self._give_up(sock, keep=False)
            raise PeerProtocolError(f"the broker in {self.directory.path} hung up: {reply.detail}")

    def release_once(self, reference: int) -> None:
        """`free`, for the owner of a memory object: where that is gone already, nothing happens."""
        with self.lock:
            if reference in self.state.references:
                self._release_reference(reference, known=True)
            self.state.ended.discard(("reference", reference))

    def release(self, reference: int) -> None:
        """Free a memory object. One that a fork left behind, or that was lost with a broker, is not there: nothing
        happens.
        """
        with self.lock:
            known = reference in self.state.references
            if known or not self._gone("reference", reference):
                self._release_reference(reference, known)

    def _release_reference(self, reference: int, known: bool) -> None:
        def request() -> wire.Release:
            held = self.state.references.get(reference)
            return wire.Release(self.number(reference), self.state.forgets(None if held is None else held[0]))

        try:
            self.perform(request, lambda reply, fds: self.state.released(reference))
        except InvalidHandleError:
            if not known and not self._gone("reference", reference):
                raise
            # The broker lost it over a restart (and said so then), or a signal handler has freed it since: it is gone.
            self.state.released(reference)
            self.state.ended.discard(("reference", reference))
        except PeerGoneError:
            if not self._gone("reference", reference):
                raise

    def close_handle(self, value: int, entry: HandleEntry | None = None) -> None:
        """CloseHandle. One that a fork left behind, or that was lost with a broker, is not there: nothing happens.

        entry: whose value it is; where it owes nothing, it has been closed.
        """
        with self.lock:
            if entry is None:
                self._close_handle(fit_handle(value), lambda: True, _nothing)
            else:
                self._close_handle(fit_handle(value), lambda: entry.owes, entry.forget)

    def close_lost(self, lost: tuple[int, HeldHandle | None]) -> None:
        """`close_handle` of a value whose owner was lost, unless it is closed; then another handle may have it."""
        value, held = lost
        with self.lock:
            self._close_handle(value, lambda: held is None or self.state.handles.get(value) is held, _nothing)

    def _close_handle(self, value: int, is_open: Callable[[], bool], forget: Callable[[], object]) -> None:
        def request() -> wire.CloseHandle:
            # Asked once more where no signal handler can come between this and the request.
            if not is_open():
                raise _ClosedMeanwhileError
            held = self.state.handles.get(value)
            return wire.CloseHandle(self.value(value), self.state.forgets(None if held is None else held.payload))

        def closed(reply: wire.Reply, fds: Sequence[OwnedFd]) -> None:
            self.state.closed(value)
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
            # It was lost over the request, with a broker that hung up.

    def _gone(self, what: Literal["reference", "handle"], number: int) -> bool:
        """Whether this has ended already: by a call that did not learn of it, or it was lost with a broker."""
        state = self.state
        if (what, number) in state.ended:
            state.ended.discard((what, number))
            return True
        loss = state.reference_loss(number) if what == "reference" else state.handle_loss(number)
        return loss is not None

    def number(self, reference: int) -> int:
        """The broker's number of a memory object. Raises what is to be raised for one that is gone. Under `lock`."""
        loss = self.state.reference_loss(reference)
        if loss is not None:
            raise loss.error(f"memory object {reference:#x} {loss.why}")
        return reference - self.state.base

    def value(self, handle: int) -> int:
        """The same value. Raises what is to be raised for a handle that is gone. Under `lock`."""
        loss = self.state.handle_loss(handle)
        if loss is not None:
            raise loss.error(f"the handle {handle:#x} {loss.why}")
        return handle

    def when_lost(self, verb: Callable[[Any], None], thing: object) -> tuple[Step, Step]:
        """The steps of an owner that call `free_once` or `close_lost` soon, when it is lost."""
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
        """Do what `bind_later` has collected and can be done by now. A child that was never started gets nothing."""
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
                _log.debug("binding a ticket to process %s: %s", pid, error)

    def bind(self, ticket: bytes, pid: int) -> bool:
        """Bind a ticket of this process's to another. False if that has ended. The caller holds `lock`."""
        pidfd = pidfd_of(pid)
        if pidfd is None:
            return False
        process = Process(pid, start_time(pid))

        def bound(reply: wire.Reply, fds: Sequence[OwnedFd]) -> None:
            offered = self.state.offered.get(ticket)
            if offered is not None:
                offered.bound = process

        self.perform(wire.BindOffer(ticket), bound, (pidfd.fd,))
        return True

    def withdraw(self, ticket: bytes) -> bool:
        """Take an offer back. Whether it was in flight still. The caller holds `lock`."""

        def withdrawn(reply: wire.Reply, fds: Sequence[OwnedFd]) -> bool:
            self.state.offered.pop(ticket, None)
            return type(reply) is wire.Value and bool(reply.value)

        return self.perform(wire.Withdraw(ticket), withdrawn)

    def work(self) -> bool:
        """For the watcher: free what was lost, bind tickets to children that have been started."""
        self.work_off()
        self.bind_births()
        return bool(self.births)

    def work_off(self) -> None:
        """Free what was lost."""
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
        """Free what was lost; the caller holds `lock`. What cannot be given back now is tried again the next time: then
        PeerGoneError, OutOfMemoryError or OSError is raised, as by a request.
        """
        if self._freeing:
            return
        self._freeing = True
        try:
            while self._later:
                verb, thing = self._later[0]  # it stays there until it is done, whatever is raised
                try:
                    verb(thing)
                except (PeerGoneError, OutOfMemoryError, OSError):
                    raise
                except ExtmemError as error:
                    _log.warning("giving back %s after its owner was lost: %s", thing, error)
                self._later.popleft()
        finally:
            self._freeing = False

    def probe(self, request: wire.GetStatus | wire.Stop) -> wire.Reply | None:
        """Ask the broker about itself, over a connection of its own: None where there is none. Starts none.

        Raises the class of `extmem.errors` that a refusal stands for, and as `exchange`.
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
        if type(reply) is wire.Refusal:
            raise self._refused(reply)
        if type(reply) is wire.Fault:
            raise PeerProtocolError(f"the broker in {self.directory.path} hung up: {reply.detail}")
        return reply

    def _refused(self, refusal: wire.Refusal) -> ExtmemError:
        detail = refusal.detail
        if refusal.status == Status.OBJECT_NAME_NOT_FOUND:
            detail = f"{detail} {where_looked(self.directory)}"
        elif refusal.status in (Status.INVALID_CID, Status.INVALID_HANDLE):
            detail += of_other_versions(self.directory)
        return error_for(refusal.status, detail)

    def close(self) -> None:
        """Leave the broker: all that this process holds there ends."""
        with self.lock:
            self.closed = True
            watcher, self._watcher = self._watcher, None
            self._close_sockets()
            self.state = State(self.state.generation)
        if watcher is not None:
            watcher.stop()

    def before_fork(self) -> None:
        """End the watcher's thread, so that no child is born of a process with threads that are ours."""
        if self._watcher is not None:
            self._watcher.pause()

    def after_fork_in_parent(self) -> None:
        """Have the watcher go on."""
        if self._watcher is not None:
            self._watcher.resume()

    def after_fork(self) -> None:
        """In the child: nothing of this is ours. The parent's connection is not shut down by closing our copy."""
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
    """What a close without an entry has to forget."""


def _as_it_is(reply: wire.Reply, fds: Sequence[OwnedFd]) -> Answer:
    return reply, fds


def _before_fork() -> None:
    for client in list(_clients):
        client.before_fork()


def _after_fork_in_parent() -> None:
    for client in list(_clients):
        client.after_fork_in_parent()


def _after_fork() -> None:
    for client in list(_clients):
        client.after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
