"""Records of what this process holds through the broker: payloads, references, handles, tickets, and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

from extmem import wire
from extmem.errors import ExtmemError, HandleStateError
from extmem.owning import OwnedFd
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
]


class HeldPayload:
    """A payload of which this process holds a reference or handle."""

    __slots__ = ("description", "fds", "holders", "id", "kmt")

    def __init__(self, payload: int, description: bytes) -> None:
        self.id = payload
        self.description = description
        self.kmt = 0
        self.holders = 0
        self.fds: dict[int, Sequence[OwnedFd]] = {}
        """The file descriptors of its handles, by the mode in which they were opened."""


HeldReference: TypeAlias = tuple[HeldPayload, int, bool, int, bool, bytes]
"""A reference: payload, object (or 0), whether it exports, rights, inherit flag, record.

A plain tuple, which is created quickly: there are many imports.
"""

Known: TypeAlias = tuple[bytes, wire.ImportFacts, HeldReference, bool]
"""The facts of an import, encoded and decoded, the reference for them, and whether it may write."""


@dataclass(slots=True)
class HeldHandle:
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


class Process(NamedTuple):
    """A process of this pid namespace, distinguished from a later one with the same pid by its start time."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return start_time(self.pid) == self.start


@dataclass(slots=True)
class Offered:
    """A ticket that this process has created. This process is not notified when it is claimed."""

    what: str
    payload: int
    object: int
    granted: int
    made: float
    bound: Process | None = None
    """The process that it is bound to."""


class Loss(NamedTuple):
    """The reason why earlier numbers are invalid."""

    error: type[ExtmemError]
    why: str


FORKED: Final = Loss(
    HandleStateError,
    "belongs to the parent process: fork does not share it. Start children with spawn, or open the name here",
)
