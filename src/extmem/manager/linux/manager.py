"""The object manager on Linux: sends this process's calls to its broker, and returns the library's records and errors.

How this works. Each call is one request and one reply. Under the client's lock the reply is entered in the client's
state (`held`), so that what this process holds can be announced to another broker. A handle that another process
duplicated into this one is not in the state until its first use, when the broker is asked for it (`_known_value`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from extmem import wire
from extmem.arguments import a_type
from extmem.errors import ObjectManagerError, UnsupportedError
from extmem.handles import HandleEntry, HandleInfo
from extmem.manager.api import Manager, Reference
from extmem.manager.linux.broker_control import expect
from extmem.manager.linux.client import TIMEOUT, Asked, Client
from extmem.manager.linux.held import State
from extmem.manager.linux.naming import Naming
from extmem.manager.linux.pidfd import pidfd_of
from extmem.manager.linux.records import HeldHandle
from extmem.manager.linux.validate import (
    check_handle,
    check_mask,
    check_number,
    check_payload,
    check_sddl,
    check_ticket,
    stamped_ticket,
)
from extmem.objects import MAXIMUM_ALLOWED, Share, Status, error_for
from extmem.owning import LateModule, OwnedFd, Step, copy_fd, out_of_descriptors
from extmem.sharing.bounded import Bounded
from extmem.sharing.keeping import NOT_KEPT, Keep
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.payload import FilesAgain, Page
from extmem.sharing.terms import Exported, Imported
from extmem.wire.runtime_dir import RuntimeDir, runtime_directory

if TYPE_CHECKING:
    from extmem.broker import fd_inspection
else:
    fd_inspection = LateModule(globals(), "extmem.broker.fd_inspection")

__all__ = ["LinuxManager", "manager", "process_name"]

_OPENS = 1_024
_PROTECT = 2
_INHERIT = 1


class LinuxManager(Naming):
    """This process's client of the broker in one runtime directory."""

    def __init__(self, directory: RuntimeDir | None = None, *, timeout: float = TIMEOUT) -> None:
        super().__init__(Client(runtime_directory() if directory is None else directory, timeout=timeout))
        self._opens: Bounded[tuple[str, int, int], bytes] = Bounded(_OPENS)

    # -- references -----------------------------------------------------------------------------------------------

    def export(
        self,
        handles: Sequence[int],
        descriptor: bytes,
        *,
        share: Share,
        name: str | None,
        access: int,
        sddl: str | None,
        inherit: bool,
        strict_kmt: bool = False,
        object_kind: ObjectKind = ObjectKind.MEMORY,
        backing: Backing = Backing.HOST_FILE,
        identity: int = 0,
        pages: Sequence[Page] = (),
        reference: Reference | None = None,
        replace: bool = False,
        keep: Keep = NOT_KEPT,
    ) -> Exported:
        if name is not None:
            self._check_name(name)
        fds = [*handles]
        modes: tuple[int, ...] = ()
        judged = handles
        if pages:
            judged = [*handles, *(page.handle for page in pages if page.by_rights)]
            fds += [page.handle for page in pages]
            modes = tuple(map(_page_mode, pages))
        check_payload(descriptor, len(fds), len(pages))
        request = wire.Export(
            object_kind,
            backing,
            len(fds),
            descriptor,
            int(share),
            name,
            check_mask(access),
            check_sddl(sddl, object_kind),
            inherit,
            strict_kmt,
            identity,
            modes,
            replace,
            keep.mode,
            keep.milliseconds,
        )
        client = self.client
        # All that can fail here fails before the broker has the payload, which no one would release.
        writable = all(map(fd_inspection.is_writable, judged))
        try:
            kept = list(map(copy_fd, fds))
        except OSError as error:
            raise out_of_descriptors(error, "dup") from None

        def enter(state: State, reply: wire.Reply, received: Sequence[OwnedFd]) -> Exported:
            exported = expect(reply, wire.Exported)
            number = state.exported(request, exported, kept, writable=writable, owner=reference)
            return Exported(number, exported.payload, exported.object, exported.kmt)

        with client.lock:
            return client.perform(request, enter, fds)

    def security_text(self, security: str | bytes | int | None) -> str | None:
        """Return a security descriptor of `vk.SecurityAttributes` as SDDL text. UnsupportedError for a binary one."""
        if security is not None and not isinstance(security, str):
            raise UnsupportedError(
                f"SecurityAttributes.security_descriptor is {a_type(security)}: binary descriptors are for "
                'Windows; write it as SDDL text, such as "D:(A;;GR;;;WD)"',
                requires_one_of=["SDDL text"],
            )
        return security

    def import_by_name(
        self,
        name: str,
        desired: int = MAXIMUM_ALLOWED,
        reference: Reference | None = None,
        *,
        of_a_gpu: bool = False,
        object_kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported:
        request = self._opens.get((name, desired, object_kind))
        if request is None:
            request = self._prepare_open(name, desired, object_kind)
        client = self.client
        with client.lock:
            return client.perform(request, partial(State.imported, request=request, owner=reference))

    def _prepare_open(self, name: str, desired: int, object_kind: ObjectKind) -> bytes:
        """Return the encoded request. It is cached, since programs open the same names repeatedly."""
        self._check_name(name)
        request = wire.encode(wire.ImportName(name, check_mask(desired), object_kind))
        return self._opens.keep((name, desired, object_kind), request)

    def import_by_handle(
        self, handle: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        client = self.client
        with client.lock:
            value = self._known_value(handle)
            key = wire.encode(wire.ImportHandle(value, object_kind))
            return client.perform(
                lambda: wire.ImportHandle(client.value(value), object_kind),
                partial(State.imported, request=key, owner=reference),
            )

    def import_by_kmt(
        self, number: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        client = self.client
        with client.lock:
            request = wire.encode(wire.ImportKmt(check_number(number), object_kind))
            return client.perform(request, partial(State.imported, request=request, owner=reference))

    def release(self, number: int) -> None:
        self.client.release(number)

    def set_files_aside(self, number: int, count: int, again: FilesAgain | None) -> None:
        client = self.client
        with client.lock:
            client.state.set_aside(number, count, again)

    def release_once(self, number: int) -> None:
        self.client.release_once(number)

    def when_reference_lost(self, number: int) -> tuple[Step, Step]:
        client = self.client
        return client.when_lost(client.release_once, number)

    # -- handles ------------------------------------------------------------------------------------------------------

    @property
    def lock(self) -> AbstractContextManager[object]:
        return self.client.lock

    def when_lost(self, value: int) -> tuple[Step, Step]:
        client = self.client
        return client.when_lost(client.close_lost, (value, client.state.handles.get(value)))

    def get_handle(self, number: int, entry: HandleEntry | None = None) -> int:
        with self.client.lock:
            return self._handle(lambda: wire.GetHandle(self.client.number(number)), entry)

    def open_handle(self, name: str, desired: int, inherit: bool = False, entry: HandleEntry | None = None) -> int:
        self._check_name(name)
        with self.client.lock:
            return self._handle(wire.OpenHandle(name, check_mask(desired), inherit), entry)

    def _handle(self, request: Asked, entry: HandleEntry | None = None) -> int:
        """Send a request whose reply is a handle, and return the handle. The caller holds `lock`."""
        return self.client.perform(request, partial(_entered, entry=entry))

    def close(self, value: int, entry: HandleEntry | None = None) -> None:
        self.client.close_handle(value, entry)

    def duplicate(
        self,
        value: int,
        *,
        desired: int | None,
        inherit: bool,
        same_attributes: bool,
        close_source: bool,
        into: int | None,
        entry: HandleEntry | None = None,
        source_entry: HandleEntry | None = None,
    ) -> int:
        client = self.client
        mask = None if desired is None else check_mask(desired)
        with client.lock:
            source = self._known_value(value)
            elsewhere = into is not None and into != os.getpid()
            target = pidfd_of(into) if into is not None and elsewhere else None

            def closes() -> HeldHandle | None:
                held = client.state.handles.get(source)
                return held if close_source and held is not None and not held.protect else None

            def forgets() -> int:
                held = closes()
                return 0 if held is None else client.state.forgets(held.payload)

            def closed(*, replaced: bool = False) -> None:
                """replaced: the new handle has the value of the source."""
                if closes():
                    if not replaced:
                        client.state.closed(source)
                    if source_entry is not None:
                        source_entry.forget()

            def enter(state: State, reply: wire.Reply, fds: Sequence[OwnedFd]) -> int:
                made = reply.value if type(reply) is wire.Value else _entered(state, reply, fds, entry)
                closed(replaced=not elsewhere and made == source)
                return made

            if elsewhere and target is None:
                if closes():
                    client.perform(lambda: wire.CloseHandle(client.value(source), forgets()), lambda *_: closed())
                raise error_for(
                    Status.INVALID_CID,
                    f"Process {into} does not exist, so it has no handle table. Pass the pid of a running process.",
                )

            def request() -> wire.Duplicate:
                return wire.Duplicate(
                    client.value(source), mask, inherit, same_attributes, close_source, elsewhere, forgets()
                )

            try:
                return client.perform(request, enter, () if target is None else (target.fd,))
            except ObjectManagerError:
                closed()  # the source is closed also after a failure (B40)
                raise

    def same_object(self, a: int, b: int) -> bool:
        client = self.client
        with client.lock:
            first, second = self._known_value(a), self._known_value(b)
            reply, _ = client.exchange(lambda: wire.SameObject(client.value(first), client.value(second)))
        return bool(expect(reply, wire.Value).value)

    def info(self, value: int) -> HandleInfo:
        client = self.client
        with client.lock:
            known = self._known_value(value)
            reply, _ = client.exchange(lambda: wire.QueryHandle(client.value(known)))
        found = expect(reply, wire.HandleState)
        return HandleInfo(
            found.inherit,
            found.protect,
            found.granted,
            found.type_name,
            found.name,
            found.object,
            found.handle_count,
        )

    def set_flags(self, value: int, mask: int, flags: int) -> None:
        client = self.client
        with client.lock:
            source = self._known_value(value)

            def enter(state: State, reply: wire.Reply, fds: Sequence[OwnedFd]) -> None:
                held = state.handles.get(source)
                if held is not None:
                    held.inherit = bool(flags & _INHERIT) if mask & _INHERIT else held.inherit
                    held.protect = bool(flags & _PROTECT) if mask & _PROTECT else held.protect

            client.perform(lambda: wire.SetFlags(client.value(source), mask & 0xFF, flags & 0xFF), enter)

    def _known_value(self, value: int) -> int:
        """Return the value without its low bits. Enter the handle in the state if it is not there yet."""
        value = check_handle(value)
        client = self.client
        if client.value(value) not in client.state.handles:
            self._handle(wire.Hold(value))
        return value

    # -- KMT numbers and tickets --------------------------------------------------------------------------------------

    def kmt_alive(self, number: int) -> bool:
        if not 0 <= number <= 0xFFFF_FFFF:
            return False
        client = self.client
        with client.lock:
            reply, _ = client.exchange(wire.KmtAlive(number))
        return bool(expect(reply, wire.Value).value)

    def offer(self, *, reference: int | None = None, handle: int | None = None, kmt: int | None = None) -> bytes:
        """See `Manager`. The ticket has 17 bytes: the version of the wire format, and 16 random ones."""
        client = self.client
        with client.lock:
            source = None if handle is None else self._known_value(handle)
            number = None if kmt is None else check_number(kmt)

            def request() -> wire.Offer:
                return wire.Offer(
                    None if reference is None else client.number(reference),
                    None if source is None else client.value(source),
                    number,
                )

            def enter(state: State, reply: wire.Reply, fds: Sequence[OwnedFd]) -> bytes:
                ticket = expect(reply, wire.Ticket).ticket
                state.offers(ticket, wire.Offer(reference, source, kmt))
                return stamped_ticket(ticket)

            return client.perform(request, enter)

    def claim(
        self, ticket: bytes, reference: Reference | None = None, entry: HandleEntry | None = None
    ) -> Imported | int:
        client = self.client
        ticket = check_ticket(ticket)

        def enter(state: State, reply: wire.Reply, fds: Sequence[OwnedFd]) -> Imported | int:
            state.claimed.append(ticket)
            if type(reply) is wire.Kmt:
                return reply.number
            if type(reply) is wire.Handle:
                return _entered(state, reply, fds, entry)
            return state.imported(reply, fds, owner=reference)

        with client.lock:
            return client.perform(wire.Claim(ticket), enter)

    def bind_offer(self, ticket: bytes, pid: int) -> None:
        client = self.client
        with client.lock:
            if not client.bind(check_ticket(ticket), pid):
                client.withdraw(check_ticket(ticket))

    def bind_offer_to(self, ticket: bytes, child: object) -> None:
        self.client.bind_later(check_ticket(ticket), child)

    def withdraw(self, ticket: bytes) -> bool:
        client = self.client
        with client.lock:
            return client.withdraw(check_ticket(ticket))


def _entered(state: State, reply: wire.Reply, fds: Sequence[OwnedFd], entry: HandleEntry | None) -> int:
    return state.handle(expect(reply, wire.Handle), fds, entry)


def _page_mode(page: Page) -> int:
    if page.by_rights:
        return wire.BY_RIGHTS
    return wire.READ_WRITE if page.writable else wire.READ_ONLY


def process_name(pid: int) -> str:
    """Return the name of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


_managers: dict[RuntimeDir, LinuxManager] = {}
_current: LinuxManager | None = None


def manager() -> Manager:
    """Return this process's manager, of the runtime directory that the environment named at the first call.

    It connects at the first request. After `disconnect` the environment is read again.
    """
    found = _current
    return _choose() if found is None or found.client.closed else found


def _choose() -> LinuxManager:
    global _current
    directory = runtime_directory()
    kept = _managers.get(directory)
    if kept is not None and kept.client.closed:
        del _managers[directory]
    # Two threads may create one each. The first that is stored is used; the other has not connected.
    _current = _managers.setdefault(directory, LinuxManager(directory))
    return _current
