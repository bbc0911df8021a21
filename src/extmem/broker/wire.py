"""The broker's wire format: bytes ↔ messages, pure. `docs/wire.md` is the normative text of the same.

How this works. One SOCK_SEQPACKET packet is one message: a msgpack array whose first item is the message's number,
then its fields in order (missing trailing fields have defaults, so a later version may append fields). Every request
gets exactly one reply, in order. File descriptors travel beside a packet; `FDS` says how many belong to each kind of
message, and any other count breaks the format.

Everything here is written by a stranger until `decode_request` or `decode_reply` has returned it: any bytes either
become a valid message or raise PeerProtocolError, nothing else. Lengths and ranges are declared in the types below and
checked by the decoder; what a value means is the object manager's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Final, TypeAlias

import msgspec

from extmem.errors import PeerProtocolError
from extmem.objects import PayloadRow

__all__ = [
    "FDS",
    "IMPORTED_HEAD",
    "Kind",
    "MAX_DESCRIPTOR",
    "MAX_FDS",
    "MAX_MESSAGE",
    "PROTOCOL_VERSION",
    "READ_ONLY",
    "READ_WRITE",
    "Reply",
    "Request",
    "decode_record",
    "decode_reply",
    "decode_request",
    "decode_snapshot",
    "encode",
    "fds_of",
    "imported_tail",
]

PROTOCOL_VERSION: Final = 1
MAX_MESSAGE: Final = 16_384
"""Bytes of one packet."""
MAX_DESCRIPTOR: Final = 4_096
MAX_FDS: Final = 1
"""File descriptors beside one packet."""

READ_ONLY: Final = 1
READ_WRITE: Final = 2
"""How an attached file descriptor was opened (`mode` of a reply); 0 means none is attached, you hold it already."""


class Kind(IntEnum):
    """What a payload's file descriptor is."""

    HOST = 1
    """A memfd, sealed against shrinking and growing."""
    OPAQUE = 2
    """A driver's own descriptor (opaque fd, dma-buf)."""


