"""This process's references to payloads, and the payloads that a GPU driver created.

How this works. A reference is held by one vkAllocateMemory. It owns a handle of its payload's kernel object, and a
handle of the companion, which describes the payload. A driver's payload that is shared by KMT number does not have a
kernel object that a process could have a handle to; the name of its companion contains the number (`names.kmt_path`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Sequence

import msgspec

from extmem.errors import HandleStateError, ObjectManagerError
from extmem.handles import is_kmt_value
from extmem.handles._win32 import calls
from extmem.manager.api import Manager, Reference
from extmem.manager.windows import (
    driver_memory,
    exporter_names,
    names,
    payloads,
    rights,
    status_errors,
    sync_payloads,
    tickets,
)
from extmem.manager.windows.section_frame import Description, unpack
from extmem.objects import (
    MEMORY,
    OBJECT_TYPES,
    READ_CONTROL,
    Share,
    Status,
    bad_number,
    error_for,
)
from extmem.objects.object_types import SYNC_SIGNAL, SYNC_WAIT
from extmem.owning import Lock, OwnedDescriptor, OwnedFd, Step
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.payload import Page, PayloadFd, Win32Payload
from extmem.sharing.terms import Exported, Imported
from extmem.vk.handle_types import OPAQUE_WIN32, OPAQUE_WIN32_KMT, MemoryHandleType

__all__ = ["NAMELESS", "HeldReference", "References"]

_MAX_DESCRIPTIONS = 16_384
_OF_THE_HOST = (Backing.HOST_FILE, Backing.HOST_EVENT)
NAMELESS = 0
"""The object id of a section without a description, or with a false one. It is not equal to any other object's."""


class HeldReference(msgspec.Struct, eq=False):
    """The state of one reference."""

    section: int
    """Its handle. Imports of a host payload with the same rights share one (`kept`), which is closed with the last of
    them. The handle of an export belongs to the device, which releases the reference first. 0 for a driver's payload
    with a KMT number.
    """
    object: int
    granted: int
    """The rights that it was imported with, or that handles of an export get, as an access mask of shared memory."""
    kept: PayloadFd | None = None
    companion: OwnedFd | None = None
    exporting: bool = False
    shared_by: Share = Share.NT
    inherit: bool = False
    description: Description | None = None
    """The description of a driver's payload, if it is known; None for host payloads, whose sections contain theirs."""
    from_driver: bool = False
    """Whether a GPU driver created the payload."""
    number: int = 0
    """The KMT number of a driver's payload."""
    kind: ObjectKind = ObjectKind.MEMORY


