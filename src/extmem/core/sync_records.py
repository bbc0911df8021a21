"""Records of the state of semaphores and fences, and the table that contains them.

How this works. The table is one dict of immutable records: semaphores, fences, their payloads, unfinished batches, and
the last batch of each queue, all under keys that are unique in the table. An operation collects new records in
`Changes`, and one call of `dict.update` puts them into the table. So an exception at any point leaves either all of an
operation in the table or nothing. A record of None is absent; `Changes.apply` removes it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

import msgspec

from extmem.vk.handle_types import SyncHandleType

__all__ = ["Attached", "Batch", "Changes", "Payload", "SyncObject", "Table"]

Record = TypeVar("Record")


class Payload(msgspec.Struct, frozen=True):
    """A payload, as far as this process knows: its permanent owner here, or the import, may be one of several."""

    timeline: bool
    export_types: SyncHandleType | int | None
    """Handle types that its creator was created with; None if unknown."""
    external: bool = False
    """Whether others can signal or wait for it."""
    signaled: bool | None = False
    """Binary or fence: signaled, or to be by a submitted batch, with no later wait or reset. None: unknown."""
    signaler: int = 0
    """Binary: the batch of the last signal that no wait has consumed; 0 without one."""
    value: int = 0
    """Timeline: the highest value that it is known to have reached."""
    signals: tuple[tuple[int, int, int], ...] = ()
    """Timeline: (batch, queue, value) of unfinished signal operations."""
    waits: tuple[tuple[int, int, int], ...] = ()
    """Timeline: (batch, queue, value) of unfinished wait operations."""
    users: int = 1
    """Number of semaphores or fences here that have it."""
    key: Hashable = None
    """What the kernel knows it by, so that a second import finds it; None if unknown."""

    def with_operations(
        self, value: int, signals: tuple[tuple[int, int, int], ...], waits: tuple[tuple[int, int, int], ...]
    ) -> Payload:
        """Return the payload of a timeline with this value and these unfinished operations."""
        return msgspec.structs.replace(self, value=value, signals=signals, waits=waits)


class Attached(msgspec.Struct, frozen=True):
    """A payload that a semaphore or fence has."""

    payload: int
    import_type: SyncHandleType | int = 0
    """Handle type of the import; 0 for the payload that it was created with."""
    exported_nt_types: SyncHandleType | int = 0


class SyncObject(msgspec.Struct, frozen=True):
    """A semaphore or fence."""

    name: str
    timeline: bool
    device: int
    flags: int
    permanent: Attached
    temporary: Attached | None = None
    batches: tuple[int, ...] = ()
    """Unfinished batches that refer to it."""
    waits: tuple[tuple[int, int, int], ...] = ()
    """Binary: (batch, queue, payload) of unfinished wait operations."""

    def with_batches(self, batches: tuple[int, ...], waits: tuple[tuple[int, int, int], ...]) -> SyncObject:
        """Return the object with these unfinished batches and waits."""
        return msgspec.structs.replace(self, batches=batches, waits=waits)

    @property
    def current(self) -> Attached:
        """The payload that operations act on."""
        return self.temporary or self.permanent


class Batch(msgspec.Struct, frozen=True):
    """An unfinished batch of a submission."""

    queue: int
    before: tuple[int, ...] = ()
    """Batches that it waits for: the previous one of its queue, and those that signal its binary semaphores."""
    waits: tuple[tuple[int, int, str], ...] = ()
    """(payload, value, name of the semaphore) of its waits for timelines."""
    objects: tuple[int, ...] = ()
    """The semaphores and the fence that it refers to."""
    payloads: tuple[int, ...] = ()
    """The payloads that it waits for or signals."""
    fence: int = 0
    """The payload of the fence that it signals; 0 without one."""


class Table(dict[Hashable, Any]):
    """The records by their keys."""

    __slots__ = ("version",)

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        """Counts the changes."""


class Changes:
    """The records that an operation changes, over those of the table. Reading sees the changes."""

    __slots__ = ("_changed", "_table", "_version")

    def __init__(self, table: Table) -> None:
        self._table = table
        self._version = table.version
        self._changed: dict[Hashable, Any] = {}

    @property
    def are_current(self) -> bool:
        """Whether the table is as it was when these changes were begun."""
        return self._version == self._table.version

    def get(self, key: Hashable) -> Any:
        """Return the record, or None if there is none."""
        changed = self._changed
        return changed[key] if key in changed else self._table.get(key)

    def sync_object(self, key: int) -> SyncObject | None:
        """Return the semaphore or fence, or None once it is destroyed."""
        changed = self._changed
        found: SyncObject | None = changed[key] if key in changed else self._table.get(key)
        return found

    def payload(self, key: int) -> Payload | None:
        """Return the payload, or None if nothing here has it any more."""
        changed = self._changed
        found: Payload | None = changed[key] if key in changed else self._table.get(key)
        return found

    def batch(self, key: int) -> Batch | None:
        """Return the batch, or None once it is finished."""
        changed = self._changed
        found: Batch | None = changed[key] if key in changed else self._table.get(key)
        return found

    def put(self, key: Hashable, record: Any) -> None:
        """Set or replace a record; None removes it."""
        self._changed[key] = record

    def attach(self, payload: int) -> None:
        """Count one more semaphore or fence that has the payload."""
        record = self.payload(payload)
        if record is not None:
            self.put(payload, msgspec.structs.replace(record, users=record.users + 1))

    def detach(self, attached: Attached | None) -> None:
        """Count one fewer, and remove the payload after the last."""
        record = None if attached is None else self.payload(attached.payload)
        if attached is None or record is None:
            return
        if record.users > 1:
            self.put(attached.payload, msgspec.structs.replace(record, users=record.users - 1))
            return
        self.put(attached.payload, None)
        if record.key is not None and self.get(("key", record.key)) == attached.payload:
            self.put(("key", record.key), None)

    def apply(self) -> None:
        """Put all changes into the table, at once."""
        changed = self._changed
        if not changed:
            return
        table = self._table
        table.version += 1  # before the change: an exception between the two makes nothing wrong
        table.update(changed)
        for key, record in changed.items():
            if record is None:
                table.pop(key, None)
