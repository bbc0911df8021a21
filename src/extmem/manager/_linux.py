"""The object manager on Linux: this process's calls to its broker, as errors and records of the library.

How this works. Each call is one message to the broker and one back. Under the client's lock the reply is entered in
the client's state (`broker.state`), so that what this process holds can be announced to another broker. A handle that
another process duplicated into ours is unknown to the state until its first use, when the broker is asked about it
(`_know`).
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the broker is Linux's; extmem.manager picks what the system has")

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from extmem.broker import wire
from extmem.broker.client import TIMEOUT, Client
from extmem.broker.descriptors import Imported, OwnedFd
from extmem.broker.fitting import (
    fit_descriptor,
    fit_handle,
    fit_mask,
    fit_name,
    fit_number,
    fit_sddl,
    fit_ticket,
)
from extmem.broker.paths import RuntimeDir, runtime_directory
from extmem.broker.payloads import is_writable
from extmem.broker.state import GENERATION
from extmem.broker.wire import Kind
from extmem.errors import HandleStateError, PeerProtocolError, UnsupportedError
from extmem.handles import HandleInfo, fds
from extmem.manager._api import BrokerStatus, Exported, Manager
from extmem.objects import MAXIMUM_ALLOWED, PayloadRow, Share

__all__ = ["LinuxManager", "manager", "process_name"]

_OPENS = 1_024
_PROTECT = 2
_INHERIT = 1


class LinuxManager(Manager):
    """This process's client of the broker in one runtime directory."""

    def __init__(self, directory: RuntimeDir | None = None, *, timeout: float = TIMEOUT) -> None:
        self.client = Client(runtime_directory() if directory is None else directory, timeout=timeout)
        self._opens: dict[tuple[str, int], bytes] = {}

    # -- memory objects -----------------------------------------------------------------------------------------------

    def export(
        self,
        fd: int,
        descriptor: bytes,
        *,
        share: Share,
        name: str | None,
        access: int,
        sddl: str | None,
        inherit: bool,
        strict_kmt: bool = False,
        kind: Kind = Kind.HOST,
        identity: int = 0,
    ) -> Exported:
        """Share a payload; name, shared object and KMT number exist from here on (B13).

        fd: borrowed. kind: what it is; `identity` tells apart the payloads of kinds whose fds the kernel does not.
        """
        if name is not None:
            fit_name(name)
            self._check_global(name)
        request = wire.Export(
            kind,
            fit_descriptor(descriptor),
            int(share),
            name,
            fit_mask(access),
            fit_sddl(sddl),
            inherit,
            strict_kmt,
            identity,
        )
        client = self.client
        # Whatever can fail here does so before the broker knows of the payload: nobody would give that back.
        writable = is_writable(kind, fd)
        kept = OwnedFd(fds.duplicate(fd))
        with client.lock:
            reply, _ = client.exchange(request, fd)
            if type(reply) is not wire.Exported:
                _unexpected(reply)
            client.state.exported(request, reply, kept, writable=writable)
            memory = reply.memory + client.state.base
        return Exported(memory, reply.payload, reply.object, reply.kmt)

    def security_text(self, security: str | bytes | int | None) -> str | None:
        """A security descriptor of `vk.SecurityAttributes` as SDDL text. UnsupportedError for a binary one."""
        if security is not None and not isinstance(security, str):
            raise UnsupportedError(
                f"SecurityAttributes.security_descriptor is a {type(security).__name__}: binary descriptors are for "
                'Windows; write it as SDDL text, such as "D:(A;;GR;;;WD)"',
                requires_one_of=["SDDL text"],
            )
        return security

    def import_by_name(self, name: str, desired: int = MAXIMUM_ALLOWED) -> Imported:
        """A memory object by name, with the rights asked for, or all that the object's security allows."""
        request = self._opens.get((name, desired))
        if request is None:
            request = self._prepare_open(name, desired)
        client = self.client
        with client.lock:
            reply, fd = client.exchange_encoded(request)
            return client.state.imported(request, reply, fd)

    def _prepare_open(self, name: str, desired: int) -> bytes:
        """The encoded request. Programs open the same names again and again."""
        fit_name(name)
        self._check_global(name)
        if len(self._opens) >= _OPENS:
            self._opens.clear()
        request = self._opens[name, desired] = wire.encode(wire.ImportName(name, fit_mask(desired)))
        return request

    def import_by_handle(self, handle: int) -> Imported:
        """A memory object by NT handle, with the handle's rights. The handle stays the caller's (B76)."""
        client = self.client
        with client.lock:
            request = wire.encode(wire.ImportHandle(self._know(handle)))
            return client.state.imported(request, *client.exchange_encoded(request))

    def import_by_kmt(self, number: int) -> Imported:
        """A memory object by KMT number."""
        client = self.client
        with client.lock:
            request = wire.encode(wire.ImportKmt(fit_number(number)))
            return client.state.imported(request, *client.exchange_encoded(request))

    def free(self, memory: int) -> None:
        """Free a memory object. One that a fork left behind is not ours: nothing happens."""
        self.client.free(memory)

    def free_later(self, memory: int) -> None:
        """Free soon, from a finalizer: does not block, call back or raise."""
        self.client.later(self.client.free, memory)

    # -- handles ------------------------------------------------------------------------------------------------------

    def get_handle(self, memory: int) -> int:
        """A new handle of the object that this memory exports, with the access and inherit flag of the export (B29)."""
        client = self.client
        with client.lock:
            return self._handle(*client.exchange(wire.GetHandle(self._number(memory))))

    def open_handle(self, name: str, desired: int, inherit: bool = False) -> int:
        """A new handle by name (B15)."""
        fit_name(name)
        self._check_global(name)
        client = self.client
        with client.lock:
            return self._handle(*client.exchange(wire.OpenHandle(name, fit_mask(desired), inherit)))

    def _handle(self, reply: wire.Reply, fd: OwnedFd | None) -> int:
        if type(reply) is not wire.Handle:
            _unexpected(reply)
        self.client.state.handle(reply, fd)
        return reply.handle

    def close(self, value: int) -> None:
        """CloseHandle."""
        self.client.close_handle(value)

    def close_later(self, value: int) -> None:
        """Close soon, from a finalizer: does not block, call back or raise."""
        self.client.later(self.client.close_handle, value)

    def duplicate(
        self,
        value: int,
        *,
        desired: int | None,
        inherit: bool,
        same_attributes: bool,
        close_source: bool,
        into: int | None,
    ) -> int:
        """DuplicateHandle; as `NtHandleTable.duplicate`."""
        client = self.client
        mask = None if desired is None else fit_mask(desired)
        with client.lock:
            state = client.state
            source = self._know(value)
            held = state.handles.get(source)
            closes = close_source and held is not None and not held.protect
            forget = state.forgets(held.payload) if closes and held is not None else 0
            request = wire.Duplicate(source, mask, inherit, same_attributes, close_source, into, forget)
            try:
                reply, fd = client.exchange(request)
            finally:
                if closes:
                    state.closed(source)
            if type(reply) is wire.Value:
                return reply.value
            return self._handle(reply, fd)

    def same_object(self, a: int, b: int) -> bool:
        """CompareObjectHandles."""
        client = self.client
        with client.lock:
            reply, _ = client.exchange(wire.SameObject(self._know(a), self._know(b)))
        return bool(_value(reply))

    def info(self, value: int) -> HandleInfo:
        """GetHandleInformation and NtQueryObject."""
        client = self.client
        with client.lock:
            reply, _ = client.exchange(wire.QueryHandle(self._know(value)))
        if type(reply) is not wire.HandleState:
            _unexpected(reply)
        return HandleInfo(
            reply.inherit,
            reply.protect,
            reply.granted,
            reply.type_name,
            reply.name,
            reply.object,
            reply.handle_count,
        )

    def set_flags(self, value: int, mask: int, flags: int) -> None:
        """SetHandleInformation."""
        client = self.client
        with client.lock:
            source = self._know(value)
            client.exchange(wire.SetFlags(source, mask & 0xFF, flags & 0xFF))
            held = client.state.handles.get(source)
            if held is not None:
                held.inherit = bool(flags & _INHERIT) if mask & _INHERIT else held.inherit
                held.protect = bool(flags & _PROTECT) if mask & _PROTECT else held.protect

    def _know(self, value: int) -> int:
        """The value as the table knows it. Makes sure that the state knows it too, if it is a handle at all."""
        value = fit_handle(value)
        client = self.client
        if value not in client.state.handles:
            if value in client.state.left_behind:
                raise HandleStateError(
                    f"the handle {value:#x} is the parent's: fork does not inherit handles. Start children with spawn"
                )
            self._handle(*client.exchange(wire.Hold(value)))
        return value

    def _number(self, memory: int) -> int:
        generation, number = divmod(memory, GENERATION)
        if generation < self.client.state.generation:
            raise HandleStateError(
                f"memory object {memory:#x} is the parent's: fork does not share it. Start children with spawn"
            )
        return number

    # -- KMT numbers and tickets --------------------------------------------------------------------------------------

    def kmt_alive(self, number: int) -> bool:
        """Whether an import by this number would find something now."""
        if not 0 <= number <= 0xFFFF_FFFF:
            return False
        client = self.client
        with client.lock:
            reply, _ = client.exchange(wire.KmtAlive(number))
        return bool(_value(reply))

    def offer(self, *, memory: int | None = None, handle: int | None = None, kmt: int | None = None) -> bytes:
        """A ticket of 16 bytes for exactly one of the three, to be sent to another process by any road.

        It keeps what it stands for alive until it is claimed or withdrawn, for a minute at most, or (`bind_offer`) as
        long as the process lives that it is for; and never longer than this process lives.
        """
        client = self.client
        with client.lock:
            number = None if memory is None else self._number(memory)
            source = None if handle is None else self._know(handle)
            request = wire.Offer(number, source, None if kmt is None else fit_number(kmt))
            reply, _ = client.exchange(request)
            if type(reply) is not wire.Ticket:
                _unexpected(reply)
            client.state.offers(reply.ticket, wire.Offer(memory, source, kmt))
        return reply.ticket

    def claim(self, ticket: bytes) -> Imported | int:
        """What a ticket stands for, once: a memory object, a handle of this process, or a KMT number."""
        client = self.client
        fit_ticket(ticket)
        with client.lock:
            reply, fd = client.exchange(wire.Claim(ticket))
            client.state.claimed.append(ticket)
            if type(reply) is wire.Kmt:
                return reply.number
            if type(reply) is wire.Handle:
                return self._handle(reply, fd)
            return client.state.imported(b"", reply, fd)

    def bind_offer(self, ticket: bytes, pid: int) -> None:
        """The ticket is for that process: it stays strong until claimed, and is withdrawn when the process dies."""
        client = self.client
        with client.lock:
            client.exchange(wire.BindOffer(fit_ticket(ticket), pid))
            offered = client.state.offered.get(ticket)
            if offered is not None:
                offered.pid = pid

    def bind_offer_to(self, ticket: bytes, child: object) -> None:
        """As `bind_offer`, for a child that is being started: its object gets a `pid` in a moment."""
        self.client.bind_later(fit_ticket(ticket), child)

    def withdraw(self, ticket: bytes) -> bool:
        """Take an offer back. False when it has been claimed or has ended."""
        client = self.client
        with client.lock:
            reply, _ = client.exchange(wire.Withdraw(fit_ticket(ticket)))
            client.state.offered.pop(ticket, None)
        return bool(_value(reply))

    # -- processes and the broker itself ------------------------------------------------------------------------------

    def inherit_socket(self, handles: Sequence[int] | None = None) -> socket.socket:
        """A channel for a child that is about to be started and is to inherit the inheritable handles of now (B30).

        handles: only these (each must be inheritable, or InvalidHandleError); None is all inheritable ones.
        Ownership: the caller's. Pass its fd to the child with `EXTMEM_INHERIT_FD=<fd>` in its environment, and close
        it here once the child has started: a child that dies without a word then gives its handles back.
        """
        client = self.client
        with client.lock:
            reply, fd = client.exchange(wire.Inherit(None if handles is None else tuple(map(fit_handle, handles))))
        if type(reply) is not wire.Channel or fd is None:
            _unexpected(reply)
        return socket.socket(fileno=fd.take())

    def snapshot(self) -> list[PayloadRow]:
        """All live payloads and who holds them."""
        client = self.client
        with client.lock:
            reply, fd = client.exchange(wire.Snapshot())
        if type(reply) is not wire.SnapshotFile or fd is None:
            _unexpected(reply)
        with open(fd.take(), "rb") as file:
            file.seek(0)
            return wire.decode_snapshot(file.read(reply.size))

    def status(self) -> BrokerStatus | None:
        """The running broker; None where there is none. Starts none."""
        reply = self.client.probe(wire.GetStatus())
        if reply is None:
            return None
        if type(reply) is not wire.BrokerState:
            _unexpected(reply)
        return BrokerStatus(
            reply.pid,
            reply.version,
            str(self.client.directory.socket),
            reply.uptime_ms / 1000,
            reply.clients,
            reply.payloads,
            reply.fds,
            reply.resident_kib * 1024,
        )

    def stop(self, *, force: bool = False) -> bool:
        """Ask the broker to leave. True when none runs any more; False when other processes use it and `force` is not
        set.

        Forced, nobody loses anything: whoever holds something starts a new broker and announces it there.
        """
        reply = self.client.probe(wire.Stop(force))
        return reply is None or _value(reply) == 0

    def disconnect(self) -> None:
        """Leave the broker now. All memory objects and handles of this manager end; it cannot be used again."""
        self.client.close()

    def _check_global(self, name: str) -> None:
        if name[:7].casefold() == "global\\" and not self.client.directory.system:
            raise UnsupportedError(
                f"{name!r}: names under Global\\ are shared by all users of the machine, which on Linux takes a "
                "system broker "
                "(/run/extmem/broker.sock, started by root with `python -m extmem.broker --system`). This user's "
                "broker serves "
                "names without Global\\",
                requires_one_of=["a system broker"],
            )


def _value(reply: wire.Reply) -> int:
    if type(reply) is not wire.Value:
        _unexpected(reply)
    return reply.value


def _unexpected(reply: wire.Reply) -> NoReturn:
    raise PeerProtocolError(f"the broker answered with {type(reply).__name__}, which is no answer to that request")


def process_name(pid: int) -> str:
    """What a process calls itself; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


_managers: dict[RuntimeDir, LinuxManager] = {}
_current: LinuxManager | None = None


def manager() -> Manager:
    """This process's manager, of the runtime directory that the environment named at the first call.

    Connects when it is first asked for something. After `disconnect` the environment is read again.
    """
    found = _current
    return _choose() if found is None or found.client.closed else found


def _choose() -> LinuxManager:
    global _current
    directory = runtime_directory()
    kept = _managers.get(directory)
    if kept is not None and kept.client.closed:
        del _managers[directory]
    # Two threads may both make one; the first that is kept is everybody's, the other has not connected.
    _current = _managers.setdefault(directory, LinuxManager(directory))
    return _current
