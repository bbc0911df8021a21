"""Host payloads as sections: creating them, and reading their descriptions.

How this works. The section consists of the allocation, rounded up to whole pages, and two more pages with its
description (`section_frame`). The kernel zeroes it and charges all of it to the paging file when it is created, so lack
of memory is an error of this call and never a crash later. Its size cannot change. A named payload has a companion: a
small section with the same security and the same description, which only the exporter can write.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from extmem.handles._win32 import calls, sections
from extmem.manager.windows import names, status_errors
from extmem.manager.windows.section_frame import FRAME, Description, pack, unpack
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import SLOTS, Share, Status, error_for, number_at
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.terms import ShareTerms

__all__ = [
    "Found",
    "capacity_for",
    "create",
    "create_companion",
    "create_numbered",
    "describe",
    "describe_pages",
    "describe_named",
    "open_companion",
    "read_companion",
    "refuse_both_ways",
]

_KIND_HOST = 1
_PATIENCE = 1.0
"""Seconds for which a companion may outlive its payload, while the kernel closes the handles of a killed exporter; and
for which a payload may exist before its description.
"""
_LOOK_AGAIN = 0.002
_next_slot = secrets.randbelow(SLOTS)


class Found(NamedTuple):
    """The result of inspecting a section."""

    description: Description | None
    """None for a foreign section, or one that cannot be read."""
    capacity: int
    """The largest allocationSize that it can contain, in bytes."""


def capacity_for(size: int) -> int:
    """Return the bytes of a section without its description, for an allocation of `size` bytes."""
    return -(-size // sections.PAGE) * sections.PAGE


def create(size: int, descriptor: bytes, terms: ShareTerms | None, kind: ObjectKind = ObjectKind.MEMORY) -> int:
    """Create a payload, and return its section's handle with every right (B32), which the caller owns.

    terms: name and security, if it is shared from the start; None for memory of this process only. kind: what it is.
    Errors: NameTakenError, NameInvalidError, NameNotFoundError, ObjectTypeError, AccessDeniedError,
    SecurityDescriptorError; OutOfMemoryError; ValueError for too long a descriptor.
    """
    session = calls.session(os.getpid())
    share = terms.share if terms is not None else Share(0)
    refuse_both_ways(share)
    name = terms.name if terms is not None and share & Share.NT else None
    key = names.resolve(name, session) if name is not None else None
    display = key.display if key is not None else ""
    pending = terms is not None and terms.late
    made = Description(
        secrets.randbits(62) + 1, _KIND_HOST, False, display, descriptor, kind=int(kind), pending=pending
    )
    frame = pack(made)
    room = capacity_for(size)
    with security_descriptor(terms.sddl if terms is not None else None) as security:
        if share & Share.KMT:
            section = create_numbered(
                lambda path: sections.create(room + FRAME, path, security),
                session,
                lambda error, path: _failed(error, room + FRAME, None, path),
            )
        else:
            path = names.payload_path(key) if key is not None else None
            try:
                section = sections.create(room + FRAME, path, security)
            except calls.StatusError as error:
                raise _failed(error, room + FRAME, name, path or "") from None
    with calls.closed_on_error(section):
        try:
            sections.poke(section, room, frame)
        except calls.StatusError as error:
            raise _failed(error, size) from None
    return section


def refuse_both_ways(share: Share) -> None:
    """Refuse sharing by NT handle and by KMT number at once, which a kernel object cannot do (B61)."""
    if share & Share.KMT and share & Share.NT:
        raise error_for(
            Status.INVALID_PARAMETER,
            "Memory is shared either by NT handle or by KMT number. Choose one of the two handle types.",
        )


def create_numbered(
    create_at: Callable[[str], int], session: int, failed: Callable[[calls.StatusError, str], Exception]
) -> int:
    """Create an object under the next free KMT number. Numbers increase from a random start (B62).

    create_at: creates it under a full path. failed: returns the error for its failure. A driver's number does not have
    an object of the kernel, only a companion.
    """
    global _next_slot
    for _ in range(SLOTS):
        number, _next_slot = number_at(_next_slot), (_next_slot + 1) % SLOTS
        path = names.kmt_path(number, session)
        try:
            made = create_at(path)
            if not _exists(names.companion_of(path)):
                return made
            calls.close_handle(made)  # a driver has given that number to its own object
        except calls.StatusError as error:
            if error.status not in (Status.OBJECT_NAME_COLLISION, Status.OBJECT_TYPE_MISMATCH, Status.ACCESS_DENIED):
                raise failed(error, path) from None
            if error.status == Status.ACCESS_DENIED and not _exists(path):
                raise status_errors.of_creating(error, None, path) from None
    raise error_for(
        Status.INSUFFICIENT_RESOURCES, f"All {SLOTS} KMT numbers are in use. Free shared memory that is not needed."
    )


def _exists(path: str) -> bool:
    try:
        calls.close_handle(sections.open_named(path, sections.QUERY))
    except calls.StatusError as error:
        return error.status in (Status.ACCESS_DENIED, Status.OBJECT_TYPE_MISMATCH)
    return True


def _failed(error: calls.StatusError, size: int, name: str | None = None, path: str = "") -> Exception:
    return status_errors.out_of_memory(
        error, "vkAllocateMemory", f"an allocation of {size} bytes"
    ) or status_errors.of_creating(error, name, path)


def create_companion(
    path: str,
    described: Description,
    name: str | None,
    sddl: str | None,
    mask: Callable[[int], int] | None = None,
) -> int:
    """Create the companion of the payload at `path`, and return its handle, which the caller owns.

    mask: see `security_descriptor`.
    Errors: NameTakenError where another companion exists there and stays, held by a program without a payload.
    """
    where = names.companion_of(path)
    deadline = time.monotonic() + _PATIENCE
    with security_descriptor(sddl, mask) as security:
        while True:
            try:
                companion = sections.create(FRAME, where, security)
                break
            except calls.StatusError as error:
                # The caller has created the payload under this name, so this companion is of an earlier payload whose
                # exporter was killed: the kernel closes the handles of an ended process one after the other.
                if error.status != Status.OBJECT_NAME_COLLISION or time.monotonic() > deadline:
                    raise _failed(error, FRAME, name, where) from None
            time.sleep(0.005)
    with calls.closed_on_error(companion):
        try:
            sections.poke(companion, 0, pack(described))
        except calls.StatusError as error:
            raise _failed(error, FRAME) from None
    return companion


def open_companion(path: str) -> int:
    """Return a handle to the companion of the payload at `path`, which the caller owns.

    StatusError if there is none.
    """
    return sections.open_named(names.companion_of(path), sections.MAP_READ)


def read_companion(path: str) -> Description | None:
    """Return the description in the companion of the payload at `path`; None without one (its exporter has ended).

    Errors: OutOfMemoryError if it cannot be opened for lack of memory, because there would seem to be none.
    """
    what = "a view of a payload's companion"
    try:
        companion = open_companion(path)
    except calls.StatusError as error:
        status_errors.raise_shortage(error, "NtOpenSection", what)
        return None
    try:
        return unpack(sections.peek(companion, 0, FRAME))
    except calls.StatusError as error:
        status_errors.raise_shortage(error, "NtMapViewOfSection", what)
        return None
    finally:
        calls.close_handle(companion)


def describe(section: int, path: str) -> Found:
    """Read the description of a payload's section from its companion, which only its exporter can write, or its end.

    path: its full name, empty for none. Any content is accepted, as the section may be of another program.
    Errors: OutOfMemoryError if it cannot be mapped for lack of memory, because it would seem to have no description.
    """
    description = read_companion(path) if path and names.is_ours(path) else None
    try:
        size, anonymous = sections.facts(section)
    except calls.StatusError:
        return Found(description, 0)
    if not anonymous or size <= FRAME:
        return Found(None, size if anonymous else 0)
    if description is None:
        try:
            description = unpack(sections.peek(section, size - FRAME, FRAME))
        except calls.StatusError as error:
            status_errors.raise_shortage(error, "NtMapViewOfSection", "a view of a payload's description")
            return Found(None, 0)
    return Found(description, size - FRAME if description is not None else size)


def describe_pages(section: int, described: Description | None, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Complete the description of a section that this process has created: it is shared now. Return the paths.

    paths: those of its companion pages. Errors: OutOfMemoryError.
    """
    if described is not None and (paths or described.pending):
        try:
            end = sections.facts(section).size - FRAME
            sections.poke(section, end, pack(msgspec.structs.replace(described, pages=paths, pending=False)))
        except calls.StatusError as error:
            raise _failed(error, FRAME) from None
    return paths


def describe_named(section: int, path: str) -> Found:
    """`describe`, of a section that was opened by name: it may exist before its exporter has described it.

    The kernel names an object when it is created, and its description is written afterwards. So this reads it again for
    a second while there is none. While this process has the section open, its name does not refer to another one.
    """
    deadline = time.monotonic() + _PATIENCE
    while (found := describe(section, path)).description is None or found.description.pending:
        if not names.is_ours(path) or time.monotonic() > deadline:
            break
        time.sleep(_LOOK_AGAIN)
    return found
