"""Leases: which process may update a payload now, and which wait for it. Pure bookkeeping.

How this works. A lease is a number of a process. Of the leases of a control page the first one is held, and the others
wait in the order in which they came. `naming` has a pipe for each lease, whose end it sees: a process that closes its
pipe, or ends, gives its lease back, or stops waiting.
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

__all__ = ["Ended", "Leases"]

_Lease = tuple[int, int]


class Ended(msgspec.Struct, frozen=True):
    """The result of `leave`."""

    payload: int
    """The payload of the lease."""
    pid: int
    """The pid of its process."""
    held: bool
    """Whether it was held."""
    following: _Lease | None
    """The process and number of the lease that is held from now on."""


class Leases:
    """The leases of all payloads."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, dict[_Lease, None]] = {}
        """Control page → its leases, in order."""
        self._payloads: dict[_Lease, tuple[Hashable, int, int]] = {}
        """Lease → its control page, its payload, and the pid of its process."""

    def __len__(self) -> int:
        return len(self._payloads)

    def enter(self, page: Hashable, payload: int, process: int, number: int, pid: int) -> bool:
        """Add a lease, whose number is new. Return whether it is held at once.

        page: the identity of the control page, which several payloads can have in common: parts of an array that were
        shared. pid: of the process, for messages.
        """
        queue = self._queues.setdefault(page, {})
        queue[process, number] = None
        self._payloads[process, number] = page, payload, pid
        return len(queue) == 1

    def holder(self, page: Hashable) -> int:
        """Return the process that holds the lease of a control page; 0 if nobody does."""
        first = next(iter(self._queues.get(page, ())), None)
        return 0 if first is None else first[0]

    def leave(self, process: int, number: int) -> Ended | None:
        """Remove a lease. Return what follows; None if this number is no lease."""
        lease = process, number
        found = self._payloads.pop(lease, None)
        if found is None:
            return None
        page, payload, pid = found
        queue = self._queues[page]
        held = next(iter(queue)) == lease
        del queue[lease]
        if not queue:
            del self._queues[page]
        return Ended(payload, pid, held, next(iter(queue), None) if held else None)
