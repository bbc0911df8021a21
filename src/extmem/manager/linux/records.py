"""Records of what this process holds through the broker: payloads, references, handles, tickets, and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from extmem import wire
from extmem.errors import ExtmemError, HandleStateError, PeerProtocolError
from extmem.owning import OwnedFd
from extmem.sharing.payload import FilesAgain
from extmem.wire.process_start import start_time

__all__ = [
    "FORKED",
    "HeldHandle",
    "HeldPayload",
    "HeldReference",
    "Known",
    "Loss",
    "Offered",
    "Process",
    "Records",
    "handles_in",
]


class HeldPayload:
    """A payload of which this process holds a reference or handle."""

    __slots__ = ("again", "description", "fds", "holders", "id", "kmt")

    def __init__(self, payload: int, description: bytes) -> None:
        self.id = payload
        self.description = description
        self.kmt = 0
        self.holders = 0
        self.fds: dict[int, Sequence[OwnedFd]] = {}
        """The file descriptors of its handles, by the mode in which they were opened.

        Those of imports of several allocations are set aside: only companion pages are left here then.
        """
        self.again: list[FilesAgain] = []
        """The imports that export new ones in place of those that are set aside."""

    def all_fds(self, count: int) -> tuple[Sequence[OwnedFd], str]:
        """Return all of its `count` file descriptors, exported anew if they are set aside, which the caller owns then.

        None, and the reason, if no import can export them any more.
        """
        best = self.fds.get(wire.READ_WRITE) or self.fds[wire.READ_ONLY]
        if len(best) == count:
            return best, ""
        why = "the import that could export its handles again has ended"
        for again in self.again:
            try:
                found = again.fds()
            except ExtmemError as error:
                why = f"its handles cannot be exported again ({error})"
            else:
                if len(found) + len(best) == count:
                    return [*found, *best], ""
        return (), why


HeldReference: TypeAlias = tuple[HeldPayload, int, bool, int, bool, bytes]
"""A reference: payload, object (or 0), whether it exports, rights, inherit flag, record.

A plain tuple, which is created quickly: there are many imports.
"""

Known: TypeAlias = tuple[bytes, wire.ImportFacts, HeldReference, bool]
"""The facts of an import, encoded and decoded, the reference for them, and whether it may write."""


class HeldHandle(msgspec.Struct):
    """An entry of this process's handle table."""

    payload: HeldPayload
    object: int
    granted: int
    inherit: bool
    protect: bool
    record: bytes


class Records(Protocol):
    """The owner of a reference or a handle from the moment at which it is entered here."""

    def record(self, number: int) -> None:
        """Own this number. Called under the client's lock."""


class Process(msgspec.Struct, frozen=True):
    """A process of this pid namespace, distinguished from a later one with the same pid by its start time."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return start_time(self.pid) == self.start


class Offered(msgspec.Struct):
    """A ticket that this process has created. This process is not notified when it is claimed."""

    what: str
    payload: int
    object: int
    granted: int
    made: float
    bound: Process | None = None
    """The process that it is bound to."""


class Loss(msgspec.Struct, frozen=True):
    """The reason why earlier numbers are invalid."""

    error: type[ExtmemError]
    why: str


FORKED: Final = Loss(
    HandleStateError,
    "belongs to the parent process: fork does not share it. Start children with spawn, or open the name here",
)


def handles_in(data: bytes) -> int:
    """Return how many handles the payload has that a reply brings, by the reply's bytes; 0 if it brings none."""
    try:
        reply = wire.decode_reply(data)
        if isinstance(reply, wire.Imported):
            return int(wire.decode_facts(reply.facts).handles)
    except PeerProtocolError:
        return 0
    return int(reply.handles) if isinstance(reply, wire.Handle) else 0
