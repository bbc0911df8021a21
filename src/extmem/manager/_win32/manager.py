"""The object manager on Windows is the kernel; this is the door to it for host payloads (sections) and what is shared.

How this works. Names, security, handle tables and lifetimes are the kernel's own. What is kept here is what a memory
object holds: a handle of its payload's section, and an exporter's the companion. There is no registry and no service:
what a section is called and what it is made of, it says itself (`payloads`).
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this is the manager of Windows; extmem.manager picks what the system has")

import itertools
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from extmem.broker.descriptors import Imported, OwnedFd, PayloadFd
from extmem.broker.limits import MAX_DESCRIPTOR
from extmem.broker.wire import Kind
from extmem.errors import DescriptorError, HandleStateError, ObjectManagerError, UnsupportedError
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.manager._api import BrokerStatus, Exported, Manager
from extmem.manager._win32 import names, payloads, refusals, rights, tickets
from extmem.manager._win32._handles import SECTION, Handles, entry
from extmem.manager._win32.description import Description
from extmem.manager._win32.descriptors import sddl_from, user_sid
from extmem.manager._win32.snapshot import look_around
from extmem.objects import (
    ALL_ACCESS,
    MAXIMUM_ALLOWED,
    READ_CONTROL,
    RESOURCE_WRITE,
    TYPE_NAME,
    PayloadRow,
    Share,
    Status,
    error_for,
)
from extmem.objects.kmt import bad_number

__all__ = ["WindowsManager", "manager"]


@dataclass(slots=True, eq=False)
class _Memory:
    """What one memory object holds."""

    section: int
    """Its handle. An import's is its own (`kept`); an export's is the device's, which frees the memory here first."""
    object: int
    granted: int
    """The rights that it was imported with, or that handles of an export get; in shared memory's words."""
    kept: OwnedFd | None = None
    companion: OwnedFd | None = None
    exporting: bool = False
    shared_by: Share = Share.NT
    inherit: bool = False


