"""Who holds what: every handle to a payload in the processes that this user may look into.

How this works. The kernel lists all handles of the machine (NtQuerySystemInformation, SystemExtendedHandleInformation),
by process, value and type. Sections of processes that we may open for PROCESS_DUP_HANDLE are duplicated here, asked for
their description, and closed again. Other users' processes stay closed, so what only they hold is not told. A memory
object and an NT handle are both handles to the kernel. Which is which is known of this process; in others, a handle
with the right to extend the section, which no NT handle of extmem's has, is a memory object's.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this is Windows's list of handles; extmem.manager selects what the system has")

import ctypes
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from extmem.errors import OutOfMemoryError
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.handles._win32.tables import CURRENT_PROCESS, SYSTEM_HANDLE, ntdll
from extmem.manager.windows import names, payloads, rights, security_descriptors
from extmem.manager.windows.section_frame import Description
from extmem.objects import HandleRow, HolderRow, ObjectRow, PayloadRow, Share

__all__ = ["look_around", "own_handles", "system_handles"]

_EXTENDED_HANDLES = 64
_LENGTH_MISMATCH = 0xC000_0004
_DUP_HANDLE = 0x0040


def system_handles() -> list[tuple[int, int, int, int]]:
    """Every handle of the machine: (pid, value, granted access, index of its object's type)."""
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
    """This process's handles: value, type, and the name of those that are sections."""
    found = []
    own = os.getpid()
    for pid, value, _, _ in system_handles():
        if pid == own:
            try:
                kind = calls.type_of(value)
                found.append((value, kind, calls.name_of(value) if kind == "Section" else ""))
            except StatusError:
                continue  # it was the list's own
    return found


@dataclass(slots=True)
class _Seen:
    """A payload, while its holders are being collected. `handle` is ours, a duplicate."""

    handle: int
    path: str
    description: Description
    shared: bool = False
    """Whether anybody but the device that made it holds it."""
    holders: dict[int, list[HandleRow]] = field(default_factory=dict)
    memories: dict[int, int] = field(default_factory=dict)
    tickets: dict[int, int] = field(default_factory=dict)


def look_around(memories: Mapping[int, int], in_flight: set[int]) -> list[PayloadRow]:
    """Live payloads and their holders.

    memories: the handles of this process that memory objects hold, and how many hold each; in_flight: those that
    tickets hold. All others are a program's. Of another process a handle is seen, and not how many imports share it.
    """
    own = os.getpid()
    seen: list[_Seen] = []
    try:
        for pid, value, granted, copied in _sections(own):
            payload = _known(seen, copied) or _new(seen, copied)
            if payload is None:
                calls.close_handle(copied)
                continue
            if payload.handle != copied:
                calls.close_handle(copied)
            payload.shared = payload.shared or pid != own or value in memories or not granted & sections.EXTEND
            if value in memories if pid == own else granted & sections.EXTEND:
                payload.memories[pid] = payload.memories.get(pid, 0) + (memories[value] if pid == own else 1)
            elif pid == own and value in in_flight:
                payload.tickets[pid] = payload.tickets.get(pid, 0) + 1
            elif pid != own or not granted & sections.EXTEND:
                row = HandleRow(value, rights.from_section(granted), payload.description.object)
                payload.holders.setdefault(pid, []).append(row)
        rows = [_row(payload) for payload in seen if payload.shared and not _is_private(payload)]
        return sorted(rows, key=lambda row: row.payload)
    finally:
        for payload in seen:
            calls.close_handle(payload.handle)


def _is_private(payload: _Seen) -> bool:
    """Whether it is another process's own memory, as far as can be seen: no name, and a single handle."""
    handles = sum(map(len, payload.holders.values())) + sum(payload.memories.values()) + sum(payload.tickets.values())
    return not payload.path and handles == 1 and os.getpid() not in {*payload.memories, *payload.holders}


def _sections(own: int) -> Iterator[tuple[int, int, int, int]]:
    """Section handles of all processes that open for us: (pid, value, granted, a duplicate of ours)."""
    kind = _section_type()
    processes: dict[int, int] = {own: CURRENT_PROCESS}
    try:
        for pid, value, granted, index in system_handles():
            if index != kind:
                continue
            process = processes.get(pid)
            if process is None:
                try:
                    process = calls.open_process(pid, _DUP_HANDLE)
                except StatusError:
                    process = 0
                processes[pid] = process
            if not process:
                continue
            try:
                copied = calls.duplicate(value, options=calls.SAME_ACCESS, source=process)
            except StatusError:
                continue  # closed meanwhile, or its process is
            yield pid, value, granted, copied
    finally:
        for process in processes.values():
            if process not in (0, CURRENT_PROCESS):
                calls.close_handle(process)


def _section_type() -> int:
    """The index of the type of sections: that of one that we make to find out."""
    probe = sections.create(sections.PAGE, None)
    try:
        own = os.getpid()
        return next((kind for pid, value, _, kind in system_handles() if pid == own and value == probe), -1)
    finally:
        calls.close_handle(probe)


def _known(seen: list[_Seen], copied: int) -> _Seen | None:
    for payload in seen:
        try:
            if calls.same_object(payload.handle, copied):
                return payload
        except StatusError:
            continue
    return None


def _new(seen: list[_Seen], copied: int) -> _Seen | None:
    """A payload that was not met yet; None for a section that is none, a companion, or one that may not be read."""
    try:
        path = calls.name_of(copied)
        if path and not names.is_ours(path):
            return None
        description = payloads.describe(copied, path).description
    except (StatusError, OutOfMemoryError):
        return None
    if description is None:
        return None
    payload = _Seen(copied, path, description)
    seen.append(payload)
    return payload


def _row(payload: _Seen) -> PayloadRow:
    said = payload.description
    number = names.find_number(payload.path)
    handles = sum(len(rows) for rows in payload.holders.values())
    shared = ObjectRow(
        said.object,
        said.name or None,
        security_descriptors.sddl_of(payload.handle),
        handles,
        handles + sum(payload.memories.values()) + sum(payload.tickets.values()),
    )
    pids = sorted({*payload.holders, *payload.memories, *payload.tickets})
    return PayloadRow(
        said.object,
        Share.KMT if number else Share.NT,
        number or None,
        said.descriptor,
        () if number else (shared,),
        tuple(
            HolderRow(
                pid, payload.memories.get(pid, 0), tuple(payload.holders.get(pid, ())), payload.tickets.get(pid, 0)
            )
            for pid in pids
        ),
    )
