"""Access rights of shared memory, which programs use, and of section objects, converted into each other. Pure.

::

    shared memory                    section
    READ_CONTROL   0x20000  <-->     READ_CONTROL | SECTION_QUERY | SECTION_MAP_READ
    RESOURCE_WRITE 0x00001  <-->     SECTION_MAP_WRITE
    DELETE, WRITE_DAC, WRITE_OWNER   the same bits
    SYNCHRONIZE                      dropped: a section cannot be waited for
    MAXIMUM_ALLOWED                  the same bit

Programs request the same rights of host payloads as of a GPU driver's, and get the same masks back.
"""

from __future__ import annotations

from extmem.objects import DELETE, MAXIMUM_ALLOWED, MEMORY, READ_CONTROL, RESOURCE_WRITE, WRITE_DAC, Refused, error_for
from extmem.objects.access import WRITE_OWNER

__all__ = ["asked", "from_section", "to_section"]

_QUERY, _MAP_WRITE, _MAP_READ = 0x1, 0x2, 0x4
_SAME = DELETE | READ_CONTROL | WRITE_DAC | WRITE_OWNER
_ALL_BITS = 0xFFFF_FFFF


def asked(mask: int) -> int:
    """Return the mask that a program requests, with generic bits mapped (B16).

    AccessDeniedError for bits that shared memory does not have (B23), InvalidHandleError for more than 32 bits.
    """
    try:
        return MEMORY.requested(mask)
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
