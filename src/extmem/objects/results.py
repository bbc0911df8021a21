"""What the object manager's calls take and give: plain immutable records, no state.

Those of the hot path are named tuples: a frozen dataclass takes longer to make than an import takes to look up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["TYPE_NAME", "Claimed", "Exported", "HandleInfo", "Imported", "Limits"]

TYPE_NAME = "DxgkSharedResource"
"""Type name of the objects that refer to shared memory (B25), as NtQueryObject tells it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may hold, or one user where it says so. Going beyond is refused with QUOTA_EXCEEDED; what is
    held stays.
    """

    handles: int = 65_536
    memories: int = 65_536
    objects: int = 65_536
    tickets: int = 16_384
    """In flight, of all processes of one user."""
    children: int = 256
    """Inherited processes that have not shown up yet."""
    descriptor: int = 4_096
    """Bytes of one payload's descriptor."""


class Exported(NamedTuple):
    """A memory object that shares its payload: ids of the memory object (per process), the payload and the shared
    object (both stable, also over a restore), or the KMT number. `object` is None for KMT shares, `kmt` for NT shares.
    """

    memory: int
    payload: int
    object: int | None
    kmt: int | None


class Imported(NamedTuple):
    """A new memory object on an existing payload. `granted` has RESOURCE_WRITE (0x1) when it may be written.

    `name` is the full path with the creator's case, None for unnamed objects and KMT imports.
    """

    memory: int
    payload: int
    object: int | None
    granted: int
    kmt: int | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a ticket led to. Exactly one is set: a new handle of the claimer, a new memory object, or a KMT number.

    `ticket` is for `put_back`, and nobody else.
    """

    handle: int | None = None
    imported: Imported | None = None
    kmt: int | None = None
    ticket: object = None


@dataclass(frozen=True, slots=True)
class HandleInfo:
    """NtQueryObject and GetHandleInformation of one handle. `name` is the full path, empty for unnamed objects;
    `object` is the shared object's id; `pointer_count` counts handles and everything else that holds the object.
    """

    inherit: bool
    protect: bool
    granted: int
    object: int
    name: str
    type_name: str
    handle_count: int
    pointer_count: int
