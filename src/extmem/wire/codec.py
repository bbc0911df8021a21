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

import operator
from collections.abc import Mapping
from typing import Final, SupportsIndex, TypeAlias

import msgspec

from extmem.errors import PeerProtocolError
from extmem.objects import Part
from extmem.sharing.kinds import Backing
from extmem.wire.limits import (
    I64,
    MAX_DESCRIPTOR,
    MAX_FDS,
    MAX_MESSAGE,
    PROTOCOL_VERSION,
    READ_ONLY,
    READ_WRITE,
    U8,
    U32,
    Message,
    Name,
    Payload,
    Record,
    Sddl,
    Secret,
)
from extmem.wire.replies import (
    BrokerState,
    Channel,
    Done,
    Exported,
    Fault,
    Handle,
    Handles,
    HandleState,
    Imported,
    Kmt,
    RecordBack,
    Refusal,
    SnapshotFile,
    Ticket,
    Value,
    Welcome,
)
from extmem.wire.requests import (
    AnnounceClaimed,
    Announced,
    AnnounceHandle,
    AnnounceMemory,
    AnnounceRecord,
    AnnounceTicket,
    BindOffer,
    Claim,
    CloseHandle,
    Duplicate,
    Export,
    Follow,
    Free,
    GetHandle,
    GetStatus,
    Hello,
    Hold,
    ImportHandle,
    ImportKmt,
    ImportName,
    Inherit,
    KmtAlive,
    ListHandles,
    Offer,
    OpenHandle,
    QueryHandle,
    SameObject,
    SetFlags,
    Snapshot,
    Stop,
    Withdraw,
)

__all__ = [
    "AnnounceClaimed",
    "AnnounceHandle",
    "AnnounceMemory",
    "AnnounceRecord",
    "AnnounceTicket",
    "Announced",
    "BindOffer",
    "BrokerState",
    "Channel",
    "Claim",
    "CloseHandle",
    "Done",
    "Duplicate",
    "Export",
    "Exported",
    "FDS",
    "Fault",
    "Follow",
    "Free",
    "GetHandle",
    "GetStatus",
    "Handle",
    "HandleState",
    "Handles",
    "Hello",
    "Hold",
    "IMPORTED_HEAD",
    "ImportFacts",
    "ImportHandle",
    "ImportKmt",
    "ImportName",
    "NOT_DECODED",
    "Imported",
    "Inherit",
    "Backing",
    "Kmt",
    "KmtAlive",
    "ListHandles",
    "MAX_DESCRIPTOR",
    "MAX_FDS",
    "MAX_MESSAGE",
    "HolderRecord",
    "Offer",
    "OpenHandle",
    "PROTOCOL_VERSION",
    "RecordBack",
    "QueryHandle",
    "READ_ONLY",
    "READ_WRITE",
    "Refusal",
    "Reply",
    "Request",
    "SIGNATURE",
    "SameObject",
    "SetFlags",
    "Snapshot",
    "SnapshotFile",
    "Stop",
    "Ticket",
    "Value",
    "Welcome",
    "Withdraw",
    "decode_facts",
    "decode_record",
    "decode_reply",
    "decode_request",
    "decode_parts",
    "encode",
    "reply_decoder",
    "fds_of",
]

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
    | Follow
    | AnnounceRecord
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
    | RecordBack
    | Refusal
    | Fault
)

FDS: Final[Mapping[type[Message], int]] = {
    Export: 1,
    AnnounceRecord: 1,
    BindOffer: 1,
    SnapshotFile: 1,
    Channel: 1,
}
"""File descriptors beside each kind of message: none for those not listed, but for those that carry one exactly when
a field says so (`fds_of`): `Imported` and `Handle` by `mode`, `Duplicate` by `into`, `AnnounceTicket` by `bound`."""


SIGNATURE: Final = 16
"""Bytes before a record that a broker has signed."""


class HolderRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one user's processes hold of a payload, for the broker that follows: all that makes it again.

    `object` is 0 for memory that is shared by KMT number, then `name` is None and `sddl` empty. `holder` is the user
    whose processes may announce this, with the rights `granted` at most; `exporting`: as an exporter's memory object.
    `uid` is the user that shared the payload first. `device` and `inode` are those of the payload's file, 0 where it
    has none of its own; `digest` is that of its description.
    """

    payload: I64
    object: I64
    name: Name | None
    owner: U32
    sddl: Sddl
    writable: bool
    born: I64
    holder: U32
    granted: U32
    exporting: bool
    backing: U8
    share: U8
    kmt: U32
    strict_kmt: bool
    stated: I64
    uid: U32
    device: I64
    inode: I64
    digest: Secret


class ImportFacts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an import leads to. `needs` is the mode that the memory is to be used with: the fd's that is attached, or
    that the client has already. `object` or `kmt` is 0 where there is none; `record` is a signed `HolderRecord`.
    `capacity` is how many bytes a host payload's file has, which is sealed; 0 for a driver's.
    """

    needs: U8
    payload: I64
    object: I64
    granted: U32
    kmt: U32
    strict_kmt: bool
    backing: U8
    name: Name | None
    descriptor: Payload
    record: Record
    identity: I64 = 0
    capacity: I64 = 0


def _as_builtin(value: object) -> object:
    """A str or integer of another class (NumPy's, say) as Python's own: what the encoder does not do by itself."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, SupportsIndex):
        return operator.index(value)
    raise TypeError(f"a message has no place for {value!r}, a {type(value).__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_as_builtin)
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_facts = msgspec.msgpack.Decoder(ImportFacts)
_records = msgspec.msgpack.Decoder(HolderRecord)
_parts = msgspec.msgpack.Decoder(list[Part])

NOT_DECODED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that are no message."""
reply_decoder: Final = _replies.decode
"""`decode_reply` without the explanation."""
encode = _encoder.encode
"""Any message, record or snapshot to bytes."""


IMPORTED_HEAD: Final = encode(Imported(0, 0, b""))[:2]
"""What every encoded `Imported` begins with; its `memory` follows, then its `mode`, then its encoded `facts`."""


def fds_of(message: Request | Reply) -> int:
    """How many file descriptors must come beside this message."""
    kind = type(message)
    if kind is Imported or kind is Handle:
        return 1 if message.mode else 0  # type: ignore[union-attr]  # (isinstance would be slower, and says the same)
    if kind is Duplicate:
        return int(message.into)  # type: ignore[union-attr]
    if kind is AnnounceTicket:
        return int(message.bound)  # type: ignore[union-attr]
    return FDS.get(kind, 0)


def decode_request(data: bytes) -> Request:
    """A request from a client's packet. Raises PeerProtocolError for anything else."""
    try:
        return _requests.decode(data)
    except NOT_DECODED as error:
        raise PeerProtocolError(f"{len(data)} bytes are no request: {error}") from None


def decode_reply(data: bytes) -> Reply:
    """A reply from the broker's packet. Raises PeerProtocolError for anything else."""
    try:
        return _replies.decode(data)
    except NOT_DECODED as error:
        raise PeerProtocolError(f"{len(data)} bytes are no reply: {error}") from None


def decode_facts(data: bytes) -> ImportFacts:
    """The facts of an import. Raises PeerProtocolError for anything else."""
    try:
        return _facts.decode(data)
    except NOT_DECODED as error:
        raise PeerProtocolError(f"{len(data)} bytes are no facts of an import: {error}") from None


def decode_record(data: bytes) -> HolderRecord:
    """A record without its signature. Raises PeerProtocolError for anything else."""
    try:
        return _records.decode(data)
    except NOT_DECODED as error:
        raise PeerProtocolError(f"{len(data)} bytes are no record: {error}") from None


def decode_parts(data: bytes) -> list[Part]:
    """The parts of a snapshot file. Raises PeerProtocolError for anything else."""
    try:
        return _parts.decode(data)
    except NOT_DECODED as error:
        raise PeerProtocolError(f"{len(data)} bytes are no page of a snapshot: {error}") from None
