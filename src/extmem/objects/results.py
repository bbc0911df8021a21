"""What the calls of the object manager take and return: plain immutable records.

Those of the hot path are named tuples: creating a frozen dataclass takes longer than the look-up of an import.
"""

from __future__ import annotations

import msgspec

from extmem.sharing.kinds import ObjectKind

__all__ = ["Claimed", "Exported", "HandleInfo", "Imported", "Limits"]


class Limits(msgspec.Struct, frozen=True):
    """The number of things that one process may hold, or one user where a field states it.

    A call that exceeds a limit is refused with QUOTA_EXCEEDED. What is held stays.
    """

    handles: int = 65_536
    references: int = 65_536
    objects: int = 65_536
    tickets: int = 16_384
    """Tickets in flight, of all processes of one user."""
    children: int = 256
    """Inheriting processes that have not connected yet."""
    descriptor: int = 4_096
    """Bytes of one payload's descriptor."""
    payload_handles: int = 4_096
    """Handles of one payload."""
    kept: int = 1_024
    """Objects that the object manager itself keeps (`keep=`), of one user."""
    waits: int = 1_024
    """Waits for names."""
    user_waits: int = 4_096
    """Waits for names, of all processes of one user."""


class Exported(msgspec.Struct, frozen=True):
    """A reference that shares its payload: the number of the reference (of the process), the ids of the payload and of
    the shared object (both stay the same across a restore), or the KMT number.

    `object` is None for KMT shares, `kmt` is None for NT shares.
    """

    reference: int
    payload: int
    object: int | None
    kmt: int | None


class Imported(msgspec.Struct, frozen=True):
    """A new reference to an existing payload. `granted` contains the type's right to modify if it may be written.

    `name` is the full path in the creator's case; None for unnamed objects and KMT imports.
    """

    reference: int
    payload: int
    object: int | None
    granted: int
    kmt: int | None
    name: str | None
    object_kind: ObjectKind


class Claimed(msgspec.Struct, frozen=True):
    """What a claimed ticket gives. Exactly one is set: a new handle of the claimer, a new reference, or a KMT number.

    `ticket` is for `put_back` alone.
    """

    handle: int | None = None
    imported: Imported | None = None
    kmt: int | None = None
    ticket: object = None


class HandleInfo(msgspec.Struct, frozen=True):
    """NtQueryObject and GetHandleInformation of one handle.

    `name` is the full path, empty for an unnamed object. `object` is the id of the shared object. `pointer_count`
    counts the handles and everything else that holds the object.
    """

    inherit: bool
    protect: bool
    granted: int
    object: int
    name: str
    type_name: str
    handle_count: int
    pointer_count: int
