"""The snapshot: every handle to a payload in the processes that this process may open.

How this works. The kernel lists all handles of the machine (NtQuerySystemInformation, SystemExtendedHandleInformation),
by process, value and type. Sections, events and semaphores of processes that can be opened with PROCESS_DUP_HANDLE are
duplicated, their descriptions are read, and the duplicates closed. Other users' processes cannot be opened, so payloads
that only they hold are omitted. For the kernel, references and NT handles are both handles. This process knows which of
its handles are references; in other processes, a handle with the right to extend the section (to query the state of an
event or semaphore) belongs to a reference, because no NT handle of extmem has that right.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from extmem.handles._win32 import calls, sections, waitables
from extmem.handles._win32.tables import CURRENT_PROCESS, SYSTEM_HANDLE, ntdll
from extmem.manager.windows import names, payloads, security_descriptors, status_errors
from extmem.manager.windows.handles import EVENT, SECTION, SEMAPHORE, conversion
from extmem.manager.windows.section_frame import Description
from extmem.objects import HandleRow, HolderRow, ObjectRow, PayloadRow, Share
from extmem.owning import OwnedDescriptor
from extmem.sharing import timeline_page
from extmem.sharing.descriptor.wire import owner_pid_of
from extmem.sharing.kinds import SYNC_KINDS, ObjectKind

__all__ = ["list_payloads", "own_handles", "system_handles"]

_EXTENDED_HANDLES = 64
_LENGTH_MISMATCH = 0xC000_0004
_DUP_HANDLE = 0x0040
_LISTING = "a list of the payloads"
_PROBES: Mapping[str, Callable[[], int]] = {
    SECTION: lambda: sections.create(sections.PAGE, None),
    EVENT: lambda: waitables.create_event(None, signaled=False),
    SEMAPHORE: lambda: waitables.create_semaphore(None, count=0),
}
"""What creates an object of each type that a payload may have, and returns its handle."""


def system_handles() -> list[tuple[int, int, int, int]]:
    """Return every handle of the machine: (pid, value, granted access, index of its object's type)."""
    size = 1 << 20
    while True:
        buffer = (ctypes.c_byte * size)()
        needed = ctypes.c_ulong()
        status = ntdll.NtQuerySystemInformation(_EXTENDED_HANDLES, buffer, size, ctypes.byref(needed)) & 0xFFFF_FFFF
        if status != _LENGTH_MISMATCH:
            break
        size = max(size * 2, needed.value)
    if status & 0x8000_0000:
        return []
    count = ctypes.c_size_t.from_buffer(buffer).value
    table = (SYSTEM_HANDLE * count).from_buffer(buffer, 2 * ctypes.sizeof(ctypes.c_size_t))
    return [(row.UniqueProcessId, row.HandleValue, row.GrantedAccess, row.ObjectTypeIndex) for row in table]


def own_handles() -> list[tuple[int, str, str]]:
    """Return this process's handles: value, type, and the name of sections."""
    found = []
    own = os.getpid()
    for pid, value, _, _ in system_handles():
        if pid == own:
            try:
                kind = calls.type_of(value)
                found.append((value, kind, calls.name_of(value) if kind == "Section" else ""))
            except calls.StatusError:
                continue  # it belonged to the listing itself
    return found


class _Found(msgspec.Struct):
    """A payload, while its holders are being collected. `handle` is a duplicate in this process."""

    handle: int
    path: str
    type_name: str
    description: Description
    shared: bool = False
    """Whether it is held by more than the device that created it."""
    holders: dict[int, list[HandleRow]] = msgspec.field(default_factory=dict)
    references: dict[int, int] = msgspec.field(default_factory=dict)
    tickets: dict[int, int] = msgspec.field(default_factory=dict)

    @property
    def kind(self) -> ObjectKind:
        """What it is."""
        return ObjectKind(self.description.kind)


class _Handle(NamedTuple):
    """A handle of some process, and its duplicate in this process."""

    pid: int
    value: int
    granted: int
    type_name: str
    copied: int


def list_payloads(references: Mapping[int, int], in_flight: set[int]) -> list[PayloadRow]:
    """Return the live payloads and their holders.

    references: the handles of this process that references hold, and the number of references for each. in_flight:
    those that tickets hold. All others belong to the program. In another process, the number of imports that share a
    handle is not known. Errors: OutOfMemoryError, because the list would lack what could not be looked at.
    """
    own = os.getpid()
    found: list[_Found] = []
    try:
        for pid, value, granted, type_name, copied in _handles(own):
            with calls.closed_on_error(copied):
                payload = _known(found, copied, type_name) or _new(found, copied, type_name)
            if payload is None:
                calls.close_handle(copied)
                continue
            if payload.handle != copied:
                calls.close_handle(copied)
            how = conversion(type_name, payload.kind)
            of_reference = bool(granted & how.references_alone)
            payload.shared = payload.shared or pid != own or value in references or not of_reference
            if value in references if pid == own else of_reference:
                payload.references[pid] = payload.references.get(pid, 0) + (references[value] if pid == own else 1)
            elif pid == own and value in in_flight:
                payload.tickets[pid] = payload.tickets.get(pid, 0) + 1
            elif pid != own or not of_reference:
                row = HandleRow(value, how.from_kernel(granted), payload.description.object)
                payload.holders.setdefault(pid, []).append(row)
        rows = [_row(payload) for payload in found if payload.shared and not _is_private(payload)]
        return sorted(rows, key=lambda row: row.payload)
    finally:
        for payload in found:
            calls.close_handle(payload.handle)


def _is_private(payload: _Found) -> bool:
    """Return whether it seems to be private memory of another process: no name, and a single handle."""
    handles = sum(map(len, payload.holders.values())) + sum(payload.references.values()) + sum(payload.tickets.values())
    return not payload.path and handles == 1 and os.getpid() not in {*payload.references, *payload.holders}


def _handles(own: int) -> Iterator[_Handle]:
    """Yield the handles of sections, events and semaphores of all processes that can be opened."""
    types = _types()
    processes: dict[int, int] = {own: CURRENT_PROCESS}
    try:
        for pid, value, granted, index in system_handles():
            type_name = types.get(index)
            if type_name is None:
                continue
            process = processes.get(pid)
            if process is None:
                try:
                    process = calls.open_process(pid, _DUP_HANDLE)
                except calls.StatusError as error:
                    status_errors.raise_shortage(error, "NtOpenProcess", _LISTING)
                    process = 0
                processes[pid] = process
            if not process:
                continue
            try:
                copied = calls.duplicate(value, options=calls.SAME_ACCESS, source=process)
            except calls.StatusError as error:
                status_errors.raise_shortage(error, "NtDuplicateObject", _LISTING)
                continue  # it was closed meanwhile, or its process has ended
            yield _Handle(pid, value, granted, type_name, copied)
    finally:
        for process in processes.values():
            if process not in (0, CURRENT_PROCESS):
                calls.close_handle(process)


def _types() -> dict[int, str]:
    """Return the indices of the types of payloads, which are read from new objects, and the types' names."""
    with contextlib.ExitStack() as made:
        probes: dict[int, str] = {}
        try:
            for type_name, create in _PROBES.items():
                probe = OwnedDescriptor(create())
                made.callback(probe.close)
                probes[probe.fd] = type_name
        except calls.StatusError as error:
            status_errors.raise_shortage(error, "NtCreateSection", _LISTING)
            raise status_errors.other(error, "The payloads cannot be listed.") from None
        own = os.getpid()
        return {kind: probes[value] for pid, value, _, kind in system_handles() if pid == own and value in probes}


def _known(found: list[_Found], copied: int, type_name: str) -> _Found | None:
    for payload in found:
        try:
            if payload.type_name == type_name and calls.same_object(payload.handle, copied):
                return payload
        except calls.StatusError:
            continue
    return None


def _new(found: list[_Found], copied: int, type_name: str) -> _Found | None:
    """Return a new payload; None for a foreign object, a companion, or a section that may not be read."""
    try:
        path = calls.name_of(copied)
        if type_name != SECTION:
            description = payloads.read_companion(path) if names.is_sync_event(path) else None
        elif path and not names.is_ours(path):
            return None
        else:
            description = payloads.describe(copied, path).description
    except calls.StatusError:
        return None
    if description is None:
        return None
    payload = _Found(copied, path, type_name, description)
    found.append(payload)
    return payload


def _row(payload: _Found) -> PayloadRow:
    description = payload.description
    number = names.find_number(payload.path)
    handles = sum(len(rows) for rows in payload.holders.values())
    pids = sorted({*payload.holders, *payload.references, *payload.tickets})
    publisher = owner_pid_of(description.descriptor)
    shared = ObjectRow(
        description.object,
        description.name or None,
        security_descriptors.sddl_of(payload.handle),
        handles,
        handles + sum(payload.references.values()) + sum(payload.tickets.values()),
        publisher=publisher if publisher in pids else 0,
    )
    return PayloadRow(
        description.object,
        Share.KMT if number else Share.NT,
        number or None,
        description.descriptor,
        () if number else (shared,),
        tuple(
            HolderRow(
                pid, payload.references.get(pid, 0), tuple(payload.holders.get(pid, ())), payload.tickets.get(pid, 0)
            )
            for pid in pids
        ),
        object_kind=payload.kind,
        counter=_counter(payload),
    )


def _counter(payload: _Found) -> int | None:
    """Return the value of a timeline of the host that this process may read; None for other payloads."""
    if payload.type_name != SECTION or payload.kind not in SYNC_KINDS:
        return None
    try:
        return int.from_bytes(sections.peek(payload.handle, timeline_page.VALUE, 8), sys.byteorder)
    except calls.StatusError:
        return None
