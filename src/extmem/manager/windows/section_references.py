"""Shared memory of sections on Windows: the calls of the object manager that export, import and release it.

How this works. A reference holds a handle of its payload's section and, for an exporter, a handle of the companion. The
name and the description of a section are in the section itself (`payloads`). Memory of a GPU driver is the part of
`references`; these calls choose between the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from extmem.errors import (
    DescriptorError,
    HandleStateError,
    NameNotFoundError,
)
from extmem.handles._win32 import calls, sections
from extmem.manager.api import Reference
from extmem.manager.windows import names, naming, payloads, rights, status_errors
from extmem.manager.windows.handles import SECTION, find_entry
from extmem.manager.windows.references import NAMELESS, HeldReference
from extmem.manager.windows.section_frame import Description
from extmem.manager.windows.security_descriptors import sddl_from, user_sid
from extmem.manager.windows.sync_payloads import open_pages, page_paths
from extmem.objects import (
    MAXIMUM_ALLOWED,
    MEMORY,
    OBJECT_TYPES,
    READ_CONTROL,
    RESOURCE_WRITE,
    Share,
    Status,
    bad_number,
    error_for,
)
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.keeping import NOT_KEPT, Keep
from extmem.sharing.kinds import SYNC_KINDS, Backing, ObjectKind
from extmem.sharing.payload import Page, PayloadFd
from extmem.sharing.terms import Exported, Imported
from extmem.wire import MAX_DESCRIPTOR

__all__ = ["Sections"]


class Sections(naming.Naming):
    """The calls for memory that is a section, and the choice for other memory."""

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
        """Share a payload. Its section was created under this name and security (`ShareTerms`), as a kernel object gets
        its name when it is created. This call creates the companion.

        handles: the section's handle, provided until `release`; of a GPU driver's payload (`backing`) the handle that
            the driver returned, or its KMT number. UnsupportedError for more than one handle, and for a section with
            another name or without a name. pages: sections with a path, which the description contains.
        """
        naming.refuse_terms(replace, keep)
        if len(handles) != 1:
            raise status_errors.not_one_handle(len(handles))
        (fd,) = handles
        if len(descriptor) > MAX_DESCRIPTOR:
            raise DescriptorError(f"the descriptor has {len(descriptor)} bytes, at most {MAX_DESCRIPTOR} are allowed")
        granted = rights.asked(access, object_kind)
        if granted & MAXIMUM_ALLOWED:
            granted = granted & ~MAXIMUM_ALLOWED | OBJECT_TYPES[object_kind].all
        if backing is Backing.DRIVER_FD:
            payloads.refuse_both_ways(share)
            exported = self._export_driver_memory(
                fd, descriptor, share, name, granted, sddl, inherit, strict_kmt, backing, reference, object_kind, pages
            )
            return self.told(name, exported)
        if object_kind in SYNC_KINDS:
            exported = self.export_sync(
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
            return self.told(name, exported)
        value, _ = find_entry(fd)
        path = calls.name_of(value)
        found = payloads.describe(value, "").description
        shared = found.object if found is not None else 0
        number = self.check_terms(path, share, name)
        paths = payloads.describe_pages(value, found, page_paths(pages))
        companion = None
        if name is not None or number:
            display = names.resolve(name, self.session()).display if name is not None else ""
            kind = int(object_kind)
            description = Description(
                shared or 1, int(backing), strict_kmt, display, descriptor, kind=kind, pages=paths
            )
            companion = OwnedDescriptor(payloads.create_companion(path, description, name, sddl))
        # A payload with a KMT number does not have an NT object that a program could have a handle to.
        memory = HeldReference(value, shared, granted, None, companion, True, share, inherit, kind=object_kind)
        return self.told(name, Exported(self._add(memory, reference), shared, 0 if number else shared, number))

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
        """See `Manager`."""
        if object_kind in SYNC_KINDS:
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
                    return self._import(section, what, path, MEMORY.all, reference, object_kind)
            return self._import(self.open_path(name, path, desired), what, path, reference=reference, kind=object_kind)
        except NameNotFoundError:
            if object_kind is not ObjectKind.MEMORY:
                raise
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
        """See `Manager`."""
        if object_kind in SYNC_KINDS:
            return self.import_sync_by_handle(handle, object_kind, reference)
        value, kind = find_entry(handle)
        if kind != SECTION:
            self.refuse_other_kind(value, kind, object_kind, f"the handle {value:#x}")
        copied = status_errors.duplicate(value, options=calls.SAME_ACCESS)
        what = f"importing handle {value:#x}"
        if kind == SECTION:
            return self._import(copied, what, reference=reference, kind=object_kind)
        description, _ = self._descriptions.get(value, (None, None))
        return self._import_driver_memory(copied, None, what, description, reference)

    def import_by_kmt(
        self, number: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        """See `Manager`."""
        if object_kind in SYNC_KINDS:
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
        return self._import(section, f"importing KMT number {number:#x}", reference=reference, kind=object_kind)

    def _import(
        self,
        section: int,
        what: str,
        path: str | None = None,
        granted: int | None = None,
        reference: Reference | None = None,
        kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported:
        """Create a reference with a section's handle, which it owns from now on, also after an error.

        path, granted: the section's name and rights, if they are known; otherwise the kernel is queried. kind:
        ObjectTypeError if the description has another one.
        """
        kept: OwnedFd = OwnedDescriptor(section)
        pages: list[OwnedFd] = []
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
            if (description is None or description.pending) and named:
                description, capacity = payloads.describe_named(section, path)
            if description is not None:
                status_errors.check_kind(what, ObjectKind(description.kind), kind, pending=description.pending)
            number = names.find_number(path)
            shared = (
                description.object
                if description is not None and self._is_one(description.object, section)
                else NAMELESS
            )
            writable = bool(granted & RESOURCE_WRITE)
            modes = open_pages(description, writable, pages)
        except BaseException:
            for owner in (kept, *pages):
                owner.close()
            raise
        like = self._like(shared, granted)
        payload = None
        others = like.kept.shared if like is not None and like.kept is not None else None
        if like is not None and others is not None:
            with contextlib.suppress(HandleStateError):  # it is released at this moment
                payload = PayloadFd(others, writable, pages, modes)
                kept.close()
                section, kept = like.section, others
        if payload is None:
            payload = PayloadFd(kept, writable, pages, modes)
        memory = HeldReference(section, shared, granted, PayloadFd(kept, writable), kind=kind)
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
            object_kind=int(kind),
            reference=reference,
        )

    def release(self, number: int) -> None:
        """See `Manager`."""
        with self._lock:
            found = self._references.pop(number, None)
        if found is not None:
            found.companion = None  # closed with its last holder: handles of a program may keep a driver's
            if found.kept is not None:
                found.kept.close()
