"""The object manager on Windows: the calls to the kernel for host payloads (sections) and shared memory of GPU drivers.

How this works. The kernel manages names, security, handle tables and lifetimes. There is no registry and no
service: the name and the description of a section are in the section itself (`payloads`). The modules of this package
store what a reference holds; `section_references` exports and imports memory, and this one has handles, tickets and the
process.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence

from extmem.errors import (
    ObjectManagerError,
    UnsupportedError,
)
from extmem.handles import HandleEntry
from extmem.handles._win32 import calls
from extmem.manager.api import BrokerStatus, Manager, Reference
from extmem.manager.windows import driver_memory, rights, status_errors, tickets
from extmem.manager.windows.handles import EVENT, SECTION, SEMAPHORE, conversion, find_entry, recorded
from extmem.manager.windows.references import HeldReference
from extmem.manager.windows.section_frame import Description, pack, unpack
from extmem.manager.windows.section_references import Sections
from extmem.manager.windows.snapshot import list_payloads
from extmem.manager.windows.sync_payloads import reopened_pages
from extmem.objects import (
    READ_CONTROL,
    PayloadRow,
    Share,
    Status,
    error_for,
)
from extmem.sharing.kinds import SYNC_KINDS, ObjectKind
from extmem.sharing.terms import Imported

__all__ = ["WindowsManager", "manager"]


class WindowsManager(Sections):
    """This process's references, handles and tickets."""

    has_broker = False

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
        with calls.closed_on_error(made):
            if found.kind not in SYNC_KINDS:
                self.keep_pages(made, self.description_of(made, SECTION))
            else:
                self.keep_description(made, calls.name_of(made))
        return made

    def _kernel_rights(self, found: HeldReference) -> int:
        """Return the rights of handles of a host payload, as the kernel's object has them."""
        if found.kind not in SYNC_KINDS:
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
            pages = reopened_pages(description)
            sent = status_errors.duplicate(value, options=calls.SAME_ACCESS)
            return self._in_flight.send(
                tickets.HANDLE_KIND, sent, description.object if description is not None else 0, frame, pages
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
            pages = reopened_pages(found.description)
            sent = self._copy_driver_handle(found)
        else:
            described = found.kind not in SYNC_KINDS
            pages = reopened_pages(self.description_of(found.section, SECTION) if described else None)
            sent = status_errors.duplicate(found.section, self._kernel_rights(found))
        return self._in_flight.send(tickets.MEMORY_KIND, sent, found.object, frame, pages)

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

        def take(value: int) -> Imported | int:
            description: Description | None = None
            with calls.closed_on_error(value):
                type_name = driver_memory.kernel().kind_of(value)
                from_driver = type_name in driver_memory.TYPES
                if sent.kind == tickets.HANDLE_KIND:
                    if from_driver:
                        self._learn(value, sent.frame)
                    elif type_name == SECTION:
                        self.keep_pages(value, self.description_of(value, SECTION))
                    return recorded(value, entry)
                description = unpack(sent.frame) if from_driver else None
                kind = ObjectKind(description.kind) if description is not None else self.kind_of(value, type_name)
            # Each of these owns the handle, also after an error.
            if from_driver:
                return self._import_driver_memory(value, None, "importing what was sent", description, reference, kind)
            if kind in SYNC_KINDS:
                return self._import_sync(value, type_name, kind, "importing what was sent", None, reference)
            return self._import(value, "importing what was sent", reference=reference, kind=kind)

        return tickets.fetch(sent, fits, take)

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
