"""The broker's wire format: bytes ↔ messages, pure. `docs/wire.md` is the normative text of the same.

How this works. One SOCK_SEQPACKET packet is one message: a msgpack array whose first item is the message's number,
then its fields in order (missing trailing fields have defaults, so that a later version may append fields). Every
request gets exactly one reply, in order. File descriptors are sent beside a packet; `fds_of` returns how many belong to
a message, and any other count breaks the format.

Everything here is untrusted input until `decode_request` or `decode_reply` has returned it: any bytes either become a
valid message or raise PeerProtocolError. Lengths and ranges are declared in the types of the fields and checked by the
decoder; the object manager checks what a value means.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Final, SupportsIndex, TypeAlias, TypeVar

import msgspec

from extmem import objects
from extmem.arguments import a_type
from extmem.errors import PeerProtocolError
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.wire.limits import (
    BY_RIGHTS,
    I64,
    MAX_DESCRIPTOR,
    MAX_FDS,
    MAX_HANDLES,
    MAX_MESSAGE,
    MAX_PAGES,
    PROTOCOL_VERSION,
    READ_ONLY,
    READ_WRITE,
    U8,
    U32,
    Count,
    Message,
    Name,
    Pages,
    Payload,
    Record,
    Sddl,
    Secret,
    last_part,
)
from extmem.wire.replies import (
    Attached,
    Awaited,
    BrokerState,
    Channel,
    Done,
    Exported,
    Fault,
    Fds,
    Handle,
    Handles,
    HandleState,
    Imported,
    Kmt,
    NamesPage,
    RecordBack,
    Refusal,
    SnapshotFile,
    Ticket,
    Value,
    Welcome,
    Writers,
)
from extmem.wire.requests import (
    AnnounceClaimed,
    Announced,
    AnnounceHandle,
    AnnounceRecord,
    AnnounceReference,
    AnnounceTicket,
    AttachFds,
    AwaitName,
    BindOffer,
    Claim,
    CloseHandle,
    Duplicate,
    EndWait,
    Export,
    FetchFds,
    Follow,
    Forget,
    Freeze,
    GetHandle,
    GetStatus,
    Hello,
    Hold,
    ImportHandle,
    ImportKmt,
    ImportName,
    Inherit,
    IsSuperseded,
    KmtAlive,
    Lease,
    ListHandles,
    Offer,
    OpenHandle,
    QueryHandle,
    Release,
    SameObject,
    SetFlags,
    Snapshot,
    Stop,
    WatchNames,
    Withdraw,
)

__all__ = [
    "AnnounceClaimed",
    "AnnounceHandle",
    "AnnounceReference",
    "AttachFds",
    "Attached",
    "AwaitName",
    "Awaited",
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
    "EndWait",
    "Export",
    "Exported",
    "FDS",
    "Fault",
    "Follow",
    "Forget",
    "Freeze",
    "FetchFds",
    "Fds",
    "Release",
    "MAX_HANDLES",
    "MAX_PAGES",
    "ObjectKind",
    "last_part",
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
    "IsSuperseded",
    "Backing",
    "Kmt",
    "KmtAlive",
    "Lease",
    "ListHandles",
    "MAX_DESCRIPTOR",
    "MAX_FDS",
    "MAX_MESSAGE",
    "HolderRecord",
    "NamesPage",
    "Offer",
    "OpenHandle",
    "PROTOCOL_VERSION",
    "RecordBack",
    "QueryHandle",
    "READ_ONLY",
    "READ_WRITE",
    "BY_RIGHTS",
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
    "WatchNames",
    "Welcome",
    "Withdraw",
    "Writers",
    "decode_facts",
    "decode_record",
    "decode_reply",
    "decode_request",
    "decode_parts",
    "encode",
    "reply_decoder",
    "fds_of",
]

T = TypeVar("T")
Request: TypeAlias = (
    Hello
    | Export
    | ImportName
    | ImportHandle
    | ImportKmt
    | Release
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
    | AttachFds
    | FetchFds
    | AwaitName
    | EndWait
    | Forget
    | IsSuperseded
    | WatchNames
    | Lease
    | Freeze
    | AnnounceRecord
    | AnnounceReference
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
    | Fds
    | Attached
    | Awaited
    | NamesPage
    | Writers
    | Refusal
    | Fault
)

FDS: Final[Mapping[type[Message], int]] = {
    AttachFds: MAX_FDS,
    BindOffer: 1,
    SnapshotFile: 1,
    Channel: 1,
    Awaited: 1,
    NamesPage: 1,
}
"""File descriptors beside each type of message, where its fields do not decide (`fds_of`); 0 for those not listed."""
_COUNTS: Final[Mapping[type[Message], Callable[[object], int]]] = {
    Imported: operator.attrgetter("fds"),
    Fds: operator.attrgetter("count"),
    Duplicate: operator.attrgetter("into"),
    AnnounceTicket: operator.attrgetter("bound"),
}
"""The fields that state the number of file descriptors."""


SIGNATURE: Final = 16
"""Bytes before a record that a broker has signed."""


class HolderRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one user's processes hold of a payload: all that the next broker needs to restore it.

    `object` is 0 for a payload that is shared by KMT number; then `name` is None and `sddl` empty. `holder` is the user
    whose processes may announce this, with the rights `granted` at most; `exporting`: as an exporting reference. `uid`
    is the user that shared the payload first. `files` is a digest of the identities of the payload's files, empty where
    these have no inodes of their own; `digest` is that of its descriptor.
    `publisher` and `publisher_start` are the pid and the start time of the process that exported the object; `keep`
    and `keep_ms` are as in `Export`.
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
    object_kind: U8
    backing: U8
    handles: Count
    pages: Pages
    share: U8
    kmt: U32
    strict_kmt: bool
    stated: I64
    uid: U32
    files: Secret
    digest: Secret
    publisher: I64
    publisher_start: I64
    keep: U8
    keep_ms: U32


class ImportFacts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The facts of an import. `needs` is the mode in which the payload is to be used: that of the attached file
    descriptors, or of those that the client has already.

    `object` or `kmt` is 0 where there is none. `handles` is the number of the payload's handles, the last of which are
    its companion pages, with their modes in `pages`. `record` is a signed `HolderRecord`. `capacity` is the size in
    bytes of a host payload's files, which are sealed; 0 for a driver's.
    """

    needs: U8
    payload: I64
    object: I64
    granted: U32
    kmt: U32
    strict_kmt: bool
    object_kind: U8
    backing: U8
    handles: Count
    pages: Pages
    name: Name | None
    descriptor: Payload
    record: Record
    identity: I64 = 0
    capacity: I64 = 0