U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
I64 = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
Pid = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF_FFFF)]
# Longer than any legal name or security descriptor, so that the object manager can say what is wrong with it.
Name = Annotated[str, msgspec.Meta(max_length=600)]
Sddl = Annotated[str, msgspec.Meta(max_length=1_500)]
Text = Annotated[str, msgspec.Meta(max_length=3_000)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Payload = Annotated[bytes, msgspec.Meta(max_length=MAX_DESCRIPTOR)]
Record = Annotated[bytes, msgspec.Meta(max_length=4_096)]
TicketBytes = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


# --------------------------------------------------------------------------------------------------------------------
# Requests: client → broker. Numbers 1…63.


class Hello(Message, tag=1):
    """The first message of a connection. `announcing`: announcements follow, then `Announced`."""

    version: U32
    announcing: bool = False


class Export(Message, tag=2):
    """Share a payload (one fd). `kind` is what the fd is (`Kind`), `identity` only for kinds that state it."""

    kind: U8
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
    """DuplicateHandle.

    `desired` None keeps the access; `into` None is the caller's own process. `forget` as in `Free`.
    """

    handle: I64
    desired: U32 | None
    inherit: bool
    same_attributes: bool
    close_source: bool
    into: Pid | None
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
    """The ticket is for that process: withdraw it when the process dies without claiming."""

    ticket: TicketBytes
    pid: Pid


class Withdraw(Message, tag=18):
    """Take an unclaimed offer back."""

    ticket: TicketBytes


class Snapshot(Message, tag=19):
    """All live payloads and their holders."""


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


class AnnouncePayload(Message, tag=32):
    """After a restart (one fd): a payload that the client holds. `writable`: this client may write to it."""

    payload: I64
    kind: U8
    descriptor: Payload
    share: U8
    kmt: U32
    strict_kmt: bool
    writable: bool
    identity: I64 = 0


class AnnounceObject(Message, tag=33):
    """After a restart: a shared object, as the record said it."""

    record: Record


class AnnounceMemory(Message, tag=34):
    """After a restart: a memory object of the client, with its old number.

    `granted` and `inherit` of an exporting one are those of the handles that it gives.
    """

    memory: I64
    payload: I64
    object: I64
    exporting: bool
    granted: U32
    inherit: bool


class AnnounceHandle(Message, tag=35):
    """After a restart: an entry of the client's handle table, with its old value."""

    handle: I64
    object: I64
    granted: U32
    inherit: bool
    protect: bool


class AnnounceTicket(Message, tag=36):
    """After a restart: an offer not known to be claimed.

    `what` is "memory", "handle" or "kmt"; `pid` 0: bound to nobody.
    """

    ticket: TicketBytes
    what: Word
    payload: I64
    object: I64
    granted: U32
    pid: Pid
    demoted: bool


class AnnounceClaimed(Message, tag=37):
    """After a restart: a ticket that this client claimed lately; nobody else may."""

    ticket: TicketBytes


class Announced(Message, tag=38):
    """After a restart: that was all."""


# --------------------------------------------------------------------------------------------------------------------
# Replies: broker → client. Numbers 64…127.


class Welcome(Message, tag=64):
    """To `Hello`. `inherited`: the handle table is not empty, ask `ListHandles`."""

    version: U32
    instance: I64
    broker_pid: Pid
    inherited: bool


class Done(Message, tag=65):
    """Done, nothing to say."""


class Value(Message, tag=66):
    """A number: a truth (0, 1), a count."""

    value: I64


class Exported(Message, tag=67):
    """To `Export`. `object` or `kmt` is 0 where there is none. `record` is for announcing the object again."""

    memory: I64
    payload: I64
    object: I64
    granted: U32
    kmt: U32
    strict_kmt: bool
    descriptor: Payload
    record: Record


class Imported(Message, tag=68):
    """To an import or a claim of memory: fd attached if `mode` is not 0.

    `needs` is the mode that the memory is to be used with: the fd's that is attached, or that the client has already.
    `memory` and `mode` are all that differs from one import of an object to the next, so they come first: what follows
    is made once (`imported_tail`).
    """

    memory: I64
    mode: U8
    needs: U8
    payload: I64
    object: I64
    granted: U32
    kmt: U32
    strict_kmt: bool
    kind: U8
    name: Name | None
    descriptor: Payload
    record: Record
    identity: I64 = 0


class Handle(Message, tag=69):
    """A handle of the caller, with what it needs to announce it again: fd attached if `mode` is not 0."""

    handle: I64
    payload: I64
    object: I64
    granted: U32
    inherit: bool
    protect: bool
    mode: U8
    kind: U8
    descriptor: Payload
    record: Record
    identity: I64 = 0


class HandleState(Message, tag=70):
    """To `QueryHandle`."""

    inherit: bool
    protect: bool
    granted: U32
    object: I64
    name: Name
    type_name: Word
    handle_count: I64
    pointer_count: I64


class Ticket(Message, tag=71):
    """To `Offer`."""

    ticket: TicketBytes


class Kmt(Message, tag=72):
    """A KMT number: to a claim of one."""

    number: U32


class Handles(Message, tag=73):
    """To `ListHandles`: the next values, none when there are no more."""

    values: Annotated[tuple[I64, ...], msgspec.Meta(max_length=1_024)]


class SnapshotFile(Message, tag=74):
    """To `Snapshot`: one fd, a sealed file of `size` bytes that `decode_snapshot` reads."""

    size: I64


class BrokerState(Message, tag=75):
    """To `GetStatus`. Times in milliseconds, memory in KiB."""

    pid: Pid
    version: U32
    uptime_ms: I64
    clients: I64
    payloads: I64
    fds: I64
    resident_kib: I64
    instance: I64


class Channel(Message, tag=76):
    """To `Inherit`: one fd, the child's end of its connection."""


class PayloadBack(Message, tag=79):
    """To `AnnouncePayload`: its id and KMT number from now on (0: another payload has the number by now)."""

    payload: I64
    kmt: U32


class Refusal(Message, tag=77):
    """The object manager says no: an NTSTATUS and a full sentence."""

    status: U32
    detail: Text


class Fault(Message, tag=78):
    """You broke the format (or came too late, or there are too many of you); the connection ends with this."""

    detail: Text


Request: TypeAlias = (
    Hello
    | Export
    | ImportName
    | ImportHandle
    | ImportKmt
    | Free
    | GetHandle
    | OpenHandle
    | CloseHandle
    | Duplicate
    | SameObject
    | QueryHandle
    | SetFlags
    | KmtAlive
    | Offer
    | Claim
    | BindOffer
    | Withdraw
    | Snapshot
    | GetStatus
    | Stop
    | Inherit
    | Hold
    | ListHandles
    | AnnouncePayload
    | AnnounceObject
    | AnnounceMemory
    | AnnounceHandle
    | AnnounceTicket
    | AnnounceClaimed
    | Announced
)

Reply: TypeAlias = (
    Welcome
    | Done
    | Value
    | Exported
    | Imported
    | Handle
    | HandleState
    | Ticket
    | Kmt
    | Handles
    | SnapshotFile
    | BrokerState
    | Channel
    | PayloadBack
    | Refusal
    | Fault
)

FDS: Final[Mapping[type[Message], int]] = {
    Export: 1,
    AnnouncePayload: 1,
    SnapshotFile: 1,
    Channel: 1,
}
"""File descriptors beside each kind of message: none for those not listed. `Imported` and `Handle` carry one exactly
when their `mode` is not 0 (`fds_of`)."""


class ObjectRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All that makes a shared object again after the broker died. `name` is the full path, None if unnamed."""

    object: I64
    payload: I64
    name: Name | None
    owner: U32
    sddl: Sddl
    writable: bool


_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_records = msgspec.msgpack.Decoder(ObjectRecord)
_snapshots = msgspec.msgpack.Decoder(list[PayloadRow])

encode = _encoder.encode
"""Any message, record or snapshot to bytes."""


IMPORTED_HEAD: Final = encode(Imported(0, 0, 0, 0, 0, 0, 0, False, 0, None, b"", b""))[:2]
"""What every encoded `Imported` begins with; its `memory` follows, then its `mode`, then its tail."""


def imported_tail(reply: Imported) -> bytes:
    """The part of the encoded reply after `memory` and `mode`."""
    return encode(reply)[len(IMPORTED_HEAD) + len(encode(reply.memory)) + 1 :]


def fds_of(message: Request | Reply) -> int:
    """How many file descriptors must come beside this message."""
    kind = type(message)
    if kind is Imported or kind is Handle:
        return 1 if message.mode else 0  # type: ignore[union-attr]  # (isinstance would be slower, and says the same)
    return FDS.get(kind, 0)


def decode_request(data: bytes) -> Request:
    """A request from a client's packet. Raises PeerProtocolError for anything else."""
    try:
        return _requests.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"{len(data)} bytes are no request: {error}") from None


def decode_reply(data: bytes) -> Reply:
    """A reply from the broker's packet. Raises PeerProtocolError for anything else."""
    try:
        return _replies.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"{len(data)} bytes are no reply: {error}") from None


def decode_record(data: bytes) -> ObjectRecord:
    """A shared object's record, as a client gave it back. Raises PeerProtocolError for anything else."""
    try:
        return _records.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"{len(data)} bytes are no object record: {error}") from None


def decode_snapshot(data: bytes) -> list[PayloadRow]:
    """The rows of a snapshot file. Raises PeerProtocolError for anything else."""
    try:
        return _snapshots.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"{len(data)} bytes are no snapshot: {error}") from None
