"""The handle table: NtDuplicateObject, NtQueryObject and similar calls, with access masks that programs state."""

from __future__ import annotations

import os

from extmem.errors import NameNotFoundError, ObjectManagerError
from extmem.handles import HandleEntry, HandleInfo
from extmem.handles._win32 import calls, sections, waitables
from extmem.manager.windows import driver_memory, exporter_names, names, payloads, processes, rights, status_errors
from extmem.manager.windows.references import References
from extmem.manager.windows.section_frame import Description, pack
from extmem.objects import FLAG_INHERIT, FLAG_PROTECT, MEMORY, READ_CONTROL, Refused, Status, error_for
from extmem.sharing.kinds import SYNC_KINDS, Backing, ObjectKind

__all__ = ["EVENT", "SECTION", "SEMAPHORE", "Handles", "conversion", "find_entry", "recorded"]

SECTION = "Section"
EVENT, SEMAPHORE = "Event", "Semaphore"
"""The kernel's types of a fence and of a binary semaphore of the host."""
_TYPES = (SECTION, *driver_memory.TYPES)
_OPENERS = {
    SECTION: (sections.open_named, sections.QUERY | sections.MAP_READ),
    EVENT: (waitables.open_event, waitables.SYNCHRONIZE),
    SEMAPHORE: (waitables.open_semaphore, waitables.SYNCHRONIZE),
}
_KMT_SHAPE = 0xC000_0000
_PROTECT_FROM_CLOSE = 2


def find_entry(value: int) -> tuple[int, str]:
    """Return a handle value without its low bits, and its object's type.

    InvalidHandleError, ObjectTypeError for others. A value that cannot be in this process's table is not passed to the
    kernel: -1 and -2 would mean process and thread.
    """
    if not 0 < value <= 0xFFFF_FFFF or value & _KMT_SHAPE:
        raise status_errors.bad_handle(value)
    value &= ~3  # handles are compared without the low two bits (B48), which not every call of the kernel ignores
    try:
        kind = driver_memory.kernel().kind_of(value)
    except calls.StatusError as error:
        raise status_errors.of_handle(error, value) from None
    if kind not in _TYPES and not (kind in (EVENT, SEMAPHORE) and names.is_sync_event(calls.name_of(value))):
        raise error_for(
            Status.OBJECT_TYPE_MISMATCH,
            f"The handle {value:#x} refers to an object of type {kind}; shared memory is a {SECTION} or, of a "
            f"GPU driver, a {MEMORY.name}. Pass the handle that the exporter returned.",
        )
    return value, kind


def conversion(type_name: str, kind: ObjectKind) -> rights.Conversion:
    """Return how the rights of an object become those of the kernel's object of this type, and back."""
    if type_name == SECTION:
        return rights.TIMELINE if kind in SYNC_KINDS else rights.MEMORY_SECTION
    if type_name in (EVENT, SEMAPHORE):
        return rights.EVENT
    objects = driver_memory.kernel()
    return rights.Conversion(
        lambda mask: objects.to_kernel(mask, kind), lambda mask: objects.from_kernel(mask, kind), 0
    )


def recorded(value: int, entry: HandleEntry | None) -> int:
    """Return a new handle, which `entry` owns from now on."""
    if entry is not None:
        entry.record(value)
    return value


