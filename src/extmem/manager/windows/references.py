"""This process's references to payloads, and those among them whose payloads a GPU driver created.

How this works. A reference is what one vkAllocateMemory holds: a handle of its payload's kernel object, and what
keeps the description findable, the companion. A driver's payload that is shared by KMT number has no kernel object that
a process could have a handle to; its companion stands beside the number (`names.kmt_path`).
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are the references of Windows; extmem.manager selects what the system has")

import contextlib
import dataclasses
import itertools
import secrets
from dataclasses import dataclass

from extmem.errors import HandleStateError, ObjectManagerError
from extmem.handles import is_kmt_value
from extmem.handles._win32 import calls
from extmem.handles._win32.calls import StatusError
from extmem.manager.api import Reference
from extmem.manager.windows import driver_memory, exporter_names, names, payloads, status_errors
from extmem.manager.windows.handles import Handles
from extmem.manager.windows.section_frame import Description, unpack
from extmem.objects import MEMORY, READ_CONTROL, RESOURCE_WRITE, Share, Status, error_for
from extmem.objects.kmt import bad_number
from extmem.owning import Lock, OwnedDescriptor, OwnedFd, Step
from extmem.sharing.payload import PayloadFd, Win32Payload
from extmem.sharing.terms import Exported, Imported
from extmem.wire import Backing

__all__ = ["NAMELESS", "HeldReference", "References"]

_NT_TYPE, _KMT_TYPE = 2, 4  # VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_WIN32_BIT and …_KMT_BIT
_TOLD = 16_384
NAMELESS = 0
"""The object id of a section that says none, or lies: never taken for another one."""


@dataclass(slots=True, eq=False)
class HeldReference:
    """What one reference holds."""

    section: int
    """Its handle. Imports of a host payload with the same rights share one (`kept`), which goes with the last of them;
    an export's is the device's, which frees the memory here first. 0 for a driver's payload that has a number instead.
    """
    object: int
    granted: int
    """The rights that it was imported with, or that handles of an export get; in shared memory's words."""
    kept: PayloadFd | None = None
    companion: OwnedFd | None = None
    exporting: bool = False
    shared_by: Share = Share.NT
    inherit: bool = False
    said: Description | None = None
    """The description of a driver's payload, as far as it is known; None for host payloads, which say it themselves."""
    driver_s: bool = False
    """Whether a GPU driver made the payload."""
    number: int = 0
    """The KMT number of a driver's payload."""


