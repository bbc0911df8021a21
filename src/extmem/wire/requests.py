"""Requests: from a client to the broker. Their numbers are 1…63."""

# Annotations are evaluated when a class is created (msgspec reads them), so they are not postponed here.

from typing import Annotated

import msgspec

from extmem.wire.limits import (
    I64,
    U8,
    U32,
    Count,
    KeyBytes,
    Message,
    Name,
    Pages,
    Payload,
    Record,
    Sddl,
    Secret,
    TicketBytes,
    Word,
)

__all__ = [
    "Hello",
    "Export",
    "ImportName",
    "ImportHandle",
    "ImportKmt",
    "Release",
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
    "AttachFds",
    "FetchFds",
    "AwaitName",
    "EndWait",
    "Forget",
    "IsSuperseded",
    "WatchNames",
    "Lease",
    "Freeze",
    "AnnounceRecord",
    "AnnounceReference",
    "AnnounceHandle",
    "AnnounceTicket",
    "AnnounceClaimed",
    "Announced",
]


class Hello(Message, tag=1):
    """The first message of a connection. `announcing`: announcements follow, then `Announced`.

    `resume` is the secret of an earlier connection of this process that this one continues, and `received` the number
    of replies that the process has processed from it; empty for none. No new handle gets a value up to `above`, nor one
    up to `highest` where neither that connection nor announcements are continued.
    """

    version: U32
    announcing: bool = False
    resume: Secret = b""
    received: I64 = 0
    above: U32 = 0
    highest: U32 = 0


class Export(Message, tag=2):
    """Share a payload of `handles` handles, the last of which are beside this message (`limits.last_part`).

    `object_kind` is the kind of the object (`ObjectKind`), `backing` what its files are (`Backing`). The last handles
    are its companion pages: `pages` has for each of them the mode in which importers get it. `identity` distinguishes
    payloads whose files have no inode of their own; 0 for none. `replace`: it takes the name of the object that has it.
    `keep` (`KeepMode`) and `keep_ms` are how long the broker itself keeps the object.
    """

    object_kind: U8
    backing: U8
    handles: Count
    descriptor: Payload
    share: U8
    name: Name | None
    access: U32
    sddl: Sddl | None
    inherit: bool
    strict_kmt: bool
    identity: I64 = 0
    pages: Pages = ()
    replace: bool = False
    keep: U8 = 0
    keep_ms: U32 = 0


class ImportName(Message, tag=3):
    """Import by name."""

    name: Name
    desired: U32
    object_kind: U8


class ImportHandle(Message, tag=4):
    """Import by NT handle."""

    handle: I64
    object_kind: U8


class ImportKmt(Message, tag=5):
    """Import by KMT number."""

    number: I64
    object_kind: U8


class Release(Message, tag=6):
    """Release a reference. `forget` is a payload whose file descriptors the client closes with it, 0 for none."""

    reference: I64
    forget: I64 = 0


class GetHandle(Message, tag=7):
    """A new handle of the object that a reference exports."""

    reference: I64


class OpenHandle(Message, tag=8):
    """A new handle by name."""

    name: Name
    desired: U32
    inherit: bool


class CloseHandle(Message, tag=9):
    """CloseHandle. `forget` as in `Release`."""

    handle: I64
    forget: I64 = 0


class Duplicate(Message, tag=10):
    """DuplicateHandle. `desired` None keeps the access. `forget` as in `Release`.

    `into`: into another process, whose pidfd is attached; else into the caller's own.
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
    """Whether a KMT number is of a live payload."""

    number: I64


class Offer(Message, tag=15):
    """Put one reference in flight. Exactly one field is set."""

    reference: I64 | None = None
    handle: I64 | None = None
    kmt: I64 | None = None


class Claim(Message, tag=16):
    """Take the reference that a ticket is for."""

    ticket: TicketBytes


class BindOffer(Message, tag=17):
    """The ticket is for a process (one fd, its pidfd): withdraw it when the process ends without claiming."""

    ticket: TicketBytes


class Withdraw(Message, tag=18):
    """Withdraw an unclaimed offer."""

    ticket: TicketBytes


class Snapshot(Message, tag=19):
    """The live payloads that the sender may open, and their holders: a page of them. `cursor` 0 begins."""

    cursor: I64 = 0


class GetStatus(Message, tag=20):
    """The state of the broker."""


class Stop(Message, tag=21):
    """Ask the broker to end. Without `force` it does so only if it has no other client."""

    force: bool = False


class Inherit(Message, tag=22):
    """A child process that is about to inherit the caller's inheritable handles; `only` these, if it is not None."""

    only: Annotated[tuple[I64, ...], msgspec.Meta(max_length=1_024)] | None = None


