"""Replies: from the broker to a client. Their numbers are 64…127."""

from typing import Annotated

import msgspec

from extmem.wire.limits import (
    I64,
    U8,
    U32,
    Count,
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
    "Fds",
    "Attached",
    "Awaited",
    "NamesPage",
    "Writers",
    "Refusal",
    "Fault",
]


class Welcome(Message, tag=64):
    """To `Hello`. `inherited`: the handle table is not empty, see `ListHandles`. `secret` is for `Hello.resume`.

    `resumed`: this connection continues the earlier one. `done`: its last request, whose reply was not processed, had
    been carried out. What it created is undone: the reference `undone_reference` or the handle `undone_handle`, if any.
    `recovering`: announcements are accepted. After `ticket_seconds` the time of a ticket that is bound to no process is
    over.
    """

    version: U32
    instance: I64
    broker_pid: Pid
    inherited: bool
    secret: Secret
    resumed: bool
    done: bool
    undone_reference: I64
    undone_handle: I64
    recovering: bool
    ticket_seconds: U32


class Done(Message, tag=65):
    """Success, without a value."""


class Value(Message, tag=66):
    """A number: a truth value (0, 1) or a count."""

    value: I64


class Exported(Message, tag=67):
    """To `Export`. `object` or `kmt` is 0 where there is none. `record` is for announcing the object again."""

    reference: I64
    payload: I64
    object: I64
    granted: U32
    kmt: U32
    strict_kmt: bool
    descriptor: Payload
    record: Record


class Imported(Message, tag=68):
    """To an import, or a claim of a reference: `fds` file descriptors are attached, 0 if the client has them already.

    These are the first of the payload's handles; `FetchFds` gives the others. `facts` is an encoded `ImportFacts`: all
    that is the same whenever this object is imported with these rights. Both sides can recognise it by its bytes.
    """

    reference: I64
    fds: U8
    facts: Facts


class Handle(Message, tag=69):
    """A handle of the caller, with what it needs to announce it again.

    The first of the payload's `handles` handles are attached if `mode` is not 0; `FetchFds` gives the others.
    """

    handle: I64
    payload: I64
    object: I64
    granted: U32
    inherit: bool
    protect: bool
    mode: U8
    handles: Count
    descriptor: Payload
    record: Record


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
    """To `ListHandles`: some of the next values, perhaps none; and `after` of the next request, 0 at the end."""

    values: Annotated[tuple[I64, ...], msgspec.Meta(max_length=1_024)]
    next: I64 = 0


class SnapshotFile(Message, tag=74):
    """To `Snapshot`: one fd, a file of `size` bytes that `decode_parts` decodes; and the next cursor, 0 at the end."""

    size: I64
    next: I64 = 0


class BrokerState(Message, tag=75):
    """To `GetStatus`. Times in milliseconds, the longest turn of the loop in microseconds, memory in KiB.

    Of the `limit` file descriptors that it may open, `used` are charged to clients (`fds` of them for payloads) and
    `reserve` are kept. One client could get `client_share` more now, one user `user_share`. `kept` is the number of
    objects that the broker itself keeps, and `waiting` that of waits for names.
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
    kept: I64
    waiting: I64


class Channel(Message, tag=76):
    """To `Inherit`: one fd, the child's end of its connection."""


class RecordBack(Message, tag=79):
    """To `AnnounceRecord`: the payload's id and KMT number from now on (0: another payload has the number now), and
    whether the object has its name. `payload` 0: another client must announce it first; send it again with `wait`.
    """

    payload: I64
    kmt: U32
    named: bool


class Fds(Message, tag=80):
    """To `FetchFds`: `count` file descriptors."""

    count: U8


class Attached(Message, tag=81):
    """To `AttachFds`."""


class Awaited(Message, tag=82):
    """To `AwaitName`: the process waits. One fd, a pipe from which a byte can be read when the wait is over.

    `EndWait` ends the wait; so does the client when it closes the pipe.
    """

    number: I64


class NamesPage(Message, tag=83):
    """To `WatchNames`: one fd, a memory file whose first 8 bytes are a count, in the machine's order.

    It grows whenever a live name begins to refer to another object.
    """


class Writers(Message, tag=84):
    """To `Freeze`: the pids of some other processes that may write to the payload, which is not frozen then.

    A pid is 0 for a process of another pid namespace, and the sender's own for other memory of the sender.
    """

    pids: Annotated[tuple[Pid, ...], msgspec.Meta(max_length=16)]


class Refusal(Message, tag=77):
    """A refusal of the object manager: an NTSTATUS and a full sentence."""

    status: U32
    detail: Text


class Fault(Message, tag=78):
    """The client broke the format, came too late, or is one too many. The connection ends with this message."""

    detail: Text
