"""What lives now and who holds it: rows for people (`extmem ps`) and for tests that compare two managers."""

from __future__ import annotations

from dataclasses import dataclass

from extmem.objects.core import Core
from extmem.objects.entities import Process, SharedObject
from extmem.objects.results import Share

__all__ = ["HandleRow", "HolderRow", "ObjectRow", "PayloadRow", "Snapshots"]


@dataclass(frozen=True, slots=True)
class HandleRow:
    """An open handle: its value in the holder's table, its rights, its object."""

    value: int
    granted: int
    object: int


@dataclass(frozen=True, slots=True)
class HolderRow:
    """What one process holds of one payload. `memories` counts memory objects, `tickets` what it has in flight.
    `pid` is 0 for a child that has inherited and not shown up yet.
    """

    pid: int
    memories: int
    handles: tuple[HandleRow, ...]
    tickets: int


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """A shared object on a payload: its full path or None, its security as text, and its reference counts."""

    object: int
    name: str | None
    sddl: str
    handle_count: int
    pointer_count: int


@dataclass(frozen=True, slots=True)
class PayloadRow:
    """A live payload. Rows are ordered by payload id, holders by pid, objects by id: equal states give equal lists."""

    payload: int
    share: Share
    kmt: int | None
    descriptor: bytes
    objects: tuple[ObjectRow, ...]
    holders: tuple[HolderRow, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The full paths that lead here now."""
        return tuple(row.name for row in self.objects if row.name is not None)

    @property
    def name(self) -> str | None:
        """The first of `names`, None when nothing leads here by name."""
        return next(iter(self.names), None)


class _Tally:
    """What a process holds of a payload, while it is being counted."""

    __slots__ = ("handles", "memories", "tickets")

    def __init__(self) -> None:
        self.memories = 0
        self.handles: list[HandleRow] = []
        self.tickets = 0


class Snapshots(Core):
    """Telling the state."""

    def snapshot(self) -> list[PayloadRow]:
        """Every live payload with its objects and holders. Takes time in the number of everything that is held."""
        holders: dict[int, list[HolderRow]] = {payload: [] for payload in self._payloads}
        for process in self._processes.values():
            for payload, tally in _tally(process).items():
                holders[payload].append(HolderRow(process.pid, tally.memories, tuple(tally.handles), tally.tickets))
        return [
            PayloadRow(
                payload.id,
                payload.share,
                payload.kmt,
                payload.descriptor,
                tuple(_object_row(shared) for _, shared in sorted(payload.objects.items())),
                tuple(sorted(holders[payload.id], key=lambda row: row.pid)),
            )
            for _, payload in sorted(self._payloads.items())
        ]

    def counts(self) -> dict[str, int]:
        """How many of everything there is: what a status page shows, and all zero once every process has left."""
        processes = self._processes.values()
        return {
            "processes": len(self._processes),
            "payloads": len(self._payloads),
            "objects": len(self._objects),
            "names": len(self._directory),
            "kmt_numbers": len(self._kmt),
            "tickets": len(self._tickets),
            "memories": sum(len(process.memories) for process in processes),
            "handles": sum(len(process.table) for process in processes),
        }


def _tally(process: Process) -> dict[int, _Tally]:
    found: dict[int, _Tally] = {}
    for memory in process.memories.values():
        found.setdefault(memory.payload.id, _Tally()).memories += 1
    for value, entry in process.table:
        if isinstance(entry.object, SharedObject):
            tally = found.setdefault(entry.object.payload.id, _Tally())
            tally.handles.append(HandleRow(value, entry.granted, entry.object.id))
    for ticket in process.tickets.values():
        found.setdefault(ticket.payload.id, _Tally()).tickets += 1
    return found


def _object_row(shared: SharedObject) -> ObjectRow:
    name = None if shared.name is None else shared.name.display
    return ObjectRow(shared.id, name, shared.sddl, shared.handles, shared.refs)
