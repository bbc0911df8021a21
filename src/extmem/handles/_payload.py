"""`FdPayload`: the description of a payload whose file cannot carry it."""

from __future__ import annotations

import msgspec

__all__ = ["FdPayload"]


class FdPayload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What travels with an fd whose file cannot carry its own description: a GPU driver's.

    (A Struct because it is made in C: every export and every import makes one.)
    """

    descriptor: bytes
    """The payload's self-description."""
    backing: int
    """What the file is to the object manager (`sharing.kinds.Backing`)."""
    identity: int
    """What tells the payload from others of the driver."""
    writable: bool
    trusted: bool = True
    """Whether this user's own processes say so. Anybody else's fd is proven before a device in use gets it."""