class References(Manager):
    """The table of references, and the descriptions of payloads that GPU drivers created."""

    _session: int | None = None

    def __init__(self) -> None:
        self._lock = Lock()
        self._values = Lock(reentrant=True)
        self._numbers = itertools.count(1)
        self._references: dict[int, HeldReference] = {}
        self._descriptions: dict[int, tuple[Description, OwnedFd | None]] = {}
        """Handle → the description of its driver's payload, and the companion. A handle of this process keeps the name
        alive, and so its description."""
        self._kept_pages: dict[int, list[OwnedFd]] = {}
        """Handle of a program → the companion pages of its payload: they end with the last process that has them open,
        and the handle does not."""
        self._in_flight = tickets.InFlight(self._holds)

    def session(self) -> int:
        """Return this process's session, which never changes."""
        if self._session is None:
            self._session = calls.session(os.getpid())
        return self._session

    @property
    def lock(self) -> Lock:
        return self._values

    def when_lost(self, value: int) -> tuple[Step, Step]:
        return (calls.close_handle, value), (self.forget, value)

    def when_reference_lost(self, number: int) -> tuple[Step]:
        """See `Manager`. What the reference holds is closed with it."""
        return ((self._references.pop, number, None),)

    def _add(self, held: HeldReference, reference: Reference | None) -> int:
        with self._lock:
            number = next(self._numbers)
            self._references[number] = held
        if reference is not None:
            reference.record(number)
        return number

    def _found(self, number: int) -> HeldReference:
        found = self._references.get(number)
        if found is None:
            raise HandleStateError(f"the reference {number} is released; allocate or import the memory again")
        return found

    def _holds(self, shared: int) -> bool:
        with self._lock:
            return any(memory.object == shared for memory in self._references.values())

    def _is_one(self, shared: int, handle: int) -> bool:
        """Return whether a described id is right: descriptions may be false, so the object is compared with a known
        one.
        """
        with self._lock:
            known = next((m.section for m in self._references.values() if m.object == shared and m.section), None)
        return known is None or calls.same_object(known, handle) is not False

    def _like(self, shared: int, granted: int) -> HeldReference | None:
        """Return an import of the same host payload with the same rights, whose handle further imports share."""
        if shared == NAMELESS:
            return None
        with self._lock:
            # The newest first: a process that imports a payload repeatedly has just imported it.
            imports = (m for m in reversed(self._references.values()) if m.kept is not None and not m.from_driver)
            return next((m for m in imports if m.object == shared and m.granted == granted), None)

    # -- payloads of GPU drivers --------------------------------------------------------------------------------------

    def _export_driver_memory(
        self,
        value: int,
        descriptor: bytes,
        share: Share,
        name: str | None,
        granted: int,
        sddl: str | None,
        inherit: bool,
        strict_kmt: bool,
        backing: Backing,
        reference: Reference | None,
        kind: ObjectKind = ObjectKind.MEMORY,
        pages: Sequence[Page] = (),
    ) -> Exported:
        """Create the companion for an object that its driver shares already.

        value: the driver's NT handle, borrowed until `release`; or its KMT number.
        """
        number = value if share & Share.KMT else 0
        imported = None
        if number:
            with self._lock:
                imported = next((held for held in self._references.values() if held.number == number), None)
        if imported is not None and imported.description is not None:
            # This process has imported the payload by that number, so it is described already.
            memory = msgspec.structs.replace(
                imported, companion=self._kept_companion(names.kmt_path(number, self.session()))
            )
            memory.granted, memory.exporting, memory.inherit = granted, True, inherit
            return Exported(self._add(memory, reference), imported.object, 0, number)
        display = names.resolve(name, self.session()).display if name is not None else ""
        path = names.kmt_path(number, self.session()) if number else self._described_at(value, name)
        description = Description(
            secrets.randbits(62) + 1,
            int(backing),
            strict_kmt,
            display,
            descriptor,
            kind=int(kind),
            pages=sync_payloads.page_paths(pages),
        )
        mask = None if kind is ObjectKind.MEMORY else rights.timeline_ace
        if path is None:
            companion = None
        elif name is not None and not calls.name_of(value):
            companion = exporter_names.announce(value, path, description, name, sddl)
        else:
            companion = OwnedDescriptor(payloads.create_companion(path, description, name, sddl, mask))
        held = HeldReference(
            0 if number else value, description.object, granted, None, companion, True, share, inherit, description
        )
        held.from_driver, held.number, held.kind = True, number, kind
        return Exported(self._add(held, reference), description.object, 0 if number else description.object, number)

    def _copy_driver_handle(self, found: HeldReference, flags: int = 0) -> int:
        """Return a new handle of a driver's payload with the rights of the export.

        Handles of some drivers have all rights.
        """
        allowed = calls.basic(found.section).granted & driver_memory.kernel().to_kernel(found.granted, found.kind)
        return status_errors.duplicate(found.section, allowed, flags)

    def _described_at(self, handle: int, name: str | None) -> str | None:
        """Return the path whose companion describes a driver's object; None for a nameless one of this process."""
        if name is not None:
            return names.payload_path(names.resolve(name, self.session()))
        return driver_memory.companion_path(calls.name_of(handle), self.session())

    def _import_driver_memory(
        self,
        handle: int,
        name: str | None,
        what: str,
        description: Description | None = None,
        reference: Reference | None = None,
        kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported:
        """Create a reference with a driver's NT handle, which it owns from now on, also after an error.

        name: as the program stated it, if it was opened by name. description: the one that came with the handle, if
        any. kind: ObjectTypeError if the description has another one.
        """
        kept = OwnedDescriptor(handle)
        opened: list[OwnedFd] = []
        try:
            granted = driver_memory.kernel().from_kernel(calls.basic(handle).granted, kind)
            if not granted & READ_CONTROL:
                raise status_errors.denied(granted | READ_CONTROL, what, kind)
            description = description or self.describe_driver_memory(handle)
            if description is not None and description.kind != kind:
                raise status_errors.wrong_kind(what, ObjectKind(description.kind), kind)
            path = calls.name_of(handle)
            if description is None or not self._is_one(description.object, handle):
                known = self._known(handle)
                shared = (known.object if known is not None else 0) or secrets.randbits(62) + 1
                description = None
            else:
                shared = description.object
            companion = self._kept_companion(driver_memory.companion_path(path, self.session()))
            writable = bool(granted & OBJECT_TYPES[kind].modify)
            payload = self._win32_payload(kept, writable, description, opened, OPAQUE_WIN32, 0, name)
        except BaseException:
            for owner in (kept, *opened):
                owner.close()
            raise
        memory = HeldReference(
            handle, shared, granted, PayloadFd(kept, writable), companion, description=description, from_driver=True
        )
        memory.kind = kind
        display = (
            description.name
            if description is not None and description.name
            else ""
            if driver_memory.is_hidden(path)
            else path
        )
        descriptor = description.descriptor if description is not None else b""
        number = self._add(memory, reference)
        return Imported(
            number,
            payload,
            shared,
            granted,
            descriptor,
            0,
            display or None,
            int(Backing.DRIVER_FD),
            object_kind=int(kind),
            reference=reference,
        )

    @staticmethod
    def _win32_payload(
        kept: OwnedFd,
        writable: bool,
        description: Description | None,
        opened: list[OwnedFd],
        handle_type: MemoryHandleType,
        number: int = 0,
        name: str | None = None,
    ) -> Win32Payload:
        """Return an import's hold on a driver's payload, with the companion pages that still exist.

        opened: gets the owners of the pages.
        """
        modes = sync_payloads.open_pages(description, writable, opened)
        return Win32Payload(kept, writable, handle_type, number, name, opened, modes)

    def _import_numbered(
        self,
        number: int,
        description: Description | None,
        reference: Reference | None = None,
        kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported:
        """Create a reference to the payload with a driver's KMT number. description: if it is known."""
        if description is not None:
            kind = ObjectKind(description.kind)
        granted = MEMORY.all if kind is ObjectKind.MEMORY else READ_CONTROL | SYNC_WAIT | SYNC_SIGNAL
        companion = None
        if description is None or not description.strict_kmt:
            companion = self._kept_companion(names.kmt_path(number, self.session()))
        shared = description.object if description is not None else 0
        held = HeldReference(0, shared, granted, None, companion, shared_by=Share.KMT, kind=kind)
        held.description, held.from_driver, held.number = description, True, number
        payload = self._win32_payload(OwnedDescriptor(-1), True, description, [], OPAQUE_WIN32_KMT, number)
        descriptor = description.descriptor if description is not None else b""
        return Imported(
            self._add(held, reference),
            payload,
            0,
            granted,
            descriptor,
            number,
            None,
            int(Backing.DRIVER_FD),
            object_kind=int(kind),
            reference=reference,
        )

    def import_stranger(
        self, number: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        """See `Manager`.

        InvalidHandleError for a value that cannot be a KMT number, and for one of extmem's, which is of another kind.
        """
        if (
            not is_kmt_value(number) or number & 0x3F != 0x02
        ):  # other values are valid only in the process that got them (B51)
            raise error_for(Status.INVALID_PARAMETER, bad_number(number))
        known = payloads.read_companion(names.kmt_path(number, self.session()))
        if known is not None and known.kind != object_kind:
            raise error_for(Status.INVALID_PARAMETER, bad_number(number))
        return self._import_numbered(number, None, reference, object_kind)

    def _kept_companion(self, path: str | None) -> OwnedFd | None:
        """Return a handle of the companion at `path`, so that the description outlives its exporter."""
        if path is None:
            return None
        try:
            return OwnedDescriptor(payloads.open_companion(path))
        except calls.StatusError:
            return None

    def describe_driver_memory(self, value: int) -> Description | None:
        """Return the description of a driver's object from its companion or this process; None for a foreign one."""
        where = driver_memory.companion_path(calls.name_of(value), self.session())
        description = payloads.read_companion(where) if where is not None else None
        if description is not None and description.backing not in _OF_THE_HOST:
            return description
        known = self._known(value)
        if known is not None and known.description is not None:
            return known.description
        found = self._descriptions.get(value) or self._description_of_same_object(value)
        return found[0] if found is not None else None

    def _description_of_same_object(self, handle: int) -> tuple[Description, OwnedFd | None] | None:
        """Return what is recorded for another handle of the same object."""
        for value, recorded in list(self._descriptions.items()):
            with contextlib.suppress(calls.StatusError):
                if calls.same_object(value, handle):
                    return recorded
        return None

    def _known(self, handle: int) -> HeldReference | None:
        with self._lock:
            mine = [memory for memory in self._references.values() if memory.from_driver and memory.section]
        return next((memory for memory in mine if calls.same_object(memory.section, handle)), None)

    def describe_driver_number(self, number: int) -> Description | None:
        """Return the description of the payload with a driver's KMT number; None if no payload of extmem has the
        number.
        """
        try:
            description = payloads.read_companion(names.kmt_path(number, self.session()))
        except ObjectManagerError:
            return None
        return description if description is not None and description.backing not in _OF_THE_HOST else None

    def _learn(self, handle: int, frame: bytes) -> Description | None:
        """Record the description that came with a handle of a nameless payload, until the handle is closed."""
        description = unpack(frame) if frame else None
        self.describe_as(handle, description)
        return description

    def describe_as(self, handle: int, description: Description | None, companion: OwnedFd | None = None) -> None:
        """Record the description for a handle that a program got, until the handle is closed."""
        if description is not None:
            if len(self._descriptions) >= _MAX_DESCRIPTIONS:
                self._descriptions.pop(next(iter(self._descriptions)))
            self._descriptions[handle] = description, companion

    def opened(self, handle: int) -> None:
        """Record the description for a handle that a program opened by name."""
        description = self.describe_driver_memory(handle)
        companion = self._kept_companion(driver_memory.companion_path(calls.name_of(handle), self.session()))
        self.describe_as(handle, description, companion)

    def copied(self, value: int, made: int) -> None:
        """Record the description for a duplicate within this process."""
        recorded = self._descriptions.get(value)
        if recorded is not None:
            self.describe_as(made, *recorded)
        pages = self._kept_pages.get(value)
        if pages is not None:
            self._keep(made, pages)

    def keep_pages(self, handle: int, description: Description | None) -> None:
        """Keep the companion pages of a payload open until a program's handle of it is closed."""
        pages = sync_payloads.reopened_pages(description)
        if pages:
            self._keep(handle, pages)

    def _keep(self, handle: int, pages: list[OwnedFd]) -> None:
        if len(self._kept_pages) >= _MAX_DESCRIPTIONS:
            self._kept_pages.pop(next(iter(self._kept_pages)))
        self._kept_pages[handle] = pages

    def forget(self, value: int) -> None:
        """Remove what is recorded for a handle that is closed, as its value may be reused."""
        self._descriptions.pop(value, None)
        self._kept_pages.pop(value, None)
