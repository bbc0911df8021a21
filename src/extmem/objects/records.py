"""What a client announces again after the object manager was killed: one frozen record per thing that it holds.

The client keeps these as it goes (`ObjectManager.describe` gives the same from the manager's side). Ids of payloads and
shared objects are random 63-bit numbers that stay the same over a restore, so several clients' announcements of one
thing can be told to be one; ids of memory objects and handle values belong to the process and are restored as they
were.
"""

from __future__ import annotations

from dataclasses import dataclass

from extmem.sharing.kinds import Share

__all__ = [
    "HandleRecord",
    "Held",
    "MemoryRecord",
    "ObjectRecord",
    "PayloadRecord",
    "Restored",
    "RestoredPayload",
    "TicketRecord",
]


@dataclass(frozen=True, slots=True)
class PayloadRecord:
    """A payload: its id, the kernel's identity of its fd (st_dev, st_ino), its KMT number while that is alive, and the
    user whose process shared it first.
    """

    payload: int
    identity: tuple[int, int]
    descriptor: bytes
    share: Share
    writable: bool
    kmt: int | None = None
    strict_kmt: bool = False
    uid: int = 0


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """A shared object: `name` is the full path or None, `sddl` its security by `format_sddl`, owner included; of two
    objects that had one name, the one with the higher `born` had it last.
    """

    object: int
    payload: int
    name: str | None
    owner: int
    sddl: str
    writable: bool
    born: int = 0


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A memory object. For exporting ones `granted` and `inherit` are those that its handles will get (B29)."""

    memory: int
    payload: int
    object: int | None
    exporting: bool
    granted: int
    inherit: bool = False


@dataclass(frozen=True, slots=True)
class HandleRecord:
    """An entry of the process's handle table."""

    value: int
    object: int
    granted: int
    inherit: bool
    protect: bool


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """A ticket in flight from this process whose time is not over. `kind` is "memory", "handle" or "kmt"."""

    ticket: int
    kind: str
    payload: int
    object: int | None
    granted: int


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that one process holds, in an order in which it can be announced."""

    payloads: tuple[PayloadRecord, ...] = ()
    objects: tuple[ObjectRecord, ...] = ()
    memories: tuple[MemoryRecord, ...] = ()
    handles: tuple[HandleRecord, ...] = ()
    tickets: tuple[TicketRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoredPayload:
    """How an announced payload came out: its id from now on (another client's, if that one announced the same memory
    under another id first) and its KMT number (None if it had none or another payload has that number now).
    """

    payload: int
    kmt: int | None


@dataclass(frozen=True, slots=True)
class Restored:
    """How `ObjectManager.restore` went: `nameless` are objects whose names were taken meanwhile."""

    payloads: tuple[RestoredPayload, ...]
    nameless: tuple[int, ...]
