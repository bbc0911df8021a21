"""Replies: from the broker to a client. Their numbers are 64…127."""

from typing import Annotated

import msgspec

from extmem.wire.limits import (
    I64,
    U8,
    U32,
    Facts,
    Message,
    Name,
    Payload,
    Pid,
    Record,
    Secret,
    Text,
    TicketBytes,
    Word,
)

__all__ = [
    "Welcome",
    "Done",
    "Value",
    "Exported",
    "Imported",
    "Handle",
    "HandleState",
    "Ticket",
    "Kmt",
    "Handles",
    "SnapshotFile",
    "BrokerState",
    "Channel",
    "RecordBack",
    "Refusal",
    "Fault",
]


class Welcome(Message, tag=64):
    """To `Hello`. `inherited`: the handle table is not empty, ask `ListHandles`. `secret` is for `Hello.resume`.

    `resumed`: this connection goes on for the earlier one. `done`: its last request, whose reply was not taken in, had
    been carried out; what it made is undone, the memory object `undone_memory` or the handle `undone_handle`, if any.
    `recovering`: announcements are taken. After `ticket_seconds` the time of a ticket that is bound to no process is
    over for sure.
    """

    version: U32
    instance: I64
    broker_pid: Pid
    inherited: bool
    secret: Secret
    resumed: bool
    done: bool
    undone_memory: I64
    undone_handle: I64
    recovering: bool
    ticket_seconds: U32


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

    `facts` is an encoded `ImportFacts`: all that is the same whenever this object is imported with these rights. It
    comes in one piece, so that neither side has to look into it the second time.
    """

    memory: I64
    mode: U8
    facts: Facts


class Handle(Message, tag=69):
    """A handle of the caller, with what it needs to announce it again: fd attached if `mode` is not 0."""

    handle: I64
    payload: I64
    object: I64
    granted: U32
    inherit: bool
    protect: bool
    mode: U8
    backing: U8
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
    """To `ListHandles`: some of the next values, perhaps none; and the value to ask after next, 0 at the end."""

    values: Annotated[tuple[I64, ...], msgspec.Meta(max_length=1_024)]
    next: I64 = 0


class SnapshotFile(Message, tag=74):
    """To `Snapshot`: one fd, a file of `size` bytes that `decode_parts` reads; and the cursor to go on with, 0 at the
    end.
    """

    size: I64
    next: I64 = 0


class BrokerState(Message, tag=75):
    """To `GetStatus`. Times in milliseconds, the longest turn of the loop in microseconds, memory in KiB.

    Of the `limit` descriptors that it may have open, `used` are on the accounts of clients (`fds` of them for payloads)
    and `reserve` are kept; one client could get `client_share` more now, one user `user_share`.
    """

    pid: Pid
    version: U32
    uptime_ms: I64
    clients: I64
    payloads: I64
    fds: I64
    resident_kib: I64
    instance: I64
    limit: I64
    used: I64
    reserve: I64
    client_share: I64
    user_share: I64
    longest_turn_us: I64


class Channel(Message, tag=76):
    """To `Inherit`: one fd, the child's end of its connection."""


class RecordBack(Message, tag=79):
    """To `AnnounceRecord`: the payload's id and KMT number from now on (0: another payload has the number by now), and
    whether the object has its name. `payload` 0: another client has to announce it first; ask again with `wait`.
    """

    payload: I64
    kmt: U32
    named: bool


class Refusal(Message, tag=77):
    """The object manager says no: an NTSTATUS and a full sentence."""

    status: U32
    detail: Text


class Fault(Message, tag=78):
    """You broke the format (or came too late, or there are too many of you); the connection ends with this."""

    detail: Text
