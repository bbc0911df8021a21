"""What a client announces after the object manager was killed: one frozen record for each thing that it holds.

The client keeps these while it runs. Ids of payloads and shared objects are random 63-bit numbers that stay the same
across a restore, so that announcements of one thing by several clients can be recognised as one. Numbers of references
and handle values belong to the process, and are restored as they were.
"""

from __future__ import annotations

import msgspec

from extmem.objects.entities import Identity, Who
from extmem.sharing.keeping import NOT_KEPT, Keep
from extmem.sharing.kinds import ObjectKind, Share

__all__ = [
    "HandleRecord",
    "ObjectRecord",
    "PayloadRecord",
    "ReferenceRecord",
    "RestoredPayload",
    "TicketRecord",
]


class PayloadRecord(msgspec.Struct, frozen=True):
    """A payload. `kmt` is its KMT number while that is alive, `uid` the user whose process shared it first."""

    payload: int
    identity: Identity
    descriptor: bytes
    share: Share
    writable: bool
    kmt: int | None = None
    strict_kmt: bool = False
    uid: int = 0
    object_kind: ObjectKind = ObjectKind.MEMORY


class ObjectRecord(msgspec.Struct, frozen=True):
    """A shared object: `name` is the full path or None, `sddl` its security by `format_sddl`, owner included.

    Of two objects that had one name, the one with the higher `born` had it last.
    """

    object: int
    payload: int
    name: str | None
    owner: int
    sddl: str
    writable: bool
    born: int = 0
    publisher: Who = (0, 0)
    """The process that exported it."""
    keep: Keep = NOT_KEPT
    superseded: bool = False
    """Whether another object has got its name; `name` is None then."""


class ReferenceRecord(msgspec.Struct, frozen=True):
    """A reference. For an exporting one, `granted` and `inherit` are those that its handles get (B29)."""

    reference: int
    payload: int
    object: int | None
    exporting: bool
    granted: int
    inherit: bool = False


class HandleRecord(msgspec.Struct, frozen=True):
    """An entry of the process's handle table."""

    value: int
    object: int
    granted: int
    inherit: bool
    protect: bool


class TicketRecord(msgspec.Struct, frozen=True):
    """A ticket in flight from this process, not demoted. `source` is "reference", "handle" or "kmt"."""

    ticket: int
    source: str
    payload: int
    object: int | None
    granted: int


class RestoredPayload(msgspec.Struct, frozen=True):
    """The result of announcing a payload: its id from now on, and its KMT number.

    The id is another client's if that one announced the same payload under another id first. The number is None if the
    payload had none, or if another payload has that number now.
    """

    payload: int
    kmt: int | None
