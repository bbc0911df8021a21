"""Access masks of shared memory objects: which bits exist, how generic bits map (B16, B17), what a request may ask
(B18–B23).

Masks are plain ints here (a broker's hot path compares many of them); `extmem.Access` is the face that users see.
"""

from __future__ import annotations

from typing import Final

from extmem.objects.status import Refused, Status

__all__ = [
    "ALL_ACCESS",
    "DELETE",
    "GENERIC_ALL",
    "GENERIC_EXECUTE",
    "GENERIC_READ",
    "GENERIC_WRITE",
    "MAXIMUM_ALLOWED",
    "READ_CONTROL",
    "RESOURCE_WRITE",
    "SYNCHRONIZE",
    "VALID_BITS",
    "WRITE_DAC",
    "WRITE_OWNER",
    "describe",
    "map_generic",
    "requested",
]

RESOURCE_WRITE: Final = 0x0000_0001  # the only right of its own that the type has: a writable mapping (B17)
DELETE: Final = 0x0001_0000
READ_CONTROL: Final = 0x0002_0000  # also the right to import at all
WRITE_DAC: Final = 0x0004_0000
WRITE_OWNER: Final = 0x0008_0000
SYNCHRONIZE: Final = 0x0010_0000
MAXIMUM_ALLOWED: Final = 0x0200_0000
GENERIC_ALL: Final = 0x1000_0000
GENERIC_EXECUTE: Final = 0x2000_0000
GENERIC_WRITE: Final = 0x4000_0000
GENERIC_READ: Final = 0x8000_0000

VALID_BITS: Final = 0x001F_0001
"""Bits that a handle to a shared memory object can carry."""
ALL_ACCESS: Final = 0x000F_0001
"""What GENERIC_ALL maps to."""

_GENERIC: Final = GENERIC_READ | GENERIC_WRITE | GENERIC_EXECUTE | GENERIC_ALL
_MAPPING: Final = (
    (GENERIC_READ, READ_CONTROL),
    (GENERIC_WRITE, READ_CONTROL | RESOURCE_WRITE),
    (GENERIC_EXECUTE, READ_CONTROL),
    (GENERIC_ALL, ALL_ACCESS),
)
_ASKABLE: Final = VALID_BITS | _GENERIC | MAXIMUM_ALLOWED

_NAMES: Final = (
    (GENERIC_READ, "GENERIC_READ"),
    (GENERIC_WRITE, "GENERIC_WRITE"),
    (GENERIC_EXECUTE, "GENERIC_EXECUTE"),
    (GENERIC_ALL, "GENERIC_ALL"),
    (MAXIMUM_ALLOWED, "MAXIMUM_ALLOWED"),
    (SYNCHRONIZE, "SYNCHRONIZE"),
    (WRITE_OWNER, "WRITE_OWNER"),
    (WRITE_DAC, "WRITE_DAC"),
    (READ_CONTROL, "READ_CONTROL"),
    (DELETE, "DELETE"),
    (RESOURCE_WRITE, "RESOURCE_WRITE"),
)


def map_generic(mask: int) -> int:
    """RtlMapGenericMask for the type (B16): each generic bit adds its rights and goes, others stay."""
    if not mask & _GENERIC:
        return mask
    mapped = mask & ~_GENERIC
    for generic, rights in _MAPPING:
        if mask & generic:
            mapped |= rights
    return mapped


def requested(mask: int) -> int:
    """The mapped form of a mask that somebody asks for; MAXIMUM_ALLOWED stays in it, 0 stays 0.

    Raises Refused ACCESS_DENIED for bits that the type does not have (B23), INVALID_PARAMETER for no 32-bit mask at
    all.
    """
    if not 0 <= mask <= 0xFFFF_FFFF:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"An access mask has 32 bits, this one is {mask:#x}. Pass a mask such as 0x80000001 (read and write).",
        )
    unknown = mask & ~_ASKABLE
    if unknown:
        raise Refused(
            Status.ACCESS_DENIED,
            f"The access mask 0x{mask:08X} asks for bits that shared memory does not have (0x{unknown:08X}). "
            "Ask for GENERIC_READ (0x80000000) and RESOURCE_WRITE (0x1), or for MAXIMUM_ALLOWED (0x02000000).",
        )
    return map_generic(mask)


def describe(mask: int) -> str:
    """The mask in words for messages: `READ_CONTROL | RESOURCE_WRITE (0x00020001)`; `no rights (0x00000000)`."""
    words = [name for bit, name in _NAMES if mask & bit]
    named = 0
    for bit, _ in _NAMES:
        named |= bit
    rest = mask & ~named
    if rest:
        words.append(f"0x{rest:X}")
    return f"{' | '.join(words) if words else 'no rights'} (0x{mask:08X})"