class References(Handles):
    """The table of references."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._values = Lock(reentrant=True)
        self._numbers = itertools.count(1)
        self._references: dict[int, HeldReference] = {}
        self._told: dict[int, tuple[Description, OwnedFd | None]] = {}
        """What is known of drivers' payloads by the handles that programs have of them here, and the companion: who
        has a handle keeps the name alive, and so its description."""

    @property
    def lock(self) -> Lock:
        return self._values

    def when_lost(self, value: int) -> tuple[Step, Step]:
        return (calls.close_handle, value), (self._told.pop, value, None)

    def when_reference_lost(self, number: int) -> tuple[Step]:
        """See `Manager`. What the memory object holds goes with it."""
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
        """Whether what calls itself by that id is the object that this process knows by it: descriptions may lie."""
        with self._lock:
            known = next((m.section for m in self._references.values() if m.object == shared and m.section), None)
        return known is None or calls.same_object(known, handle) is not False

    def _like(self, shared: int, granted: int) -> HeldReference | None:
        """An import of the same host payload with the same rights: it is imported once, however often it is."""
        if shared == NAMELESS:
            return None
        with self._lock:
            # The newest first: who imports a payload often has just imported it.
            imports = (m for m in reversed(self._references.values()) if m.kept is not None and not m.driver_s)
            return next((m for m in imports if m.object == shared and m.granted == granted), None)

    # -- what GPU drivers made ----------------------------------------------------------------------------------------

    def _export_driver_s(
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
    ) -> Exported:
        """Announce memory that its driver shares already: what is made here is the companion.

        value: the driver's NT handle, borrowed until `free`; or its KMT number.
        """
        number = value if share & Share.KMT else 0
        imported = self._imported_numbered(number) if number else None
        if imported is not None and imported.said is not None:
            # It is the payload that this process has imported by that number: it is described already.
            memory = dataclasses.replace(
                imported, companion=self._kept_companion(names.kmt_path(number, self.session()))
            )
            memory.granted, memory.exporting, memory.inherit = granted, True, inherit
            return Exported(self._add(memory, reference), imported.object, 0, number)
        display = names.resolve(name, self.session()).display if name is not None else ""
        path = names.kmt_path(number, self.session()) if number else self._described_at(value, name)
        said = Description(secrets.randbits(62) + 1, int(backing), strict_kmt, display, descriptor)
        if path is None:
            companion = None
        elif name is not None and not calls.name_of(value):
            companion = exporter_names.announce(value, path, said, name, sddl)
        else:
            companion = OwnedDescriptor(payloads.create_companion(path, said, name, sddl))
        held = HeldReference(0 if number else value, said.object, granted, None, companion, True, share, inherit, said)
        held.driver_s, held.number = True, number
        return Exported(self._add(held, reference), said.object, 0 if number else said.object, number)

    def _imported_numbered(self, number: int) -> HeldReference | None:
        """A memory object of this process on a driver's KMT number."""
        with self._lock:
            return next((memory for memory in self._references.values() if memory.number == number), None)

    def _copy_driver_s(self, found: HeldReference, flags: int = 0) -> int:
        """A new handle of a driver's payload with the rights of the export; some drivers' handles have them all."""
        allowed = calls.basic(found.section).granted & driver_memory.kernel().to_kernel(found.granted)
        return status_errors.duplicate(found.section, allowed, flags)

    def _described_at(self, handle: int, name: str | None) -> str | None:
        """Whose companion describes a driver's object; None for a nameless one, which only this process knows."""
        if name is not None:
            return names.payload_path(names.resolve(name, self.session()))
        return driver_memory.companion_path(calls.name_of(handle), self.session())

    def _import_driver_s(
        self,
        handle: int,
        name: str | None,
        what: str,
        said: Description | None = None,
        reference: Reference | None = None,
    ) -> Imported:
        """A memory object on a driver's NT handle, which is the memory's from now on, errors included.

        name: as the program said it, where it was opened by name. said: what came with it, where something did.
        """
        kept = OwnedDescriptor(handle)
        try:
            granted = driver_memory.kernel().from_kernel(calls.basic(handle).granted)
            if not granted & READ_CONTROL:
                raise status_errors.denied(granted | READ_CONTROL, what)
            said = said or self.describe_driver_s(handle)
            path = calls.name_of(handle)
            if said is None or not self._is_one(said.object, handle):
                shared = self._known_object(handle) or secrets.randbits(62) + 1
                said = None
            else:
                shared = said.object
            companion = self._kept_companion(driver_memory.companion_path(path, self.session()))
        except BaseException:
            kept.close()
            raise
        writable = bool(granted & RESOURCE_WRITE)
        memory = HeldReference(handle, shared, granted, PayloadFd(kept, writable), companion, said=said, driver_s=True)
        payload = Win32Payload(kept, writable, _NT_TYPE, 0, name)
        display = said.name if said is not None and said.name else "" if driver_memory.is_hidden(path) else path
        descriptor = said.descriptor if said is not None else b""
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
            reference=reference,
        )

    def _import_numbered(self, number: int, said: Description | None, reference: Reference | None = None) -> Imported:
        """A memory object on a driver's KMT number, with what is known of its payload."""
        companion = None
        if said is None or not said.strict_kmt:
            companion = self._kept_companion(names.kmt_path(number, self.session()))
        shared = said.object if said is not None else 0
        held = HeldReference(0, shared, MEMORY.all, None, companion, shared_by=Share.KMT)
        held.said, held.driver_s, held.number = said, True, number
        payload = Win32Payload(OwnedDescriptor(-1), True, _KMT_TYPE, number)
        descriptor = said.descriptor if said is not None else b""
        return Imported(
            self._add(held, reference),
            payload,
            0,
            MEMORY.all,
            descriptor,
            number,
            None,
            int(Backing.DRIVER_FD),
            reference=reference,
        )

    def import_stranger(self, number: int, reference: Reference | None = None) -> Imported:
        """A memory object on a KMT number that no memory of extmem's has: another program's, for the driver to judge.

        InvalidHandleError for what cannot be a number.
        """
        if not is_kmt_value(number) or number & 0x3F != 0x02:  # others are no process's but their own (B51)
            raise error_for(Status.INVALID_PARAMETER, bad_number(number))
        return self._import_numbered(number, None, reference)

    def _kept_companion(self, path: str | None) -> OwnedFd | None:
        """A handle of the companion at `path`, so that the description outlives its exporter."""
        if path is None:
            return None
        try:
            return OwnedDescriptor(payloads.open_companion(path))
        except StatusError:
            return None

    def describe_driver_s(self, value: int) -> Description | None:
        """What the companion of a driver's object says, or this process knows of it; None for another program's."""
        where = driver_memory.companion_path(calls.name_of(value), self.session())
        said = payloads.read_companion(where) if where is not None else None
        if said is not None and said.backing != Backing.HOST_FILE:
            return said
        known = self._known(value)
        if known is not None and known.said is not None:
            return known.said
        told = self._told.get(value) or self._told_of(value)
        return told[0] if told is not None else None

    def _told_of(self, handle: int) -> tuple[Description, OwnedFd | None] | None:
        """What is known by another handle of the same object."""
        for value, told in list(self._told.items()):
            with contextlib.suppress(StatusError):
                if calls.same_object(value, handle):
                    return told
        return None

    def _known(self, handle: int) -> HeldReference | None:
        with self._lock:
            mine = [memory for memory in self._references.values() if memory.driver_s and memory.section]
        return next((memory for memory in mine if calls.same_object(memory.section, handle)), None)

    def _known_object(self, handle: int) -> int:
        known = self._known(handle)
        return known.object if known is not None else 0

    def number_of_driver_s(self, number: int) -> Description | None:
        """What the companion of a driver's KMT number says; None where no living memory of extmem's has it."""
        try:
            said = payloads.read_companion(names.kmt_path(number, self.session()))
        except ObjectManagerError:
            return None
        return said if said is not None and said.backing != Backing.HOST_FILE else None

    def _told_by(self, value: int) -> Description | None:
        told = self._told.get(value)
        return told[0] if told is not None else None

    def _learn(self, handle: int, frame: bytes) -> Description | None:
        """What came with a handle of a nameless payload. It is believed as long as the handle is open."""
        said = unpack(frame) if frame else None
        self.describe_as(handle, said)
        return said

    def describe_as(self, handle: int, said: Description | None, companion: OwnedFd | None = None) -> None:
        """A program got this handle, and this is known of its payload, until the handle is closed."""
        if said is not None:
            if len(self._told) >= _TOLD:
                self._told.pop(next(iter(self._told)))
            self._told[handle] = said, companion

    def opened(self, handle: int) -> None:
        """A program opened this handle by name."""
        said = self.describe_driver_s(handle)
        companion = self._kept_companion(driver_memory.companion_path(calls.name_of(handle), self.session()))
        self.describe_as(handle, said, companion)

    def copied(self, value: int, made: int) -> None:
        """A handle was duplicated within this process."""
        told = self._told.get(value)
        if told is not None:
            self.describe_as(made, *told)

    def forget(self, value: int) -> None:
        """A handle of this process is closed: its value may be another's from now on."""
        self._told.pop(value, None)