class Hold(Message, tag=23):
    """What the client needs to announce a handle: the object's record and the files of its payload."""

    handle: I64


class ListHandles(Message, tag=24):
    """The caller's handle values above `after`, ascending."""

    after: I64 = 0


class Follow(Message, tag=25):
    """From a broker whose runtime directory this one has taken: its clients are about to connect, with records that
    were signed with `key`.
    """

    key: KeyBytes


class AttachFds(Message, tag=26):
    """The first handles, or the next ones, of the payload that the following `Export` or `AnnounceRecord` shares."""


class FetchFds(Message, tag=27):
    """Handles of the payload that the last reply gave, from the handle `first` on, opened as `mode`: further ones, or
    all of them for a client that has closed its own.
    """

    payload: I64
    mode: U8
    first: U32


class AwaitName(Message, tag=28):
    """As `ImportName`; if the name does not exist, wait for it."""

    name: Name
    desired: U32
    object_kind: U8


class EndWait(Message, tag=29):
    """End a wait, and take what it got."""

    number: I64


class Forget(Message, tag=30):
    """End the keeping of the object with this name by the broker."""

    name: Name


class IsSuperseded(Message, tag=31):
    """Whether another object has got the name of a reference's object."""

    reference: I64


class WatchNames(Message, tag=39):
    """The page that counts how often a name was given to another object."""


class Lease(Message, tag=40):
    """To be the only one that updates the payload of a reference. A byte comes through the pipe when it is; the one who
    closes the pipe gives the lease back.
    """

    reference: I64


class Freeze(Message, tag=41):
    """Nobody is to write any more to the payload of these references, which are all that the sender's memory has.

    The sender has the lease, and seals the files before it gives it back: at that time the broker looks whether they
    are sealed. After the seal it sends this again, for a broker that has begun meanwhile.
    """

    references: Annotated[tuple[I64, ...], msgspec.Meta(min_length=1, max_length=8)]


class AnnounceRecord(Message, tag=32):
    """In the recovery window: a record that a broker signed, and the payload's descriptor, with its handles.

    They are sent as those of `Export`. `wait`: reply only when the payload is known or the window is over.
    """

    record: Record
    descriptor: Payload
    handles: Count
    wait: bool = False


class AnnounceReference(Message, tag=34):
    """In the recovery window: a reference of the client, with its old number, as a record proves it.

    `granted` and `inherit` of an exporting one are those of the handles that it gives.
    """

    reference: I64
    payload: I64
    object: I64
    exporting: bool
    granted: U32
    inherit: bool


class AnnounceHandle(Message, tag=35):
    """In the recovery window: an entry of the client's handle table, with its old value, as a record proves it."""

    handle: I64
    payload: I64
    object: I64
    granted: U32
    inherit: bool
    protect: bool


class AnnounceTicket(Message, tag=36):
    """In the recovery window: an offer that is not known to be claimed, of something that a record proves.

    `source` is "reference", "handle" or "kmt". `bound`: it is for a process, whose pidfd is attached.
    """

    ticket: TicketBytes
    source: Word
    payload: I64
    object: I64
    granted: U32
    bound: bool


class AnnounceClaimed(Message, tag=37):
    """After a restart, at any time: a ticket that this client claimed lately. It cannot be claimed again."""

    ticket: TicketBytes


class Announced(Message, tag=38):
    """In the recovery window: the end of the announcements."""