class WindowsManager(Handles):
    """This process's memory objects."""

    has_broker = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._memories: dict[int, _Memory] = {}
        self._in_flight = tickets.InFlight(self._holds)

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
        """Share a payload. Its section was made under this name and security (`ShareTerms`): a kernel object gets its
        name at birth. What is made here is the companion.

        fd: the section's handle, borrowed until `free`. UnsupportedError for a section that has another name, or none.
        """
        if len(descriptor) > MAX_DESCRIPTOR:
            raise DescriptorError(f"the descriptor has {len(descriptor)} bytes, at most {MAX_DESCRIPTOR} are allowed")
        granted = rights.asked(access)
        if granted & MAXIMUM_ALLOWED:
            granted = granted & ~MAXIMUM_ALLOWED | ALL_ACCESS
        value, _ = entry(fd)
        path = calls.name_of(value)
        found = payloads.describe(value, "").description
        shared = found.object if found is not None else 0
        number = self._check_terms(path, share, name)
        companion = None
        if name is not None or number:
            display = names.resolve(name, self.session()).display if name is not None else ""
            said = Description(shared or 1, int(kind), strict_kmt, display, descriptor)
            companion = OwnedFd(payloads.create_companion(path, said, name, sddl))
        # A KMT number leads to no NT object that a program could have a handle to.
        memory = _Memory(value, shared, granted, None, companion, True, share, inherit)
        return Exported(self._add(memory), shared, 0 if number else shared, number)

    def _check_terms(self, path: str, share: Share, name: str | None) -> int:
        """The KMT number of a section that is shared by one. UnsupportedError for terms that it was not made for."""
        number = names.find_number(path)
        wanted = names.payload_path(names.resolve(name, self.session())) if name is not None else ""
        if share & Share.KMT and share & Share.NT:
            raise error_for(
                Status.INVALID_PARAMETER,
                "Memory is shared by NT handle or by KMT number, never both. Choose one of the two handle types.",
            )
        if bool(number) != bool(share & Share.KMT) or (name is not None and wanted != path):
            raise UnsupportedError(
                f"a section's name is given when it is made and never changes: this one is {path or 'unnamed'}, and "
                f"is to be shared by {share.name}{f' as {name!r}' if name is not None else ''}; allocate memory that "
                "is exported so from the start, and copy into it",
                requires_one_of=["memory allocated for that export"],
            )
        return number

    def _add(self, memory: _Memory) -> int:
        with self._lock:
            number = next(self._numbers)
            self._memories[number] = memory
        return number

    def security_text(self, security: str | bytes | int | None) -> str | None:
        """A security descriptor of `vk.SecurityAttributes` as SDDL text. SecurityDescriptorError for what is none."""
        return sddl_from(security) if isinstance(security, (bytes, int)) else security

    def reading_alone(self) -> str:
        """SDDL by which this user may read what is shared, and nobody write: not even its owner may change that (OW).

        The owner is stated, because an administrator's objects belong to all administrators by default.
        """
        user = user_sid()
        return f"O:{user}D:(A;;GR;;;OW)(A;;GR;;;{user})"

    def import_by_name(self, name: str, desired: int = MAXIMUM_ALLOWED) -> Imported:
        """A memory object by name, with the rights asked for, or all that the object's security allows."""
        what = f"opening {name!r}"
        path = names.payload_path(names.resolve(name, self.session()))
        if desired == MAXIMUM_ALLOWED:
            try:
                section = sections.open_named(path, sections.ALL)
            except StatusError as error:
                if error.status != Status.ACCESS_DENIED:
                    raise refusals.of_opening(error, name, path, desired) from None
            else:  # as most may have it: then there is nothing to ask
                return self._import(section, what, path, ALL_ACCESS)
        return self._import(self._open_path(name, path, desired), what, path)

    def import_by_handle(self, handle: int) -> Imported:
        """A memory object by NT handle, with the handle's rights. The handle stays the caller's (B76)."""
        value, kind = entry(handle)
        if kind != SECTION:
            raise error_for(
                Status.OBJECT_TYPE_MISMATCH,
                f"The handle {value:#x} is a GPU driver's ({kind}). Import it on that GPU's Vulkan device.",
            )
        try:
            copied = calls.duplicate(value, options=calls.SAME_ACCESS)
        except StatusError as error:
            raise refusals.of_handle(error, value) from None
        return self._import(copied, f"importing handle {value:#x}")

    def import_by_kmt(self, number: int) -> Imported:
        """A memory object by KMT number."""
        path = self._alive(number)
        try:
            section = sections.open_named(path, MAXIMUM_ALLOWED)
        except StatusError as error:
            if error.status == Status.ACCESS_DENIED:
                raise refusals.denied(READ_CONTROL, f"opening KMT number {number:#x}") from None
            raise error_for(Status.INVALID_PARAMETER, bad_number(number)) from None
        return self._import(section, f"importing KMT number {number:#x}")

    def _alive(self, number: int) -> str:
        """The path of a live number's payload. InvalidHandleError (INVALID_PARAMETER) for any other."""
        path = names.kmt_path(number & 0xFFFF_FFFF, self.session())
        if 0 <= number <= 0xFFFF_FFFF:
            try:
                calls.close_handle(payloads.open_companion(path))
                return path
            except StatusError as error:
                if error.status == Status.ACCESS_DENIED:
                    return path
        raise error_for(Status.INVALID_PARAMETER, bad_number(number))

    def _import(self, section: int, what: str, path: str | None = None, granted: int | None = None) -> Imported:
        """A memory object on a section, whose handle is the memory's from now on, errors included.

        path, granted: the section's name and rights, where they are known; the kernel is asked otherwise.
        """
        kept = OwnedFd(section)
        try:
            if granted is None:
                granted = rights.from_section(calls.basic(section).granted)
            if not granted & READ_CONTROL:
                raise refusals.denied(granted | READ_CONTROL, what)
            if path is None:
                path = calls.name_of(section)
            said, capacity = payloads.describe(section, path)
            number = names.find_number(path)
            shared = said.object if said is not None and self._is_one(said.object, section) else _NAMELESS
        except BaseException:
            kept.close()
            raise
        memory = _Memory(section, shared, granted, kept)
        if number:
            memory.shared_by = Share.KMT
            memory.companion = self._kept_number(path, said)
        return Imported(
            self._add(memory),
            PayloadFd(kept, bool(granted & RESOURCE_WRITE)),
            0 if number else shared,
            granted,
            said.descriptor if said is not None else b"",
            number,
            (said.name if said is not None else "") or None,
            int(Kind.HOST),
            capacity,
        )

    @staticmethod
    def _kept_number(path: str, said: Description | None) -> OwnedFd | None:
        """The number lives as long as its companion: importers keep that too, unless it is to end with the exporter."""
        if said is not None and said.strict_kmt:
            return None
        try:
            return OwnedFd(payloads.open_companion(path))
        except StatusError:
            return None

    def _is_one(self, shared: int, section: int) -> bool:
        """Whether what calls itself by that id is the object that this process knows by it: sections may lie."""
        with self._lock:
            known = next((m.section for m in self._memories.values() if m.object == shared), None)
        return known is None or calls.same_object(known, section) is not False

    def free(self, memory: int) -> None:
        """Free a memory object."""
        with self._lock:
            found = self._memories.pop(memory, None)
        if found is not None and found.companion is not None:
            found.companion.close()

    def free_later(self, memory: int) -> None:
        """Free now: closing handles waits for nobody."""
        self.free(memory)

    def _found(self, memory: int) -> _Memory:
        found = self._memories.get(memory)
        if found is None:
            raise HandleStateError(f"memory object {memory} is freed; allocate or import it again")
        return found

    def _holds(self, shared: int) -> bool:
        with self._lock:
            return any(memory.object == shared for memory in self._memories.values())

    def held_by_memories(self, shared: int) -> int:
        """How many handles the memory objects and tickets of this process hold to that object."""
        with self._lock:
            count = sum(memory.object == shared for memory in self._memories.values())
        return count + sum(other == shared for other in self._in_flight.handles().values())

    # -- handles, KMT numbers and tickets -----------------------------------------------------------------------------

    def get_handle(self, memory: int) -> int:
        """A new handle of the object that this memory exports, with the access and inherit flag of the export (B29)."""
        found = self._found(memory)
        if not found.exporting or found.shared_by & Share.KMT:
            why = "is shared by KMT number" if found.shared_by & Share.KMT else "was imported, not exported"
            raise error_for(
                Status.INVALID_PARAMETER,
                f"Memory object {memory} {why}, so it has no NT handle to give. Export it as an NT handle to get one.",
            )
        flags = calls.OBJ_INHERIT if found.inherit else 0
        return calls.duplicate(found.section, rights.to_section(found.granted), flags)

    def kmt_alive(self, number: int) -> bool:
        """Whether an import by this number would find something now."""
        try:
            self._alive(number)
        except ObjectManagerError:
            return False
        return True

    def offer(self, *, memory: int | None = None, handle: int | None = None, kmt: int | None = None) -> bytes:
        """A ticket for exactly one of the three; see `Manager.offer` and `tickets`."""
        if (memory is not None) + (handle is not None) + (kmt is not None) != 1:
            raise error_for(
                Status.INVALID_PARAMETER,
                f"A ticket stands for one thing; given were memory={memory}, handle={handle}, kmt={kmt}. Pass "
                "exactly one.",
            )
        if memory is not None:
            found = self._found(memory)
            if not found.granted & READ_CONTROL:
                raise refusals.denied(READ_CONTROL, f"sending memory object {memory}")
            sent = calls.duplicate(found.section, rights.to_section(found.granted))
            return self._in_flight.send(tickets.MEMORY_KIND, sent, found.object)
        if handle is not None:
            value, _ = entry(handle)
            return self._in_flight.send(
                tickets.HANDLE_KIND, calls.duplicate(value, options=calls.SAME_ACCESS), self.object_of(value)
            )
        self._alive(kmt or 0)
        return tickets.Ticket(tickets.KMT_KIND, os.getpid(), 0, kmt or 0, 0, bytes(16), bytes(16)).pack()

    def claim(self, ticket: bytes) -> Imported | int:
        """What a ticket stands for, once: a memory object, a handle of this process, or a KMT number."""
        said = tickets.parse(ticket)
        if said.kind == tickets.KMT_KIND:
            return said.value

        def fits(value: int) -> bool:
            return calls.type_of(value) in (SECTION, TYPE_NAME) and self.object_of(value) == said.object

        value = tickets.fetch(said, fits)
        if said.kind == tickets.HANDLE_KIND:
            return value
        return self._import(value, "importing what was sent")

    def bind_offer(self, ticket: bytes, pid: int) -> None:
        """The ticket is for that process: it stays strong until claimed, and is withdrawn when the process dies."""
        self._in_flight.bind(tickets.parse(ticket).secret, pid)

    def bind_offer_to(self, ticket: bytes, child: object) -> None:
        """As `bind_offer`, for a child that is being started: its object gets a `pid` in a moment."""
        self._in_flight.bind_when_born(tickets.parse(ticket).secret, child)

    def withdraw(self, ticket: bytes) -> bool:
        """Take an offer back. False when it has been claimed or has ended."""
        return self._in_flight.withdraw(tickets.parse(ticket).secret)

    # -- processes and the manager itself -----------------------------------------------------------------------------

    def inherit_socket(self, handles: Sequence[int] | None = None) -> socket.socket:
        """UnsupportedError: CreateProcess itself inherits handles. `extmem.process` has it do so."""
        raise UnsupportedError(
            "on Windows the kernel inherits handles; start the child with extmem.process, or pass close_fds=False",
            requires_one_of=["extmem.process.Popen"],
        )

    def snapshot(self) -> list[PayloadRow]:
        """All live payloads that this user's processes hold, and who holds them; what other users hold is not told."""
        with self._lock:
            memories = {memory.section for memory in self._memories.values()}
        return look_around(memories, set(self._in_flight.handles()))

    def status(self) -> BrokerStatus | None:
        """None: the kernel is the object manager, and there is no broker."""
        return None

    def stop(self, *, force: bool = False) -> bool:
        """True: there is no broker that could run."""
        return True

    def disconnect(self) -> None:
        """Give everything back now: memory objects of this manager and what is in flight."""
        for number in list(self._memories):
            self.free(number)
        self._in_flight.clear()


_NAMELESS = 0
"""The object id of a section that says none, or lies: never taken for another one."""


_manager = WindowsManager()


def manager() -> Manager:
    """This process's manager. Nothing is opened before it is asked for something."""
    return _manager
