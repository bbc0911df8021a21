"""Access rights that programs use, and those of the kernel's objects, converted into each other. Pure.

::

    shared memory                    section
    READ_CONTROL   0x20000  <-->     READ_CONTROL | SECTION_QUERY | SECTION_MAP_READ
    RESOURCE_WRITE 0x00001  <-->     SECTION_MAP_WRITE
    DELETE, WRITE_DAC, WRITE_OWNER   the same bits
    SYNCHRONIZE                      dropped: a section cannot be waited for
    MAXIMUM_ALLOWED                  the same bit

    semaphore or fence               section (a timeline)             event, semaphore (the kernel's)
    wait           0x00001  <-->     SECTION_QUERY | SECTION_MAP_READ SYNCHRONIZE
    signal         0x00002  <-->     SECTION_MAP_WRITE                EVENT_MODIFY_STATE, SEMAPHORE_MODIFY_STATE
    READ_CONTROL, DELETE, WRITE_DAC, WRITE_OWNER                      the same bits

Programs request the same rights of host payloads as of a GPU driver's, and get the same masks back. A handle of a
program never has SECTION_EXTEND, EVENT_QUERY_STATE or SEMAPHORE_QUERY_STATE, by which a snapshot distinguishes it from
a reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from extmem.objects import (
    DELETE,
    MAXIMUM_ALLOWED,
    OBJECT_TYPES,
    READ_CONTROL,
    RESOURCE_WRITE,
    WRITE_DAC,
    Refused,
    error_for,
)
from extmem.objects.access import GENERIC_ALL, GENERIC_EXECUTE, GENERIC_READ, SYNCHRONIZE, WRITE_OWNER
from extmem.objects.object_types import SYNC_SIGNAL, SYNC_WAIT
from extmem.sharing.kinds import ObjectKind

__all__ = [
    "EVENT",
    "MEMORY_SECTION",
    "TIMELINE",
    "Conversion",
    "asked",
    "event_ace",
    "from_section",
    "timeline_ace",
    "to_section",
]

_QUERY, _MAP_WRITE, _MAP_READ, _EXTEND = 0x1, 0x2, 0x4, 0x10
_MODIFY = 0x2
_SAME = DELETE | READ_CONTROL | WRITE_DAC | WRITE_OWNER
_ALL_BITS = 0xFFFF_FFFF


def asked(mask: int, kind: ObjectKind = ObjectKind.MEMORY) -> int:
    """Return the mask that a program requests, with generic bits mapped (B16).

    AccessDeniedError for bits that the kind does not have (B23), InvalidHandleError for more than 32 bits.
    """
    try:
        return OBJECT_TYPES[kind].requested(mask)
    except Refused as refused:
        raise error_for(refused.status, refused.detail) from None


def to_section(mask: int) -> int:
    """Return the access mask of a section for a mapped mask of shared memory."""
    rights = mask & (_SAME | MAXIMUM_ALLOWED)
    if mask & READ_CONTROL:
        rights |= _QUERY | _MAP_READ
    if mask & RESOURCE_WRITE:
        rights |= _MAP_WRITE
    return rights


def from_section(granted: int) -> int:
    """Return the access mask of shared memory for a section's granted access."""
    rights = granted & _SAME & _ALL_BITS
    if granted & _MAP_READ:
        rights |= READ_CONTROL
    if granted & _MAP_WRITE:
        rights |= RESOURCE_WRITE
    return rights


def _to_timeline(mask: int) -> int:
    rights = mask & (_SAME | MAXIMUM_ALLOWED)
    if mask & SYNC_WAIT:
        rights |= _QUERY | _MAP_READ
    if mask & SYNC_SIGNAL:
        rights |= _MAP_WRITE
    return rights


def _from_timeline(granted: int) -> int:
    rights = granted & _SAME & _ALL_BITS
    if granted & _MAP_READ:
        rights |= SYNC_WAIT
    if granted & _MAP_WRITE:
        rights |= SYNC_SIGNAL
    return rights


def _to_event(mask: int) -> int:
    rights = mask & (_SAME | MAXIMUM_ALLOWED)
    if mask & SYNC_WAIT:
        rights |= SYNCHRONIZE
    if mask & SYNC_SIGNAL:
        rights |= _MODIFY
    return rights


def _from_event(granted: int) -> int:
    rights = granted & _SAME & _ALL_BITS
    if granted & SYNCHRONIZE:
        rights |= SYNC_WAIT
    if granted & _MODIFY:
        rights |= SYNC_SIGNAL
    return rights


class Conversion(msgspec.Struct, frozen=True):
    """How the rights of one kind of object become those of the kernel's object, and back."""

    to_kernel: Callable[[int], int]
    from_kernel: Callable[[int], int]
    references_alone: int
    """The bit that only references have, never handles of programs."""


MEMORY_SECTION: Final = Conversion(to_section, from_section, _EXTEND)
"""Of memory."""
TIMELINE: Final = Conversion(_to_timeline, _from_timeline, _EXTEND)
"""Of a timeline of the host, which is a section."""
EVENT: Final = Conversion(_to_event, _from_event, _QUERY)
"""Of a fence of the host (an event), or a binary semaphore (a semaphore of the kernel)."""


def timeline_ace(mask: int) -> int:
    """Return the mask of an ACE for a timeline's section, from one in rights of semaphores. Generic rights stay."""
    return mask | (_QUERY | _MAP_READ if mask & SYNC_WAIT else 0) | (_EXTEND if mask & SYNC_SIGNAL else 0)


def event_ace(mask: int) -> int:
    """Return the mask of an ACE for an event, from one in rights of semaphores: only who may wait gets SYNCHRONIZE."""
    kept = mask & ~(GENERIC_EXECUTE | SYNCHRONIZE)
    if mask & GENERIC_EXECUTE:
        kept |= READ_CONTROL
    return kept | SYNCHRONIZE if mask & (SYNC_WAIT | GENERIC_READ | GENERIC_ALL) else kept