def _as_builtin(value: object) -> object:
    """Return a str or integer of another class (NumPy's, say) as Python's own, which the encoder accepts."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, SupportsIndex):
        return operator.index(value)
    raise TypeError(f"a message cannot contain {value!r}, {a_type(value)}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_as_builtin)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

NOT_DECODED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions of a decoder for bytes that are not a message."""
reply_decoder: Final = _replies.decode
"""`decode_reply` without the text of the error."""
encode = _encoder.encode
"""Encode any message, record or page of a snapshot."""


IMPORTED_HEAD: Final = encode(Imported(0, 0, b""))[:2]
"""The first bytes of every encoded `Imported`. Its `reference` follows, then `fds`, then the encoded `facts`."""


def fds_of(message: Request | Reply) -> int:
    """Return how many file descriptors belong beside this message."""
    kind = type(message)
    count = _COUNTS.get(kind)
    if count is not None:
        return int(count(message))
    if kind is Handle:
        return min(message.handles, MAX_FDS) if message.mode else 0  # type: ignore[union-attr]
    if kind is Export or kind is AnnounceRecord:
        return last_part(message.handles)  # type: ignore[union-attr]
    return FDS.get(kind, 0)


def _strict(decoder: Callable[[], msgspec.msgpack.Decoder[T]], what: str) -> Callable[[bytes], T]:
    """Return the function that decodes untrusted bytes. It raises PeerProtocolError for anything else than `what`.

    decoder: returns the decoder, at the first call: to make one takes milliseconds, and a client decodes no requests.
    """
    decode: Callable[[bytes], T] | None = None

    def decode_strictly(data: bytes) -> T:
        nonlocal decode
        if decode is None:
            decode = decoder().decode
        try:
            return decode(data)
        except NOT_DECODED as error:
            raise PeerProtocolError(f"{len(data)} bytes are not {what}: {error}") from None

    return decode_strictly


def _requests() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


decode_request = _strict(_requests, "a request")
"""Decode a request from a client's packet."""
decode_reply = _strict(lambda: _replies, "a reply")
"""Decode a reply from the broker's packet."""
decode_facts = _strict(lambda: msgspec.msgpack.Decoder(ImportFacts), "the facts of an import")
"""Decode the facts of an import."""
decode_record = _strict(lambda: msgspec.msgpack.Decoder(HolderRecord), "a record")
"""Decode a record without its signature."""
decode_parts = _strict(lambda: msgspec.msgpack.Decoder(list[objects.Part]), "a page of a snapshot")
"""Decode the parts of a page of a snapshot."""
