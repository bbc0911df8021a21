"""`FdPayload`: the description of a payload whose file cannot contain it."""

from __future__ import annotations

import msgspec

__all__ = ["FdPayload"]


class FdPayload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The description that is sent with an fd whose file cannot contain it, such as that of a GPU driver.

    (It is a Struct, which is created by C code, because every export and every import creates one.)
    """

    descriptor: bytes
    """The payload's self-description."""
    backing: int
    """What the payload's file is (`sharing.kinds.Backing`)."""
    identity: int
    """Number that is unique among the payloads of the driver."""
    writable: bool
    trusted: bool = True
    """Whether the description comes from a process of this user. An fd from another user is verified before it is
    imported on a device in use."""
