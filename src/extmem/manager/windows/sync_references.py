"""References to semaphores and fences of the host: the kernel's sections, events and semaphores (`sync_payloads`).

How this works. The kind of an object follows from the kernel's type and, for a section or a driver's object, from its
description. A name, a handle or a number of another kind than the needed one is refused: a fence has the type name of a
semaphore to programs, and is told apart here as well.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from extmem.errors import NameNotFoundError, UnsupportedError
from extmem.handles._win32 import calls, waitables
from extmem.manager.api import Reference
from extmem.manager.windows import driver_memory, names, payloads, rights, status_errors, sync_payloads
from extmem.manager.windows.handles import EVENT, SECTION, SEMAPHORE, Handles, conversion, find_entry
from extmem.manager.windows.references import HeldReference
from extmem.manager.windows.section_frame import Description
from extmem.objects import (
    MAXIMUM_ALLOWED,
    OBJECT_TYPES,
    READ_CONTROL,
    Share,
    Status,
    bad_number,
    error_for,
)
from extmem.objects.object_types import SYNC_SIGNAL, SYNC_WAIT
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.payload import Page, PayloadFd
from extmem.sharing.terms import Exported, Imported

__all__ = ["SyncReferences"]

_PATIENCE, _LOOK_AGAIN = 1.0, 0.002
_ONLY = {SEMAPHORE: Backing.HOST_EVENT, EVENT: Backing.HOST_EVENT, SECTION: Backing.HOST_FILE}


class SyncReferences(Handles):
    """The calls of the manager that concern semaphores and fences."""

    def check_terms(self, path: str, share: Share, name: str | None) -> int:
        """Return the KMT number of an object at a path, or 0.

        UnsupportedError for terms that it was not created for.
        """
        number = names.find_number(path)
        wanted = names.payload_path(names.resolve(name, self.session())) if name is not None else ""
        payloads.refuse_both_ways(share)
        if bool(number) != bool(share & Share.KMT) or (name is not None and wanted != path):
            raise UnsupportedError(
                f"a section gets its name when it is made, and keeps it: this one is {path or 'unnamed'}, and "
                f"is to be shared by {share.name}{f' as {name!r}' if name is not None else ''}; allocate memory that "
                "is exported so from the start, and copy into it",
                requires_one_of=["memory allocated for that export"],
            )
        return number

    def export_sync(
        self,
        value: int,
        descriptor: bytes,
        kind: ObjectKind,
        *,
        share: Share,
        name: str | None,
        granted: int,
        sddl: str | None,
        inherit: bool,
        strict_kmt: bool,
        pages: Sequence[Page],
        reference: Reference | None,
    ) -> Exported:
        """Share a semaphore or fence of the host, which was created under this name and security.

        value: the object's handle, provided until `release`. Errors: UnsupportedError for one that was not created to
        be shared (a binary semaphore or fence without a path).
        """
        value, type_name = _entry_to_export(value)
        path = calls.name_of(value)
        number = self.check_terms(path, share, name)
        if not path and type_name != SECTION:
            raise UnsupportedError(
                f"this {OBJECT_TYPES[kind].noun.removeprefix('a shared ')} was not made to be shared, and its kernel "
                "object has no name to be described by; create it with VkExportSemaphoreCreateInfo or "
                "VkExportFenceCreateInfo",
                requires_one_of=["handleTypes of the export when it is created"],
            )
        found = self.description_of(value, type_name)
        shared = found.object if found is not None else secrets.randbits(62) + 1
        companion: OwnedFd | None = None
        if name is not None or number or type_name != SECTION:
            display = names.resolve(name, self.session()).display if name is not None else ""
            companion = self._kept_companion(path) if found is not None and type_name != SECTION else None
            if companion is None:
                description = Description(
                    shared,
                    int(_ONLY[type_name]),
                    strict_kmt,
                    display,
                    descriptor,
                    kind=int(kind),
                    pages=sync_payloads.page_paths(pages),
                )
                made = payloads.create_companion(path, description, name, sddl, rights.timeline_ace)
                companion = OwnedDescriptor(made)
        held = HeldReference(value, shared, granted, None, companion, True, share, inherit, kind=kind)
        return Exported(self._add(held, reference), shared, 0 if number else shared, number)

    # -- imports ------------------------------------------------------------------------------------------------------

    def import_sync_by_name(self, name: str, desired: int, kind: ObjectKind, reference: Reference | None) -> Imported:
        """See `Manager.import_by_name`."""
        what = f"opening {name!r}"
        path = names.payload_path(names.resolve(name, self.session()))
        located = self._kind_soon(path)
        if located is not None and located[1] is not kind:
            raise status_errors.wrong_kind(f"the name {name!r}", located[1], kind)
        if located is not None and located[0] in _ONLY:
            value = self.open_path(name, path, desired, 0, *located)
            return self._import_sync(value, located[0], kind, what, path, reference)
        found = self.open_driver_memory(name, desired, 0, ObjectKind.SEMAPHORE)
        if found is None:
            raise status_errors.nothing_named(name, names.resolve(name, self.session()))
        return self._import_driver_memory(found, name, what, None, reference, kind)

    def _kind_soon(self, path: str) -> tuple[str, ObjectKind] | None:
        """`kind_at`, of an object that may just have been created: wait a second for its companion."""
        deadline = time.monotonic() + _PATIENCE
        while (located := self.kind_at(path)) is None:
            try:
                calls.close_handle(waitables.open_event(path, waitables.SYNCHRONIZE))
            except calls.StatusError as error:
                if error.status not in (Status.OBJECT_TYPE_MISMATCH, Status.ACCESS_DENIED):
                    return None
            if time.monotonic() > deadline:
                raise status_errors.of_opening(
                    calls.StatusError(Status.OBJECT_TYPE_MISMATCH), path, path, 0, ObjectKind.SEMAPHORE
                )
            time.sleep(_LOOK_AGAIN)
        return located

    def import_sync_by_handle(self, value: int, kind: ObjectKind, reference: Reference | None) -> Imported:
        """See `Manager.import_by_handle`."""
        value, type_name = find_entry(value)
        what = f"the handle {value:#x}"
        self.refuse_other_kind(value, type_name, kind, what)
        description = self.describe_driver_memory(value) if type_name not in _ONLY else None
        copied = status_errors.duplicate(value, options=calls.SAME_ACCESS)
        if type_name in _ONLY:
            return self._import_sync(copied, type_name, kind, f"importing handle {value:#x}", None, reference)
        return self._import_driver_memory(copied, None, f"importing handle {value:#x}", description, reference, kind)

    def refuse_other_kind(self, value: int, type_name: str, kind: ObjectKind, what: str) -> None:
        """Raise ObjectTypeError if the object of a handle is of another kind.

        A driver's semaphore or fence without a description may be either.
        """
        found = self.kind_of(value, type_name)
        undescribed = type_name == driver_memory.SYNC_TYPE and self.describe_driver_memory(value) is None
        if found is not kind and not (undescribed and kind is not ObjectKind.MEMORY):
            raise status_errors.wrong_kind(what, found, kind)

    def import_sync_by_kmt(self, number: int, kind: ObjectKind, reference: Reference | None) -> Imported:
        """See `Manager.import_by_kmt`."""
        path = self.alive(number)
        description = payloads.read_companion(path)
        if description is None or description.kind != kind:
            raise error_for(Status.INVALID_PARAMETER, bad_number(number))
        if description.backing == Backing.DRIVER_FD:
            return self._import_numbered(number, description, reference)
        type_name = SECTION if description.backing == Backing.HOST_FILE else _event_type(kind)
        what = f"opening KMT number {number:#x}"
        try:
            value = self.open_path(f"{number:#x}", path, MAXIMUM_ALLOWED, 0, type_name, kind)
        except NameNotFoundError:
            raise error_for(Status.INVALID_PARAMETER, bad_number(number)) from None
        return self._import_sync(value, type_name, kind, what, path, reference)

    def alive(self, number: int) -> str:
        """Return the path of the payload with a KMT number. InvalidHandleError (INVALID_PARAMETER) if none has it."""
        path = names.kmt_path(number & 0xFFFF_FFFF, self.session())
        if 0 <= number <= 0xFFFF_FFFF:
            try:
                calls.close_handle(payloads.open_companion(path))
                return path
            except calls.StatusError as error:
                if error.status == Status.ACCESS_DENIED:
                    return path
        raise error_for(Status.INVALID_PARAMETER, bad_number(number))

    def _import_sync(
        self,
        value: int,
        type_name: str,
        kind: ObjectKind,
        what: str,
        named: str | None,
        reference: Reference | None,
    ) -> Imported:
        """Create a reference with a handle, which it owns from now on, also after an error.

        named: the path by which it was opened; its exporter may not have described it yet.
        """
        kept: OwnedFd = OwnedDescriptor(value)
        opened: list[OwnedFd] = []
        companion: OwnedFd | None = None
        try:
            granted = conversion(type_name, kind).from_kernel(calls.basic(value).granted)
            needed = READ_CONTROL | (SYNC_WAIT if type_name == SECTION else 0)
            if granted & needed != needed:
                raise status_errors.denied(granted | needed, what, kind)
            path = named if named is not None else calls.name_of(value)
            description = self._description_soon(value, type_name, patient=named is not None)
            if description is not None and description.kind != kind:
                raise status_errors.wrong_kind(what, ObjectKind(description.kind), kind)
            known = description is not None and self._is_one(description.object, value)
            number = names.find_number(path)
            if path and not (number and description is not None and description.strict_kmt):
                companion = self._kept_companion(path)
            writable = bool(granted & SYNC_SIGNAL)
            modes = sync_payloads.open_pages(description, writable, opened)
            payload = PayloadFd(kept, writable, opened, modes)
            shared = description.object if description is not None and known else 0
            held = HeldReference(value, shared, granted, PayloadFd(kept, writable), companion, kind=kind)
            if number:
                held.shared_by = Share.KMT
        except BaseException:
            for owner in (kept, *opened, *((companion,) if companion is not None else ())):
                owner.close()
            raise
        return Imported(
            self._add(held, reference),
            payload,
            0 if number else shared,
            granted,
            description.descriptor if description is not None else b"",
            number,
            (description.name if description is not None else "") or None,
            int(_ONLY[type_name]),
            _capacity(value, type_name),
            object_kind=int(kind),
            reference=reference,
        )

    def _description_soon(self, value: int, type_name: str, *, patient: bool) -> Description | None:
        """Return the description of an object; `patient`: wait a second for one that has just been created."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            description = self.description_of(value, type_name)
            if description is not None or not patient or time.monotonic() > deadline:
                return description
            time.sleep(_LOOK_AGAIN)


def _entry_to_export(value: int) -> tuple[int, str]:
    """`find_entry`, also for an event or semaphore without a path, which is not shared yet."""
    type_name = ""
    try:
        type_name = calls.type_of(value)
    except calls.StatusError as error:
        raise status_errors.of_handle(error, value) from None
    return (value, type_name) if type_name in _ONLY else find_entry(value)


def _capacity(value: int, type_name: str) -> int:
    """Return the bytes of a section before its description; 0 for other objects."""
    return payloads.describe(value, "").capacity if type_name == SECTION else 0


def _event_type(kind: ObjectKind) -> str:
    return SEMAPHORE if kind is ObjectKind.SEMAPHORE else EVENT
