"""The object manager on Windows: the calls to the kernel for host payloads (sections) and shared memory of GPU drivers.

How this works. The kernel manages names, security, handle tables and lifetimes. This module stores what a reference
holds: a handle of its payload's section and, for an exporter, a handle of the companion. There is no registry and no
service: the name and the description of a section are in the section itself (`payloads`).
"""

from __future__ import annotations

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
from extmem.manager.api import BrokerStatus, Manager, Reference
from extmem.manager.windows import driver_memory, names, payloads, rights, status_errors, tickets
from extmem.manager.windows.handles import EVENT, SECTION, SEMAPHORE, conversion, find_entry, recorded
from extmem.manager.windows.references import NAMELESS, HeldReference
from extmem.manager.windows.section_frame import Description, pack, unpack
from extmem.manager.windows.security_descriptors import sddl_from, user_sid
from extmem.manager.windows.snapshot import list_payloads
from extmem.manager.windows.sync_references import SyncReferences
from extmem.objects import (
    MAXIMUM_ALLOWED,
    MEMORY,
    OBJECT_TYPES,
    READ_CONTROL,
    RESOURCE_WRITE,
    PayloadRow,
    Share,
    Status,
    bad_number,
    error_for,
)
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.payload import Page, PayloadFd
from extmem.sharing.terms import Exported, Imported
from extmem.wire import MAX_DESCRIPTOR

__all__ = ["WindowsManager", "manager"]


