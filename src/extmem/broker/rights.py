"""The table of who may send which message and what the broker believes of it. The server enforces it.

How this works. Every request has a row. `permit` is called before each request is dispatched. A request without a row
is refused, and a test compares the table with the list of requests in `wire`. docs/wire.md prints the table.

What is not in a message comes from the kernel: the uid, gid and groups of the sender (SO_PEERCRED, or the credentials
that come with the first message on an inherited connection), the process of a pidfd, and the inode and the open mode of
a file descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

from extmem import wire
from extmem.errors import PeerProtocolError
from extmem.objects import Refused, Status
from extmem.wire.limits import Message

__all__ = ["RIGHTS", "Right", "When", "Who", "permit"]


class Who(Enum):
    """Whose processes may send a message."""

    SERVED = "any client"
    """A process of a user whom the broker serves (its own and root; the system-wide one serves all), or one that
    inherited its connection from a client."""
    CONTROL = "the broker's own user, and root"
    RECOVERING = "a client that announces, in the recovery window"


class When(Enum):
    """When a message may come."""

    FIRST = "first"
    ANY = "before or after Hello"
    GREETED = "after Hello"


class Right(msgspec.Struct, frozen=True):
    """A row of the table."""

    who: Who
    when: When
    believed: str
    """What the broker believes of the message, in one sentence."""


_OWN_TABLE: Final = "Nothing: the number is looked up among what the sender's own process holds."
_OWN_OPEN: Final = "Nothing: the name is resolved, and the object's security descriptor decides for the sender's uid."
_RECORD: Final = "No more than a record says that it has announced on this connection: payload, object and rights."

RIGHTS: Final[Mapping[type[Message], Right]] = {
    wire.Hello: Right(
        Who.SERVED, When.FIRST, "The version, and whether it will announce; the kernel states its identity."
    ),
    wire.Export: Right(
        Who.SERVED,
        When.GREETED,
        "The description, as the sender's statement to importers; the file descriptors decide the right to write. A "
        "taken name is replaced for its publisher, or for its user once that has ended.",
    ),
    wire.ImportName: Right(Who.SERVED, When.GREETED, _OWN_OPEN),
    wire.ImportHandle: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.ImportKmt: Right(
        Who.SERVED, When.GREETED, "Nothing: the number is looked up; it carries no rights, as on Windows."
    ),
    wire.Release: Right(
        Who.SERVED,
        When.GREETED,
        "That it has closed the file descriptors of the payload in `forget`; otherwise nothing.",
    ),
    wire.GetHandle: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.OpenHandle: Right(Who.SERVED, When.GREETED, _OWN_OPEN),
    wire.CloseHandle: Right(
        Who.SERVED,
        When.GREETED,
        "That it has closed the file descriptors of the payload in `forget`; otherwise nothing.",
    ),
    wire.Duplicate: Right(
        Who.SERVED,
        When.GREETED,
        "Nothing: the source is the sender's own, and the target process must be of its uid, or the sender root.",
    ),
    wire.SameObject: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.QueryHandle: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.SetFlags: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.KmtAlive: Right(Who.SERVED, When.GREETED, "Nothing: the reply is yes or no."),
    wire.Offer: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.Claim: Right(
        Who.SERVED,
        When.GREETED,
        "That the sender of the ticket gave it the ticket, which has 128 random bits; the uids must be equal.",
    ),
    wire.BindOffer: Right(
        Who.SERVED, When.GREETED, "Which process the ticket is for; the ticket must be the sender's own."
    ),
    wire.Withdraw: Right(Who.SERVED, When.GREETED, "Nothing: the ticket must be the sender's own."),
    wire.Snapshot: Right(Who.SERVED, When.GREETED, "Nothing: it gets what its uid may open; root gets everything."),
    wire.GetStatus: Right(Who.SERVED, When.ANY, "Nothing: it gets the status of the broker."),
    wire.Stop: Right(Who.CONTROL, When.ANY, "Everything: those who may stop the broker are believed."),
    wire.Follow: Right(
        Who.CONTROL, When.ANY, "The key: records that it signed are those of the broker that had this directory before."
    ),
    wire.Inherit: Right(
        Who.SERVED, When.GREETED, "Nothing: the child gets copies of inheritable handles of the sender's own."
    ),
    wire.Hold: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.ListHandles: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.AttachFds: Right(
        Who.SERVED, When.GREETED, "Nothing: the file descriptors are inspected when the payload is shared."
    ),
    wire.FetchFds: Right(
        Who.SERVED, When.GREETED, "Nothing: the sender must hold the payload, and have its first file descriptors."
    ),
    wire.AwaitName: Right(Who.SERVED, When.GREETED, _OWN_OPEN),
    wire.EndWait: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.Forget: Right(
        Who.SERVED, When.GREETED, "Nothing: the name is resolved, and the object must be kept for the sender's uid."
    ),
    wire.IsSuperseded: Right(Who.SERVED, When.GREETED, _OWN_TABLE),
    wire.WatchNames: Right(Who.SERVED, When.GREETED, "Nothing: the page is the same for all and is read-only."),
    wire.Lease: Right(
        Who.SERVED,
        When.GREETED,
        "Nothing: the reference is looked up among the sender's own, and must have the right to write the payload.",
    ),
    wire.Freeze: Right(
        Who.SERVED,
        When.GREETED,
        "Nothing: the references are looked up among the sender's own, one must have the right to write, and the seals "
        "of the files decide whether the payload stays frozen.",
    ),
    wire.AnnounceRecord: Right(
        Who.RECOVERING,
        When.GREETED,
        "The record, if its signature is a broker's of this directory and its holder the sender's uid; of the "
        "descriptor, its inode, or (a driver's has none) that the payload's own user or root sends it.",
    ),
    wire.AnnounceReference: Right(Who.RECOVERING, When.GREETED, _RECORD),
    wire.AnnounceHandle: Right(Who.RECOVERING, When.GREETED, _RECORD),
    wire.AnnounceTicket: Right(Who.RECOVERING, When.GREETED, _RECORD),
    wire.AnnounceClaimed: Right(
        Who.SERVED,
        When.GREETED,
        "That the ticket was claimed: a process that has its bits could claim it, to the same effect.",
    ),
    wire.Announced: Right(Who.RECOVERING, When.GREETED, "That it has announced all that it held."),
}


def permit(request: wire.Request, uid: int, *, own: int, greeted: bool, recovering: bool) -> None:
    """Raise unless a process of that user may send this message now.

    own: the broker's user. greeted: whether Hello was received. recovering: whether the sender announces in the
    recovery window. Raises PeerProtocolError for a message at the wrong time, Refused ACCESS_DENIED for one that is not
    the sender's to send.
    """
    name = type(request).__name__
    right = RIGHTS.get(type(request))
    if right is None:
        raise PeerProtocolError(f"{name} is not a request")
    if greeted and right.when is When.FIRST:
        raise PeerProtocolError(f"{name} came after Hello: send Hello once, at the beginning")
    if not greeted and right.when is When.GREETED:
        raise PeerProtocolError(f"{name} came before Hello")
    if right.who is Who.CONTROL and uid not in (own, 0):
        raise Refused(
            Status.ACCESS_DENIED,
            f"{name} is for user {own}, whose broker this is, and for root; you are user {uid}. Ask one of them.",
        )
    if right.who is Who.RECOVERING and not recovering:
        raise Refused(
            Status.ACCESS_DENIED,
            f"{name} is taken only from a client of a killed broker, in the two seconds after the next one's start. "
            "Share the memory anew.",
        )
