"""Access masks that all types of objects share: the standard rights and the generic bits (B16, B17, B23).

Masks are plain ints in the object manager: the broker compares many of them. Users see `extmem.Access`. What the bits
of one type of objects are, and what generic bits map to, is in `object_types`.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "DELETE",
    "GENERIC",
    "GENERIC_ALL",
    "GENERIC_EXECUTE",
    "GENERIC_READ",
    "GENERIC_WRITE",
    "MAXIMUM_ALLOWED",
    "READ_CONTROL",
    "STANDARD_NAMES",
    "SYNCHRONIZE",
    "WRITE_DAC",
    "WRITE_OWNER",
]

DELETE: Final = 0x0001_0000
READ_CONTROL: Final = 0x0002_0000
"""The right to read the security descriptor; every import requires it."""
WRITE_DAC: Final = 0x0004_0000
WRITE_OWNER: Final = 0x0008_0000
SYNCHRONIZE: Final = 0x0010_0000
MAXIMUM_ALLOWED: Final = 0x0200_0000
GENERIC_ALL: Final = 0x1000_0000
GENERIC_EXECUTE: Final = 0x2000_0000
GENERIC_WRITE: Final = 0x4000_0000
GENERIC_READ: Final = 0x8000_0000
GENERIC: Final = GENERIC_READ | GENERIC_WRITE | GENERIC_EXECUTE | GENERIC_ALL
"""All generic bits."""

STANDARD_NAMES: Final = (
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
)
"""The bits that all types have, and their names, in the order in which messages list them."""