class WindowsManager(SyncReferences):
    """This process's references, handles and tickets."""

    has_broker = False

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
        """Share a payload. Its section was created under this name and security (`ShareTerms`), as a kernel object gets
        its name when it is created. This call creates the companion.

        handles: the section's handle, provided until `release`; of a GPU driver's payload (`backing`) the handle that
            the driver returned, or its KMT number. UnsupportedError for more than one handle, for companion pages, and
            for a section with another name or without a name.
        """
        if len(handles) != 1 or (pages and object_kind is ObjectKind.MEMORY):
            raise UnsupportedError(
                f"a payload on Windows is one kernel object, this one has {len(handles)} handles and {len(pages)} "
                "companion pages; share each as a payload of its own",
                requires_one_of=["one handle for each payload"],
            )
        (fd,) = handles
        if len(descriptor) > MAX_DESCRIPTOR:
            raise DescriptorError(f"the descriptor has {len(descriptor)} bytes, at most {MAX_DESCRIPTOR} are allowed")
        granted = rights.asked(access, object_kind)
        if granted & MAXIMUM_ALLOWED:
            granted = granted & ~MAXIMUM_ALLOWED | OBJECT_TYPES[object_kind].all
        if backing is Backing.DRIVER_FD:
            payloads.refuse_both_ways(share)
            return self._export_driver_memory(
                fd, descriptor, share, name, granted, sddl, inherit, strict_kmt, backing, reference, object_kind, pages
            )
        if object_kind is not ObjectKind.MEMORY:
            return self.export_sync(
                fd,
                descriptor,
                object_kind,
                share=share,
                name=name,
                granted=granted,
                sddl=sddl,
                inherit=inherit,
                strict_kmt=strict_kmt,
                pages=pages,
                reference=reference,
            )
        value, _ = find_entry(fd)
        path = calls.name_of(value)
        found = payloads.describe(value, "").description
        shared = found.object if found is not None else 0
        number = self.check_terms(path, share, name)
        companion = None
        if name is not None or number:
            display = names.resolve(name, self.session()).display if name is not None else ""
            description = Description(shared or 1, int(backing), strict_kmt, display, descriptor)
            companion = OwnedDescriptor(payloads.create_companion(path, description, name, sddl))
        # A payload with a KMT number does not have an NT object that a program could have a handle to.
        memory = HeldReference(value, shared, granted, None, companion, True, share, inherit)
        return Exported(self._add(memory, reference), shared, 0 if number else shared, number)

    def security_text(self, security: str | bytes | int | None) -> str | None:
        """Return a security descriptor of `vk.SecurityAttributes` as SDDL text.

        SecurityDescriptorError for one that is invalid.
        """
        return sddl_from(security) if isinstance(security, (bytes, int)) else security

    def reading_alone(self) -> str:
        """Return SDDL that permits this user to read and no user to write; its owner cannot change that (OW).

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
        if object_kind is not ObjectKind.MEMORY:
            return self.import_sync_by_name(name, desired, object_kind, reference)
        what = f"opening {name!r}"
        if of_a_gpu and (found := self.open_driver_memory(name, desired)) is not None:
            return self._import_driver_memory(found, name, what, reference=reference)
        path = names.payload_path(names.resolve(name, self.session()))
        try:
            if desired == MAXIMUM_ALLOWED:
                try:
                    section = sections.open_named(path, sections.ALL)
                except calls.StatusError as error:
                    if error.status != Status.ACCESS_DENIED:
                        raise status_errors.of_opening(error, name, path, desired) from None
                else:  # most programs have all rights: then they need not be queried
                    return self._import(section, what, path, MEMORY.all, reference)
            return self._import(self.open_path(name, path, desired), what, path, reference=reference)
        except NameNotFoundError:
            found = self.open_driver_memory(name, desired)
            if found is not None:
                return self._import_driver_memory(found, name, what, reference=reference)
            provided = self.open_exporter_name(name, desired)
            if provided is None:
                raise status_errors.nothing_named(name, names.resolve(name, self.session())) from None
            return self._import_driver_memory(provided[0], None, what, provided[1], reference)

    def import_by_handle(
        self, handle: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        if object_kind is not ObjectKind.MEMORY:
            return self.import_sync_by_handle(handle, object_kind, reference)
        value, kind = find_entry(handle)
        if kind != SECTION:
            self.refuse_other_kind(value, kind, object_kind, f"the handle {value:#x}")
        copied = status_errors.duplicate(value, options=calls.SAME_ACCESS)
        what = f"importing handle {value:#x}"
        if kind == SECTION:
            return self._import(copied, what, reference=reference)
        description, _ = self._descriptions.get(value, (None, None))
        return self._import_driver_memory(copied, None, what, description, reference)

    def import_by_kmt(
        self, number: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        if object_kind is not ObjectKind.MEMORY:
            return self.import_sync_by_kmt(number, object_kind, reference)
        description = self.describe_driver_number(number) if 0 <= number <= 0xFFFF_FFFF else None
        if description is not None and description.kind != object_kind:
            raise error_for(Status.INVALID_PARAMETER, bad_number(number))
        if description is not None:
            return self._import_numbered(number, description, reference)
        path = self.alive(number)
        try:
            section = sections.open_named(path, MAXIMUM_ALLOWED)
        except calls.StatusError as error:
            if error.status == Status.ACCESS_DENIED:
                raise status_errors.denied(READ_CONTROL, f"opening KMT number {number:#x}") from None
            raise error_for(Status.INVALID_PARAMETER, bad_number(number)) from None
        return self._import(section, f"importing KMT number {number:#x}", reference=reference)

    def _import(
        self,
        section: int,
        what: str,
        path: str | None = None,
        granted: int | None = None,
        reference: Reference | None = None,
    ) -> Imported:
        """Create a reference with a section's handle, which it owns from now on, also after an error.

        path, granted: the section's name and rights, if they are known; otherwise the kernel is queried.
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
            description, capacity = payloads.describe(section, path)
            if description is None and not calls.basic(section).granted & sections.MAP_READ:
                # READ_CONTROL alone, which owners always have, does not permit reading the section.
                raise status_errors.denied(granted | READ_CONTROL, what)
            if description is None and named:
                description, capacity = payloads.describe_named(section, path)
            if description is not None and description.kind != ObjectKind.MEMORY:
                raise status_errors.wrong_kind(what, ObjectKind(description.kind), ObjectKind.MEMORY)
            number = names.find_number(path)
            shared = (
                description.object
                if description is not None and self._is_one(description.object, section)
                else NAMELESS
            )
        except BaseException:
            kept.close()
            raise
        writable = bool(granted & RESOURCE_WRITE)
        like = self._like(shared, granted)
        payload = None
        others = like.kept.shared if like is not None and like.kept is not None else None
        if like is not None and others is not None:
            with contextlib.suppress(HandleStateError):  # it is released at this moment
                payload = PayloadFd(others, writable)
                kept.close()
                section, kept = like.section, others
        if payload is None:
            payload = PayloadFd(kept, writable)
        memory = HeldReference(section, shared, granted, PayloadFd(kept, writable))
        if number:
            memory.shared_by = Share.KMT
            ends_with_exporter = description is not None and description.strict_kmt
            kept_path = None if ends_with_exporter else path
            memory.companion = like.companion if like is not None else self._kept_companion(kept_path)
        return Imported(
            self._add(memory, reference),
            payload,
            0 if number else shared,
            granted,
            description.descriptor if description is not None else b"",
            number,
            (description.name if description is not None else "") or None,
            int(Backing.HOST_FILE),
            capacity,
            reference=reference,
        )

    def release(self, number: int) -> None:
        with self._lock:
            found = self._references.pop(number, None)
        if found is not None:
            found.companion = None  # closed with its last holder: handles of a program may keep a driver's
            if found.kept is not None:
                found.kept.close()

    # -- handles, KMT numbers and tickets -----------------------------------------------------------------------------

    def get_handle(self, number: int, entry: HandleEntry | None = None) -> int:
        return recorded(self._get_handle(number), entry)

    def _get_handle(self, number: int) -> int:
        found = self._found(number)
        if not found.exporting or found.shared_by & Share.KMT:
            why = "is shared by KMT number" if found.shared_by & Share.KMT else "was imported, not exported"
            raise error_for(
                Status.INVALID_PARAMETER,
                f"The payload of reference {number} {why}, so it has no NT handle. Export it by NT handle to get one.",
            )
        flags = calls.OBJ_INHERIT if found.inherit else 0
        if found.from_driver:
            made = self._copy_driver_handle(found, flags)
            self.describe_as(made, found.description, found.companion)
            return made
        made = status_errors.duplicate(found.section, self._kernel_rights(found), flags)
        if found.kind is not ObjectKind.MEMORY:
            with calls.closed_on_error(made):
                self.keep_description(made, calls.name_of(made))
        return made

    def _kernel_rights(self, found: HeldReference) -> int:
        """Return the rights of handles of a host payload, as the kernel's object has them."""
        if found.kind is ObjectKind.MEMORY:
            return rights.to_section(found.granted)
        return conversion(driver_memory.kernel().kind_of(found.section), found.kind).to_kernel(found.granted)

    def kmt_alive(self, number: int) -> bool:
        try:
            if self.describe_driver_number(number) is None:
                self.alive(number)
        except ObjectManagerError:
            return False
        return True

    def offer(self, *, reference: int | None = None, handle: int | None = None, kmt: int | None = None) -> bytes:
        """Return a ticket for exactly one of the three; see `Manager.offer` and `tickets`."""
        if (reference is not None) + (handle is not None) + (kmt is not None) != 1:
            raise error_for(
                Status.INVALID_PARAMETER,
                f"A ticket is for one of reference={reference}, handle={handle}, kmt={kmt}. Pass exactly one.",
            )
        if reference is not None:
            found = self._found(reference)
            if not found.granted & READ_CONTROL:
                raise status_errors.denied(READ_CONTROL, f"sending reference {reference}")
            return self._offer_memory(found)
        if handle is not None:
            value, kind = find_entry(handle)
            description = self.description_of(value, kind)
            frame = pack(description) if description is not None and kind in driver_memory.TYPES else b""
            sent = status_errors.duplicate(value, options=calls.SAME_ACCESS)
            return self._in_flight.send(
                tickets.HANDLE_KIND, sent, description.object if description is not None else 0, frame
            )
        if self.describe_driver_number(kmt or 0) is None:
            self.alive(kmt or 0)
        return tickets.Ticket(tickets.KMT_KIND, os.getpid(), 0, kmt or 0, 0, bytes(16), bytes(16)).pack()

    def _offer_memory(self, found: HeldReference) -> bytes:
        frame = pack(found.description) if found.description is not None else b""
        if found.from_driver and not found.section:
            zero = bytes(16)
            return tickets.Ticket(
                tickets.NUMBERED_KIND, os.getpid(), 0, found.number, found.object, zero, zero, frame
            ).pack()
        if found.from_driver:
            sent = self._copy_driver_handle(found)
        else:
            sent = status_errors.duplicate(found.section, self._kernel_rights(found))
        return self._in_flight.send(tickets.MEMORY_KIND, sent, found.object, frame)

    def claim(
        self, ticket: bytes, reference: Reference | None = None, entry: HandleEntry | None = None
    ) -> Imported | int:
        sent = tickets.parse(ticket)
        if sent.kind == tickets.KMT_KIND:
            return sent.value

        if sent.kind == tickets.NUMBERED_KIND:
            return self._import_numbered(sent.value & 0xFFFF_FFFF, unpack(sent.frame), reference)

        def fits(value: int) -> bool:
            kind = driver_memory.kernel().kind_of(value)
            if kind in driver_memory.TYPES:  # a nameless one is described only by the ticket
                known = self.describe_driver_memory(value)
                return known is None or known.object == sent.object
            return kind in (SECTION, EVENT, SEMAPHORE) and self.object_of(value) == sent.object

        value = tickets.fetch(sent, fits)
        description: Description | None = None
        with calls.closed_on_error(value):
            type_name = driver_memory.kernel().kind_of(value)
            from_driver = type_name in driver_memory.TYPES
            if sent.kind == tickets.HANDLE_KIND:
                if from_driver:
                    self._learn(value, sent.frame)
                return recorded(value, entry)
            description = unpack(sent.frame) if from_driver else None
            kind = ObjectKind(description.kind) if description is not None else self.kind_of(value, type_name)
        # Each of these owns the handle, also after an error.
        if from_driver:
            return self._import_driver_memory(value, None, "importing what was sent", description, reference, kind)
        if kind is not ObjectKind.MEMORY:
            return self._import_sync(value, type_name, kind, "importing what was sent", None, reference)
        return self._import(value, "importing what was sent", reference=reference)

    def bind_offer(self, ticket: bytes, pid: int) -> None:
        self._in_flight.bind(tickets.parse(ticket).secret, pid)

    def bind_offer_to(self, ticket: bytes, child: object) -> None:
        self._in_flight.bind_when_born(tickets.parse(ticket).secret, child)

    def withdraw(self, ticket: bytes) -> bool:
        return self._in_flight.withdraw(tickets.parse(ticket).secret)

    # -- processes and the manager itself -----------------------------------------------------------------------------

    def inherit_socket(self, handles: Sequence[int] | None = None) -> socket.socket:
        """Raise UnsupportedError: CreateProcess itself inherits handles; `extmem.process` makes it do so."""
        raise UnsupportedError(
            "on Windows the kernel inherits handles; start the child with extmem.process, or pass close_fds=False",
            requires_one_of=["extmem.process.Popen"],
        )

    def snapshot(self) -> list[PayloadRow]:
        """Return the live payloads that this user's processes hold, and their holders.

        Those of other users are omitted.
        """
        with self._lock:
            memories = Counter(memory.section for memory in self._references.values() if not memory.from_driver)
        return list_payloads(memories, set(self._in_flight.handles()))

    def status(self) -> BrokerStatus | None:
        """Return None: the kernel is the object manager, and there is no broker."""
        return None

    def stop(self, *, force: bool = False) -> bool:
        """Return True: there is no broker that could run."""
        return True

    def disconnect(self) -> None:
        """Release all references and tickets of this manager now."""
        for number in list(self._references):
            self.release(number)
        self._in_flight.clear()


_manager = WindowsManager()


def manager() -> Manager:
    """Return this process's manager. Nothing is opened before its first call."""
    return _manager
