"""The object manager on Windows is the kernel; this is the door to it for host payloads (sections) and what is shared.

How this works. Names, security, handle tables and lifetimes are the kernel's own. What is kept here is what a memory
object holds: a handle of its payload's section, and an exporter's the companion. There is no registry and no service:
what a section is called and what it is made of, it says itself (`payloads`).
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this is the manager of Windows; extmem.manager selects what the system has")

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Sequence

from extmem.errors import (
    DescriptorError,
    HandleStateError,
    NameNotFoundError,
    ObjectManagerError,
    UnsupportedError,
)
from extmem.handles import HandleEntry
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.manager.api import BrokerStatus, Manager, Reference
from extmem.manager.windows import driver_memory, names, payloads, rights, status_errors, tickets
from extmem.manager.windows.handles import SECTION, find_entry
from extmem.manager.windows.references import NAMELESS, HeldReference, References
from extmem.manager.windows.section_frame import Description, pack, unpack
from extmem.manager.windows.security_descriptors import sddl_from, user_sid
from extmem.manager.windows.snapshot import look_around
from extmem.objects import (
    MAXIMUM_ALLOWED,
    MEMORY,
    READ_CONTROL,
    RESOURCE_WRITE,
    PayloadRow,
    Share,
    Status,
    error_for,
)
from extmem.objects.kmt import bad_number
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.payload import Page, PayloadFd
from extmem.sharing.terms import Exported, Imported
from extmem.wire import MAX_DESCRIPTOR

__all__ = ["WindowsManager", "manager"]


class WindowsManager(References):
    """This process's memory objects."""

    has_broker = False

    def __init__(self) -> None:
        super().__init__()
        self._in_flight = tickets.InFlight(self._holds)

    # -- memory objects -----------------------------------------------------------------------------------------------

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
    ) -> Exported:
        """Share a payload. Its section was made under this name and security (`ShareTerms`): a kernel object gets its
        name at birth. What is made here is the companion.

        handles: the section's handle, borrowed until `release`; of a GPU driver's payload (`backing`) the handle that
            the driver gave, or its KMT number. UnsupportedError for more than one handle, for companion pages, and for
            a section that has another name, or none.
        """
        if len(handles) != 1 or pages:
            raise UnsupportedError(
                f"a payload on Windows is one kernel object, this one has {len(handles)} handles and {len(pages)} "
                "companion pages; share each as a payload of its own",
                requires_one_of=["one handle for each payload"],
            )
        (fd,) = handles
        if len(descriptor) > MAX_DESCRIPTOR:
            raise DescriptorError(f"the descriptor has {len(descriptor)} bytes, at most {MAX_DESCRIPTOR} are allowed")
        granted = rights.asked(access)
        if granted & MAXIMUM_ALLOWED:
            granted = granted & ~MAXIMUM_ALLOWED | MEMORY.all
        if backing is not Backing.HOST_FILE:
            _one_way(share)
            return self._export_driver_s(
                fd, descriptor, share, name, granted, sddl, inherit, strict_kmt, backing, reference
            )
        value, _ = find_entry(fd)
        path = calls.name_of(value)
        found = payloads.describe(value, "").description
        shared = found.object if found is not None else 0
        number = self._check_terms(path, share, name)
        companion = None
        if name is not None or number:
            display = names.resolve(name, self.session()).display if name is not None else ""
            said = Description(shared or 1, int(backing), strict_kmt, display, descriptor)
            companion = OwnedDescriptor(payloads.create_companion(path, said, name, sddl))
        # A KMT number leads to no NT object that a program could have a handle to.
        memory = HeldReference(value, shared, granted, None, companion, True, share, inherit)
        return Exported(self._add(memory, reference), shared, 0 if number else shared, number)

    def _check_terms(self, path: str, share: Share, name: str | None) -> int:
        """The KMT number of a section that is shared by one. UnsupportedError for terms that it was not made for."""
        number = names.find_number(path)
        wanted = names.payload_path(names.resolve(name, self.session())) if name is not None else ""
        _one_way(share)
        if bool(number) != bool(share & Share.KMT) or (name is not None and wanted != path):
            raise UnsupportedError(
                f"a section's name is given when it is made and never changes: this one is {path or 'unnamed'}, and "
                f"is to be shared by {share.name}{f' as {name!r}' if name is not None else ''}; allocate memory that "
                "is exported so from the start, and copy into it",
                requires_one_of=["memory allocated for that export"],
            )
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

    def import_by_name(
        self,
        name: str,
        desired: int = MAXIMUM_ALLOWED,
        reference: Reference | None = None,
        *,
        of_a_gpu: bool = False,
        object_kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported:
        """See `Manager`."""
        what = f"opening {name!r}"
        if of_a_gpu and (found := self.open_driver_s(name, desired)) is not None:
            return self._import_driver_s(found, name, what, reference=reference)
        path = names.payload_path(names.resolve(name, self.session()))
        try:
            if desired == MAXIMUM_ALLOWED:
                try:
                    section = sections.open_named(path, sections.ALL)
                except StatusError as error:
                    if error.status != Status.ACCESS_DENIED:
                        raise status_errors.of_opening(error, name, path, desired) from None
                else:  # as most may have it: then there is nothing to ask
                    return self._import(section, what, path, MEMORY.all, reference)
            return self._import(self._open_path(name, path, desired), what, path, reference=reference)
        except NameNotFoundError:
            found = self.open_driver_s(name, desired)
            if found is not None:
                return self._import_driver_s(found, name, what, reference=reference)
            borrowed = self.open_lent(name, desired)
            if borrowed is None:
                raise status_errors.nothing_named(name, names.resolve(name, self.session())) from None
            return self._import_driver_s(borrowed[0], None, what, borrowed[1], reference)

    def import_by_handle(
        self, handle: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        """See `Manager`."""
        value, kind = find_entry(handle)
        copied = status_errors.duplicate(value, options=calls.SAME_ACCESS)
        what = f"importing handle {value:#x}"
        if kind == SECTION:
            return self._import(copied, what, reference=reference)
        return self._import_driver_s(copied, None, what, self._told_by(value), reference)

    def import_by_kmt(
        self, number: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        """See `Manager`."""
        said = self.number_of_driver_s(number) if 0 <= number <= 0xFFFF_FFFF else None
        if said is not None:
            return self._import_numbered(number, said, reference)
        path = self._alive(number)
        try:
            section = sections.open_named(path, MAXIMUM_ALLOWED)
        except StatusError as error:
            if error.status == Status.ACCESS_DENIED:
                raise status_errors.denied(READ_CONTROL, f"opening KMT number {number:#x}") from None
            raise error_for(Status.INVALID_PARAMETER, bad_number(number)) from None
        return self._import(section, f"importing KMT number {number:#x}", reference=reference)

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

    def _import(
        self,
        section: int,
        what: str,
        path: str | None = None,
        granted: int | None = None,
        reference: Reference | None = None,
    ) -> Imported:
        """A memory object on a section, whose handle is the memory's from now on, errors included.

        path, granted: the section's name and rights, where they are known; the kernel is asked otherwise.
        """
        kept: OwnedFd = OwnedDescriptor(section)
        try:
            if granted is None:
                granted = rights.from_section(calls.basic(section).granted)
            if not granted & READ_CONTROL:
                raise status_errors.denied(granted | READ_CONTROL, what)
            named = path is not None
            if path is None:
                path = calls.name_of(section)
            said, capacity = payloads.describe(section, path)
            if said is None and not calls.basic(section).granted & sections.MAP_READ:
                # READ_CONTROL alone, which owners have in any case: enough to be told of, not to be looked into.
                raise status_errors.denied(granted | READ_CONTROL, what)
            if said is None and named:
                said, capacity = payloads.describe_named(section, path)
            number = names.find_number(path)
            shared = said.object if said is not None and self._is_one(said.object, section) else NAMELESS
        except BaseException:
            kept.close()
            raise
        writable = bool(granted & RESOURCE_WRITE)
        like = self._like(shared, granted)
        payload = None
        others = like.kept.shared if like is not None and like.kept is not None else None
        if like is not None and others is not None:
            with contextlib.suppress(HandleStateError):  # it is freed in this moment
                payload = PayloadFd(others, writable)
                kept.close()
                section, kept = like.section, others
        if payload is None:
            payload = PayloadFd(kept, writable)
        memory = HeldReference(section, shared, granted, PayloadFd(kept, writable))
        if number:
            memory.shared_by = Share.KMT
            memory.companion = like.companion if like is not None else self._kept_number(path, said)
        return Imported(
            self._add(memory, reference),
            payload,
            0 if number else shared,
            granted,
            said.descriptor if said is not None else b"",
            number,
            (said.name if said is not None else "") or None,
            int(Backing.HOST_FILE),
            capacity,
            reference=reference,
        )

    @staticmethod
    def _kept_number(path: str, said: Description | None) -> OwnedFd | None:
        """The number lives as long as its companion: importers keep that too, unless it is to end with the exporter."""
        if said is not None and said.strict_kmt:
            return None
        try:
            return OwnedDescriptor(payloads.open_companion(path))
        except StatusError:
            return None

    def release(self, number: int) -> None:
        """See `Manager`."""
        with self._lock:
            found = self._references.pop(number, None)
        if found is not None:
            found.companion = None  # closed with its last holder: a program's handles may keep a driver's
            if found.kept is not None:
                found.kept.close()

    def release_once(self, number: int) -> None:
        """See `Manager`."""
        self.release(number)

    def held_by_references(self, shared: int) -> int:
        """How many handles the memory objects and tickets of this process hold to that object."""
        with self._lock:
            sections_held = {m.section for m in self._references.values() if m.object == shared and m.section}
        return len(sections_held) + sum(other == shared for other in self._in_flight.handles().values())

    # -- handles, KMT numbers and tickets -----------------------------------------------------------------------------

    def get_handle(self, number: int, entry: HandleEntry | None = None) -> int:
        """See `Manager`."""
        value = self._get_handle(number)
        if entry is not None:
            entry.record(value)
        return value

    def _get_handle(self, number: int) -> int:
        found = self._found(number)
        if not found.exporting or found.shared_by & Share.KMT:
            why = "is shared by KMT number" if found.shared_by & Share.KMT else "was imported, not exported"
            raise error_for(
                Status.INVALID_PARAMETER,
                f"The payload of reference {number} {why}, so it has no NT handle. Export it by NT handle to get one.",
            )
        flags = calls.OBJ_INHERIT if found.inherit else 0
        if found.driver_s:
            made = self._copy_driver_s(found, flags)
            self.describe_as(made, found.said, found.companion)
            return made
        return status_errors.duplicate(found.section, rights.to_section(found.granted), flags)

    def kmt_alive(self, number: int) -> bool:
        """Whether an import by this number would find something now."""
        try:
            if self.number_of_driver_s(number) is None:
                self._alive(number)
        except ObjectManagerError:
            return False
        return True

    def offer(self, *, reference: int | None = None, handle: int | None = None, kmt: int | None = None) -> bytes:
        """A ticket for exactly one of the three; see `Manager.offer` and `tickets`."""
        if (reference is not None) + (handle is not None) + (kmt is not None) != 1:
            raise error_for(
                Status.INVALID_PARAMETER,
                f"A ticket is for one thing; given were reference={reference}, handle={handle}, kmt={kmt}. Pass "
                "exactly one.",
            )
        if reference is not None:
            found = self._found(reference)
            if not found.granted & READ_CONTROL:
                raise status_errors.denied(READ_CONTROL, f"sending reference {reference}")
            return self._offer_memory(found)
        if handle is not None:
            value, kind = find_entry(handle)
            said = self.description_of(value, kind)
            frame = pack(said) if said is not None and kind != SECTION else b""
            sent = status_errors.duplicate(value, options=calls.SAME_ACCESS)
            return self._in_flight.send(tickets.HANDLE_KIND, sent, said.object if said is not None else 0, frame)
        if self.number_of_driver_s(kmt or 0) is None:
            self._alive(kmt or 0)
        return tickets.Ticket(tickets.KMT_KIND, os.getpid(), 0, kmt or 0, 0, bytes(16), bytes(16)).pack()

    def _offer_memory(self, found: HeldReference) -> bytes:
        frame = pack(found.said) if found.said is not None else b""
        if found.driver_s and not found.section:
            zero = bytes(16)
            return tickets.Ticket(
                tickets.NUMBERED_KIND, os.getpid(), 0, found.number, found.object, zero, zero, frame
            ).pack()
        if found.driver_s:
            sent = self._copy_driver_s(found)
        else:
            sent = status_errors.duplicate(found.section, rights.to_section(found.granted))
        return self._in_flight.send(tickets.MEMORY_KIND, sent, found.object, frame)

    def claim(
        self, ticket: bytes, reference: Reference | None = None, entry: HandleEntry | None = None
    ) -> Imported | int:
        """What a ticket stands for, once: a memory object, a handle of this process, or a KMT number."""
        said = tickets.parse(ticket)
        if said.kind == tickets.KMT_KIND:
            return said.value

        if said.kind == tickets.NUMBERED_KIND:
            return self._import_numbered(said.value & 0xFFFF_FFFF, unpack(said.frame), reference)

        def fits(value: int) -> bool:
            kind = driver_memory.kernel().kind_of(value)
            if kind in driver_memory.TYPES:  # a nameless one is described by the ticket alone
                known = self.describe_driver_s(value)
                return known is None or known.object == said.object
            return kind == SECTION and self.object_of(value) == said.object

        value = tickets.fetch(said, fits)
        drivers_own = driver_memory.kernel().kind_of(value) in driver_memory.TYPES
        if said.kind == tickets.HANDLE_KIND:
            if entry is not None:
                entry.record(value)
            if drivers_own:
                self._learn(value, said.frame)
            return value
        if drivers_own:
            return self._import_driver_s(value, None, "importing what was sent", unpack(said.frame), reference)
        return self._import(value, "importing what was sent", reference=reference)

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
            memories = Counter(memory.section for memory in self._references.values() if not memory.driver_s)
        return look_around(memories, set(self._in_flight.handles()))

    def status(self) -> BrokerStatus | None:
        """None: the kernel is the object manager, and there is no broker."""
        return None

    def stop(self, *, force: bool = False) -> bool:
        """True: there is no broker that could run."""
        return True

    def disconnect(self) -> None:
        """Give everything back now: memory objects of this manager and what is in flight."""
        for number in list(self._references):
            self.release(number)
        self._in_flight.clear()


def _one_way(share: Share) -> None:
    """Refuse what no kernel object can be: shared by NT handle and by KMT number at once (B61)."""
    if share & Share.KMT and share & Share.NT:
        raise error_for(
            Status.INVALID_PARAMETER,
            "Memory is shared by NT handle or by KMT number, never both. Choose one of the two handle types.",
        )


_manager = WindowsManager()


def manager() -> Manager:
    """This process's manager. Nothing is opened before it is asked for something."""
    return _manager
