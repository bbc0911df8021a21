"""Requests: from a client to the broker. Their numbers are 1…63."""

# Annotations are evaluated when a class is made (msgspec reads them), so they are not postponed here.

from typing import Annotated

import msgspec

from extmem.wire.limits import I64, U8, U32, KeyBytes, Message, Name, Payload, Record, Sddl, Secret, TicketBytes, Word

__all__ = [
    "Hello",
    "Export",
    "ImportName",
    "ImportHandle",
    "ImportKmt",
    "Free",
    "GetHandle",
    "OpenHandle",
    "CloseHandle",
    "Duplicate",
    "SameObject",
    "QueryHandle",
    "SetFlags",
    "KmtAlive",
    "Offer",
    "Claim",
    "BindOffer",
    "Withdraw",
    "Snapshot",
    "GetStatus",
    "Stop",
    "Inherit",
    "Hold",
    "ListHandles",
    "Follow",
    "AnnounceRecord",
    "AnnounceMemory",
    "AnnounceHandle",
    "AnnounceTicket",
    "AnnounceClaimed",
    "Announced",
]


class Hello(Message, tag=1):
    """The first message of a connection. `announcing`: announcements are to follow, then `Announced`.

    `resume` is the secret of an earlier connection of this process that this one is to go on for, of which it has taken
    in `received` replies; empty for none. No new handle gets a value up to `above`; nor one up to `highest`, where
    neither that connection nor announcements are taken over.
    """

    version: U32
    announcing: bool = False
    resume: Secret = b""
    received: I64 = 0
    above: U32 = 0
    highest: U32 = 0


class Export(Message, tag=2):
    """Share a payload (one fd). `backing` is what the fd is (`Backing`), `identity` only for backings that state it."""

    backing: U8
    descriptor: Payload
    share: U8
    name: Name | None
    access: U32
    sddl: Sddl | None
    inherit: bool
    strict_kmt: bool
    identity: I64 = 0


class ImportName(Message, tag=3):
    """A memory object by name."""

    name: Name
    desired: U32


class ImportHandle(Message, tag=4):
    """A memory object by NT handle."""

    handle: I64


class ImportKmt(Message, tag=5):
    """A memory object by KMT number."""

    number: I64


class Free(Message, tag=6):
    """Free a memory object. `forget` is a payload whose fds the client drops with it, 0 for none."""

    memory: I64
    forget: I64 = 0


class GetHandle(Message, tag=7):
    """A handle of an exported memory's object."""

    memory: I64


class OpenHandle(Message, tag=8):
    """A handle by name."""

    name: Name
    desired: U32
    inherit: bool


class CloseHandle(Message, tag=9):
    """CloseHandle. `forget` as in `Free`."""

    handle: I64
    forget: I64 = 0


class Duplicate(Message, tag=10):
    """DuplicateHandle. `desired` None keeps the access. `forget` as in `Free`.

    `into`: into another process, of which a pidfd is attached; else into the caller's own.
    """

    handle: I64
    desired: U32 | None
    inherit: bool
    same_attributes: bool
    close_source: bool
    into: bool
    forget: I64 = 0


class SameObject(Message, tag=11):
    """CompareObjectHandles."""

    a: I64
    b: I64


class QueryHandle(Message, tag=12):
    """GetHandleInformation and NtQueryObject."""

    handle: I64


class SetFlags(Message, tag=13):
    """SetHandleInformation."""

    handle: I64
    mask: U8
    flags: U8


class KmtAlive(Message, tag=14):
    """Whether a KMT number leads to a payload."""

    number: I64


class Offer(Message, tag=15):
    """Put one reference in flight; exactly one field is set."""

    memory: I64 | None = None
    handle: I64 | None = None
    kmt: I64 | None = None


class Claim(Message, tag=16):
    """Take the reference that a ticket stands for."""

    ticket: TicketBytes


class BindOffer(Message, tag=17):
    """The ticket is for a process (one fd, its pidfd): withdraw it when the process dies without claiming."""

    ticket: TicketBytes


class Withdraw(Message, tag=18):
    """Take an unclaimed offer back."""

    ticket: TicketBytes


class Snapshot(Message, tag=19):
    """The live payloads that the sender may open, and their holders: a page of them. `cursor` 0 begins."""

    cursor: I64 = 0


class GetStatus(Message, tag=20):
    """How the broker is."""


class Stop(Message, tag=21):
    """Ask the broker to leave. Without `force` only if no other client is there."""

    force: bool = False


class Inherit(Message, tag=22):
    """A child process that will inherit the caller's inheritable handles; `only` these, if it is not None."""

    only: Annotated[tuple[I64, ...], msgspec.Meta(max_length=1_024)] | None = None


class Hold(Message, tag=23):
    """What the client needs to announce a handle again: the object's record and an fd of its payload."""

    handle: I64


class ListHandles(Message, tag=24):
    """The caller's handle values above `after`, ascending."""

    after: I64 = 0


class Follow(Message, tag=25):
    """From a broker whose place this one has taken: its clients are about to come. What its key signed is believed."""

    key: KeyBytes


class AnnounceRecord(Message, tag=32):
    """In the recovery window (one fd of the payload): a record that a broker gave, and the payload's description.

    `wait`: answer only when the payload is known or the window is over.
    """

    record: Record
    descriptor: Payload
    wait: bool = False


class AnnounceMemory(Message, tag=34):
    """In the recovery window: a memory object of the client, with its old number, as a record says that it had it.

    `granted` and `inherit` of an exporting one are those of the handles that it gives.
    """

    memory: I64
    payload: I64
    object: I64
    exporting: bool
    granted: U32
    inherit: bool


class AnnounceHandle(Message, tag=35):
    """In the recovery window: an entry of the client's handle table, with its old value, as a record says."""

    handle: I64
    payload: I64
    object: I64
    granted: U32
    inherit: bool
    protect: bool


class AnnounceTicket(Message, tag=36):
    """In the recovery window: an offer not known to be claimed, of what a record says that the client has.

    `what` is "memory", "handle" or "kmt"; `bound`: for a process, of which a pidfd is attached.
    """

    ticket: TicketBytes
    what: Word
    payload: I64
    object: I64
    granted: U32
    bound: bool


class AnnounceClaimed(Message, tag=37):
    """After a restart, also too late: a ticket that this client claimed lately; nobody else may."""

    ticket: TicketBytes


class Announced(Message, tag=38):
    """In the recovery window: that was all."""
