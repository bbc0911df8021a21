"""Host payloads as sections: making one, and what one says of itself.

How this works. The section is the allocation, rounded up to whole pages, and two pages more that hold its description
(`description`). The kernel zeroes it and charges all of it to the paging file when it is made, so running out of memory
is an error here and never a crash later; its size cannot change. Beside a named payload stands its companion, a small
section with the same security and the same description, which nobody but the exporter can write.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("sections are Windows's; extmem.manager selects what the system has")

import os
import secrets
import time
from typing import NamedTuple

from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.manager.windows import names, status_errors
from extmem.manager.windows.section_frame import FRAME, Description, pack, unpack
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import Share, Status, error_for
from extmem.objects.kmt import SLOTS, number_at
from extmem.sharing.terms import ShareTerms

__all__ = [
    "Found",
    "capacity_for",
    "create",
    "create_companion",
    "describe",
    "describe_named",
    "open_companion",
    "read_companion",
]

_KIND_HOST = 1
_PATIENCE = 1.0
"""Seconds that a companion may outlive its payload, which is as long as the kernel takes to tear a killed exporter
down; and that a payload may be there before what describes it.
"""
_LOOK_AGAIN = 0.002
_next_slot = secrets.randbelow(SLOTS)


class Found(NamedTuple):
    """What a section turned out to be."""

    description: Description | None
    """None for a foreign section, or one that cannot be read."""
    capacity: int
    """The largest allocationSize that it can back, in bytes."""


def capacity_for(size: int) -> int:
    """Bytes of the payload's part of a section, for an allocation of `size` bytes."""
    return -(-size // sections.PAGE) * sections.PAGE


def create(size: int, descriptor: bytes, terms: ShareTerms | None) -> int:
    """A new payload: the section's handle, owned by the caller, with every right (B32).

    terms: name and security where it is shared from the start; None for memory of this process alone.
    Errors: NameTakenError, NameInvalidError, NameNotFoundError, ObjectTypeError, AccessDeniedError,
    SecurityDescriptorError; OutOfMemoryError; ValueError for too long a descriptor.
    """
    session = calls.session(os.getpid())
    share = terms.share if terms is not None else Share(0)
    if share == Share.NT | Share.KMT:
        raise error_for(
            Status.INVALID_PARAMETER,
            "Memory is shared by NT handle or by KMT number, never both. Choose one of the two handle types.",
        )
    name = terms.name if terms is not None and share & Share.NT else None
    key = names.resolve(name, session) if name is not None else None
    made = Description(secrets.randbits(62) + 1, _KIND_HOST, False, key.display if key is not None else "", descriptor)
    frame = pack(made)
    room = capacity_for(size)
    with security_descriptor(terms.sddl if terms is not None else None) as security:
        if share & Share.KMT:
            section = _create_numbered(room + FRAME, session, security)
        else:
            section = _create_at(room + FRAME, name, names.payload_path(key) if key is not None else None, security)
    try:
        sections.poke(section, room, frame)
    except StatusError as error:
        calls.close_handle(section)
        raise _failed(error, size) from None
    return section


def _create_at(size: int, name: str | None, path: str | None, security: int) -> int:
    try:
        return sections.create(size, path, security)
    except StatusError as error:
        raise _failed(error, size, name, path or "") from None


def _create_numbered(size: int, session: int, security: int) -> int:
    """Under the next KMT number that is free; numbers walk forward from a random start (B62).

    A driver's number has no section and a companion alone.
    """
    global _next_slot
    for _ in range(SLOTS):
        number, _next_slot = number_at(_next_slot), (_next_slot + 1) % SLOTS
        path = names.kmt_path(number, session)
        try:
            section = sections.create(size, path, security)
            if not _exists(names.companion_of(path)):
                return section
            calls.close_handle(section)  # a driver gave that number to memory of its own
        except StatusError as error:
            if error.status not in (Status.OBJECT_NAME_COLLISION, Status.OBJECT_TYPE_MISMATCH, Status.ACCESS_DENIED):
                raise _failed(error, size, None, path) from None
            if error.status == Status.ACCESS_DENIED and not _exists(path):
                raise status_errors.of_creating(error, None, path) from None
    raise error_for(
        Status.INSUFFICIENT_RESOURCES, f"All {SLOTS} KMT numbers are in use. Free shared memory that nobody needs."
    )


def _exists(path: str) -> bool:
    try:
        calls.close_handle(sections.open_named(path, sections.QUERY))
    except StatusError as error:
        return error.status == Status.ACCESS_DENIED
    return True


def _failed(error: StatusError, size: int, name: str | None = None, path: str = "") -> Exception:
    return status_errors.out_of_memory(
        error, "vkAllocateMemory", f"an allocation of {size} bytes"
    ) or status_errors.of_creating(error, name, path)


def create_companion(path: str, described: Description, name: str | None, sddl: str | None) -> int:
    """The companion of the payload at `path`; its handle, owned by the caller.

    Errors: NameTakenError where another companion stands there and stays: a program's that holds it for no payload.
    """
    where = names.companion_of(path)
    deadline = time.monotonic() + _PATIENCE
    with security_descriptor(sddl) as security:
        while True:
            try:
                companion = sections.create(FRAME, where, security)
                break
            except StatusError as error:
                # The payload's name is ours by now, so this one is of a payload that has just gone, with its killed
                # exporter: the kernel closes a dead process's handles one after the other.
                if error.status != Status.OBJECT_NAME_COLLISION or time.monotonic() > deadline:
                    raise _failed(error, FRAME, name, where) from None
            time.sleep(0.005)
    try:
        sections.poke(companion, 0, pack(described))
    except StatusError as error:
        calls.close_handle(companion)
        raise _failed(error, FRAME) from None
    return companion


def open_companion(path: str) -> int:
    """A handle to the companion of the payload at `path`, owned by the caller. StatusError where there is none."""
    return sections.open_named(names.companion_of(path), sections.MAP_READ)


def read_companion(path: str) -> Description | None:
    """What the companion of the payload at `path` says; None where it has none (its exporter is gone)."""
    try:
        companion = open_companion(path)
    except StatusError:
        return None
    try:
        return unpack(sections.peek(companion, 0, FRAME))
    except StatusError:
        return None
    finally:
        calls.close_handle(companion)


def describe(section: int, path: str) -> Found:
    """What a payload's section says of itself: in its companion, which its exporter alone can write, or at its own end.

    path: its full name, empty for none. Never fails for what it finds: it may be anybody's.
    Errors: OutOfMemoryError where there is no room for a look, or it would pass for one that says nothing.
    """
    said = read_companion(path) if path and names.is_ours(path) else None
    try:
        size, anonymous = sections.facts(section)
    except StatusError:
        return Found(said, 0)
    if not anonymous or size <= FRAME:
        return Found(None, size if anonymous else 0)
    if said is None:
        try:
            said = unpack(sections.peek(section, size - FRAME, FRAME))
        except StatusError as error:
            lacking = status_errors.out_of_memory(error, "NtMapViewOfSection", "a view of a payload's description")
            if lacking is not None:
                raise lacking from None
            return Found(None, 0)
    return Found(said, size - FRAME if said is not None else size)


def describe_named(section: int, path: str) -> Found:
    """`describe`, of a section that was opened by name: it can be seen before its exporter has described it.

    The kernel names an object when it makes it, and what describes it is written afterwards. So this looks again for a
    second, as long as nothing is described. While the section is open here, its name leads to no other one.
    """
    deadline = time.monotonic() + _PATIENCE
    while (found := describe(section, path)).description is None and names.is_ours(path):
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_AGAIN)
    return found