class Handles(References):
    """The calls of the manager that concern handles."""

    def held_by_references(self, shared: int) -> int:
        """Return the number of handles to that object that references and tickets of this process hold."""
        with self._lock:
            sections_held = {m.section for m in self._references.values() if m.object == shared and m.section}
        return len(sections_held) + sum(other == shared for other in self._in_flight.handles().values())

    def open_handle(self, name: str, desired: int, inherit: bool = False, entry: HandleEntry | None = None) -> int:
        return recorded(self._open_handle(name, desired, inherit), entry)

    def _open_handle(self, name: str, desired: int, inherit: bool) -> int:
        flags = calls.OBJ_INHERIT if inherit else 0
        path = names.payload_path(names.resolve(name, self.session()))
        type_name, kind = self.kind_at(path) or (SECTION, ObjectKind.MEMORY)
        try:
            if type_name not in _OPENERS:
                raise status_errors.nothing_named(name, names.resolve(name, self.session()))
            value = self.open_path(name, path, desired, flags, type_name, kind)
        except NameNotFoundError:
            found = self.open_driver_object(name, desired, flags, kind)
            if found is not None:
                with calls.closed_on_error(found):
                    self.opened(found)
                return found
            provided = self.open_exporter_name(name, desired, flags)
            if provided is None:
                raise
            self._learn(provided[0], pack(provided[1]))
            return provided[0]
        granted, how = calls.basic(value).granted, conversion(type_name, kind)
        plain = how.to_kernel(how.from_kernel(granted))
        if granted & ~plain & how.references_alone:
            # Only handles of references have this right, by which a snapshot distinguishes them from NT handles.
            with calls.closed_on_error(value):
                value, full = status_errors.duplicate(value, plain, flags), value
            calls.close_handle(full)
        with calls.closed_on_error(value):
            if type_name == SECTION:
                self.keep_pages(value, payloads.describe(value, path).description)
            else:
                self.keep_description(value, path)
        return value

    def keep_description(self, value: int, path: str) -> None:
        """Record the description of an event or a semaphore for a handle of it, which keeps the companion alive."""
        self.describe_as(value, payloads.read_companion(path), self._kept_companion(path))

    def kind_at(self, path: str) -> tuple[str, ObjectKind] | None:
        """Return the kernel's type of the object of extmem at a path, and its kind; None if there is none.

        A driver's object, which has a companion there, has another path.
        """
        description = payloads.read_companion(path)
        if description is not None:
            kind = ObjectKind(description.kind)
            if description.backing == Backing.HOST_EVENT:
                return (SEMAPHORE if kind is ObjectKind.SEMAPHORE else EVENT), kind
            if description.backing == Backing.HOST_FILE:
                return SECTION, kind
            return (MEMORY.name if kind is ObjectKind.MEMORY else driver_memory.SYNC_TYPE), kind
        try:
            value = sections.open_named(path, sections.QUERY | sections.MAP_READ)
        except calls.StatusError as error:
            # An event or semaphore that no companion describes belongs to another program.
            return (SECTION, ObjectKind.MEMORY) if error.status == Status.ACCESS_DENIED else None
        try:
            return SECTION, self.kind_of(value, SECTION)
        finally:
            calls.close_handle(value)

    def kind_of(self, value: int, type_name: str) -> ObjectKind:
        """Return the kind of the object of a handle: by its type, or by its description where the type has several."""
        if type_name in (EVENT, SEMAPHORE):
            return ObjectKind.FENCE if type_name == EVENT else ObjectKind.SEMAPHORE
        if type_name not in (SECTION, driver_memory.SYNC_TYPE):
            return ObjectKind.MEMORY
        description = self.description_of(value, type_name)
        if description is not None:
            return ObjectKind(description.kind)
        return ObjectKind.MEMORY if type_name == SECTION else ObjectKind.SEMAPHORE

    def open_driver_object(self, name: str, desired: int, flags: int, kind: ObjectKind) -> int | None:
        """Return a new handle to a GPU driver's object by name; None if there is none of that name.

        kind: what the companion says; without one, memory is tried first.
        """
        if kind is not ObjectKind.MEMORY:
            return self.open_driver_memory(name, desired, flags, kind)
        try:
            return self.open_driver_memory(name, desired, flags)
        except ObjectManagerError as error:
            if error.ntstatus != Status.OBJECT_TYPE_MISMATCH:
                raise
            return self.open_driver_memory(name, desired, flags, ObjectKind.SEMAPHORE)

    def open_driver_memory(
        self, name: str, desired: int, flags: int = 0, kind: ObjectKind = ObjectKind.MEMORY
    ) -> int | None:
        """Return a new handle to a GPU driver's payload by name; None if there is none of that name."""
        key, asked = names.resolve(name, self.session()), 0
        try:
            try:
                asked = rights.asked(desired, kind)
            except ObjectManagerError:
                found = driver_memory.open_named(key, READ_CONTROL, 0, kind)
                if found is None:
                    return None  # the error for an unknown name comes first (B18)
                calls.close_handle(found)
                raise
            found = driver_memory.open_named(key, asked, flags, kind)
        except calls.StatusError as error:
            raise status_errors.of_opening(error, name, key.display, asked, kind) from None
        if found is not None and not asked:  # as `_open_at`
            calls.close_handle(found)
            raise status_errors.denied(0, f"opening {name!r}", kind)
        return found

    def open_exporter_name(self, name: str, desired: int, flags: int = 0) -> tuple[int, Description] | None:
        """Return a new handle to memory that an exporter provides under that name, and its description; None without
        one.
        """
        key = names.resolve(name, self.session())
        try:
            asked = rights.asked(desired)
        except ObjectManagerError:
            if not exporter_names.has_exporter_name(key):
                return None  # the error for an unknown name comes first (B18)
            raise
        if not asked and exporter_names.has_exporter_name(key):
            raise status_errors.denied(0, f"opening {name!r}")
        return exporter_names.open_exporter_name(name, key, asked, flags)

    def open_section(self, name: str, desired: int, entry: HandleEntry | None = None) -> int:
        return recorded(self.open_path(name, names.resolve(name, self.session()).display, desired), entry)

    def open_path(
        self,
        name: str,
        path: str,
        desired: int,
        flags: int = 0,
        type_name: str = SECTION,
        kind: ObjectKind = ObjectKind.MEMORY,
    ) -> int:
        """Return a new handle to the object at a path. name: what the program stated, for errors."""
        try:
            asked = rights.asked(desired, kind)
        except ObjectManagerError:
            self._exists(name, path, type_name)  # raises if the name is unknown: that error comes first (B18)
            raise
        try:
            return self._open_at(path, desired, asked, flags, type_name, kind)
        except calls.StatusError as error:
            raise status_errors.of_opening(error, name, path, asked, kind) from None

    def _open_at(self, path: str, desired: int, asked: int, flags: int, type_name: str, kind: ObjectKind) -> int:
        opened = _OPENERS[type_name][0]
        try:
            value = opened(path, conversion(type_name, kind).to_kernel(asked), flags)
        except calls.StatusError as error:
            if error.status == Status.ACCESS_DENIED and desired == READ_CONTROL:
                # Exactly this right is requested, which owners have without any other.
                return opened(path, READ_CONTROL, flags)
            raise
        if not asked:  # Windows refuses this; not every implementation of its kernel does
            calls.close_handle(value)
            raise calls.StatusError(Status.ACCESS_DENIED)
        return value

    def _exists(self, name: str, path: str, type_name: str) -> None:
        opened, access = _OPENERS[type_name]
        try:
            calls.close_handle(opened(path, access))
        except calls.StatusError as error:
            if error.status != Status.ACCESS_DENIED:
                raise status_errors.of_opening(error, name, path, sections.QUERY) from None

    def close(self, value: int, entry: HandleEntry | None = None) -> None:
        if entry is not None and not entry.owes:
            return
        value, _ = find_entry(value)
        try:
            calls.close(value)
        except calls.StatusError as error:
            raise status_errors.of_handle(error, value) from None
        self.forget(value)

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
        value, kind = find_entry(value)
        closes = close_source and not calls.flags(value) & _PROTECT_FROM_CLOSE
        try:
            return self._duplicated(value, kind, desired, inherit, same_attributes, close_source, into, entry)
        finally:
            if closes and source_entry is not None:
                source_entry.forget()  # closed also after a failure (B40)

    def _duplicated(
        self,
        value: int,
        kind: str,
        desired: int | None,
        inherit: bool,
        same_attributes: bool,
        close_source: bool,
        into: int | None,
        entry: HandleEntry | None,
    ) -> int:
        options = calls.SAME_ATTRIBUTES if same_attributes else 0
        mask, asked, object_kind = 0, 0, ObjectKind.MEMORY
        if desired is None:
            options |= calls.SAME_ACCESS
        else:
            object_kind = self.kind_of(value, kind)
            try:
                mask = rights.asked(desired, object_kind)
            except (ObjectManagerError, Refused):
                if close_source:
                    calls.discard(value)  # closed also after a failure (B40)
                raise
            asked = conversion(kind, object_kind).to_kernel(mask)
        if close_source:
            options |= calls.CLOSE_SOURCE
        flags = calls.OBJ_INHERIT if inherit else 0
        try:
            with processes.opened_process(os.getpid() if into is None else into) as target:
                made = calls.duplicate(value, asked, flags, options, target=target)
                if into is None:
                    if entry is not None:
                        entry.record(made)
                    self.copied(value, made)
                if close_source and made != value:
                    self.forget(value)
                return made
        except calls.StatusError as error:
            if error.status == Status.ACCESS_DENIED:
                raise status_errors.denied(
                    mask or READ_CONTROL, f"duplicating handle {value:#x}", object_kind
                ) from None
            raise status_errors.of_handle(error, value) from None

    def same_object(self, a: int, b: int) -> bool:
        """CompareObjectHandles. Before Windows 10, which does not have that call: by the sections' descriptions."""
        (first, _), (second, _) = find_entry(a), find_entry(b)
        try:
            same = calls.same_object(first, second)
        except calls.StatusError as error:
            raise status_errors.of_handle(error, first) from None
        if same is None:
            one, other = self.object_of(first), self.object_of(second)
            same = first == second or bool(one and one == other)
        return same

    def object_of(self, value: int) -> int:
        """Return the id of the shared object of a handle by its description; 0 if it cannot be read."""
        description = self.description_of(value, driver_memory.kernel().kind_of(value))
        return description.object if description is not None else 0

    def description_of(self, value: int, kind: str) -> Description | None:
        """Return the description of a payload from its section, its companion, or this process; None without one."""
        if kind == SECTION:
            return payloads.describe(value, calls.name_of(value)).description
        if kind in (EVENT, SEMAPHORE):
            return payloads.read_companion(calls.name_of(value))
        return self.describe_driver_memory(value)

    def info(self, value: int) -> HandleInfo:
        value, kind = find_entry(value)
        try:
            flags, found, path = calls.flags(value), calls.basic(value), calls.name_of(value)
        except calls.StatusError as error:
            raise status_errors.of_handle(error, value) from None
        description = self.description_of(value, kind)
        shared = description.object if description is not None else 0
        how = conversion(kind, self.kind_of(value, kind))
        hidden = driver_memory.is_hidden(path) or names.is_hidden(path)
        return HandleInfo(
            inherit=bool(flags & FLAG_INHERIT),
            protect_from_close=bool(flags & FLAG_PROTECT),
            granted_access=how.from_kernel(found.granted),
            type_name=kind,
            name=(description.name if description is not None else "") or ("" if hidden else path),
            object_id=shared,
            handle_count=found.handles - self.held_by_references(shared),
        )

    def set_flags(self, value: int, mask: int, flags: int) -> None:
        value, _ = find_entry(value)
        if mask & ~(FLAG_INHERIT | FLAG_PROTECT):
            raise error_for(
                Status.INVALID_PARAMETER,
                f"Handle flags are INHERIT (1) and PROTECT_FROM_CLOSE (2), the mask is {mask:#x}. Use these two.",
            )
        try:
            calls.set_flags(value, mask, flags)
        except calls.StatusError as error:
            raise status_errors.of_handle(error, value) from None
