"""`SyncStates`: what this process did with its semaphores and fences, as the facts that rules take.

How this works. A semaphore or fence has a permanent payload, and a temporary one after a temporary import: of a
semaphore until its next wait has been submitted, of a fence until its next reset. Semaphores and fences of this process
that have the same payload (reference transference) have the same record of it.

Once others can use a payload, it is unknown whether a binary semaphore is signaled, and who signals a timeline. What
this process itself has submitted stays known: pending operations, and the queue that waits.

Batches are numbered. The state changes when a batch is submitted; `finished` ends it. A value of a timeline, or a fence
that is seen to be signaled, also ends the batches that signal it, and the earlier ones of their queues, so that no
operation counts as pending after the program was told of its end.

Each operation is done under one lock and takes effect at once (`sync_records`). `finished` takes no lock, since it is
called wherever the last use of a batch ends; it is applied by the next operation.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from itertools import count

import msgspec

from extmem.core.sync_graph import unsubmitted
from extmem.core.sync_records import Attached, Changes, Payload, SyncObject, Table
from extmem.handles.process_id import current_process
from extmem.owning import Lock
from extmem.rules.sync_facts import FenceFacts, SemaphoreFacts
from extmem.vk.handle_types import SyncHandleType

__all__ = ["SyncStates", "end", "fence_facts", "semaphore_facts", "sync_states"]


def sync_states() -> SyncStates:
    """Return the states of this process. A forked child has its own: it may not use its parent's objects."""
    global _current
    pid, states = _current
    if pid != current_process.pid:
        states = SyncStates()
        _current = current_process.pid, states
    return states


class SyncStates:
    """The state of the semaphores and fences of one process. Thread-safe."""

    def __init__(self) -> None:
        self.lock = Lock(reentrant=True)
        self._table = Table()
        self._numbers = count(1)
        self._ended: deque[tuple[int, bool]] = deque()
        """Batches that have ended, and whether they were abandoned."""

    # Objects and payloads.

    def add(
        self,
        name: str,
        *,
        timeline: bool = False,
        initial_value: int = 0,
        signaled: bool = False,
        export_types: SyncHandleType | int = 0,
        flags: int = 0,
        device: int = 0,
        external: bool = False,
    ) -> int:
        """Record a new semaphore or fence, and return its number. device: the `identity` of its device's facts.

        timeline, initial_value: of a semaphore. signaled: of a fence (VK_FENCE_CREATE_SIGNALED_BIT).
        external: whether others can use it from the start, because it has a name.
        """
        with self.lock:
            changes = Changes(self._table)
            number, payload = next(self._numbers), next(self._numbers)
            changes.put(payload, Payload(timeline, export_types, external, signaled, value=initial_value))
            changes.put(number, SyncObject(name, timeline, device, flags, Attached(payload)))
            changes.apply()
            return number

    def remove(self, number: int) -> None:
        """Forget a semaphore or fence that is destroyed. Unknown numbers are ignored."""
        with self.lock:
            changes = self._changes()
            record = changes.sync_object(number)
            if record is None:
                return
            changes.detach(record.permanent)
            changes.detach(record.temporary)
            changes.put(number, None)
            changes.apply()

    def imported(
        self,
        number: int,
        handle_type: SyncHandleType | int,
        *,
        temporary: bool = False,
        copied: bool = False,
        signaled: bool | None = None,
        timeline: bool = False,
        export_types: SyncHandleType | int | None = None,
        key: Hashable = None,
    ) -> None:
        """Record a successful import of a payload into a semaphore or fence.

        copied: whether the type has copy transference (SYNC_FD); such a payload is this object's alone, and `signaled`
        tells whether it is signaled or will be (None: unknown).
        timeline, export_types: of the payload, by its descriptor; `export_types` None if it has none.
        key: what identifies the payload to the kernel, so that objects here with one payload are known as such.
        """
        with self.lock:
            changes = self._changes()
            record = changes.sync_object(number)
            if record is None:
                return
            known = None if copied or key is None else changes.get(("key", key))
            shared = None if known is None else changes.payload(known)
            if known is not None and shared is not None:
                payload: int = known
                changes.put(payload, msgspec.structs.replace(shared, external=True))
                changes.attach(payload)
            else:
                payload = next(self._numbers)
                state = signaled if copied else None
                changes.put(payload, Payload(timeline, export_types, not copied, state, key=None if copied else key))
                if key is not None and not copied:
                    changes.put(("key", key), payload)
            attached = Attached(payload, handle_type)
            changes.detach(record.temporary)
            if temporary:
                record = msgspec.structs.replace(record, temporary=attached)
            else:
                changes.detach(record.permanent)
                record = msgspec.structs.replace(record, permanent=attached, temporary=None)
            changes.put(number, record)
            changes.apply()

    def exported(
        self,
        number: int,
        handle_type: SyncHandleType | int,
        *,
        copied: bool = False,
        nt: bool = False,
        key: Hashable = None,
    ) -> None:
        """Record a successful export of the current payload of a semaphore or fence.

        copied: the type has copy transference: the export acts as a wait of the semaphore, or a reset of the fence.
        nt: the type is an NT handle, which the driver gives once. key: as of `imported`.
        """
        with self.lock:
            changes = self._changes()
            record = changes.sync_object(number)
            payload = None if record is None else changes.payload(record.current.payload)
            if record is None or payload is None:
                return
            current = record.current
            if copied:
                changes.put(current.payload, msgspec.structs.replace(payload, signaled=False, signaler=0))
                changes.detach(record.temporary)
                changes.put(number, msgspec.structs.replace(record, temporary=None))
            else:
                if key is not None and payload.key is None and changes.get(("key", key)) is None:
                    changes.put(("key", key), current.payload)
                    payload = msgspec.structs.replace(payload, key=key)
                changes.put(current.payload, msgspec.structs.replace(payload, external=True))
                if nt:
                    given = msgspec.structs.replace(current, exported_nt_types=current.exported_nt_types | handle_type)
                    temporary = record.temporary is not None
                    changes.put(
                        number,
                        msgspec.structs.replace(record, temporary=given)
                        if temporary
                        else msgspec.structs.replace(record, permanent=given),
                    )
            changes.apply()

    def shared(self, number: int) -> None:
        """Record that others can use the current payload from now on: it was given to another API, or has a name."""
        self.exported(number, 0)

    # Operations of the host.

    def reached(self, number: int, value: int) -> None:
        """Record that a timeline has at least this value: it was read, waited for, or signaled by the host."""
        with self.lock:
            changes = self._changes()
            self._observe(changes, number, value)
            changes.apply()

    def reset(self, numbers: Iterable[int]) -> None:
        """Record vkResetFences: the permanent payload of each fence returns, and is reset."""
        with self.lock:
            changes = self._changes()
            for number in numbers:
                record = changes.sync_object(number)
                if record is None:
                    continue
                changes.detach(record.temporary)
                changes.put(number, msgspec.structs.replace(record, temporary=None))
                payload = changes.payload(record.permanent.payload)
                if payload is not None:
                    changes.put(record.permanent.payload, msgspec.structs.replace(payload, signaled=False))
            changes.apply()

    def finished(self, batches: Iterable[int], *, abandoned: bool = False) -> None:
        """Record that these batches have completed execution. Safe to call from any thread and any finalizer.

        abandoned: they were not executed, though the device had accepted them.
        """
        self._ended.extend((batch, abandoned) for batch in batches)

    def idle(self, queue: int) -> None:
        """Record that all batches of a queue have completed execution."""
        with self.lock:
            changes = self._changes()
            last = changes.get(("queue", queue))
            if last is not None:
                self._end_through(changes, last)
            changes.apply()

    # Facts.

    def semaphore(self, number: int, value: int | None = None) -> SemaphoreFacts | None:
        """Return the facts of a semaphore; None if there is none of this number.

        value: the counter of a timeline, as the device just reported it; None if it was not asked.
        """
        with self.lock:
            changes = self._changes()
            if value is not None:
                self._observe(changes, number, value)
            changes.apply()
            return semaphore_facts(changes, number, value)

    def fence(self, number: int, signaled: bool | None = None) -> FenceFacts | None:
        """Return the facts of a fence; None if there is none of this number.

        signaled: its status, as the device just reported it; None if it was not asked.
        """
        with self.lock:
            changes = self._changes()
            if signaled:
                self.end_of_fence(changes, number)
            changes.apply()
            return fence_facts(changes, number, signaled)

    def signaled(self, number: int) -> None:
        """Record that a fence was seen to be signaled: a wait for it ended."""
        with self.lock:
            changes = self._changes()
            self.end_of_fence(changes, number)
            changes.apply()

    # For `sync_submissions`.

    def changes(self) -> Changes:
        """Return the records as they are now, to change them; for a caller that holds the lock."""
        return self._changes()

    @property
    def has_ended(self) -> bool:
        """Whether batches have finished that the records contain still."""
        return bool(self._ended)

    def number(self) -> int:
        """Return a number that no record has."""
        return next(self._numbers)

    def observe(self, changes: Changes, values: Mapping[int, int]) -> None:
        """Record the counters of timelines, as the device just reported them."""
        for number, value in values.items():
            self._observe(changes, number, value)

    def end_of_fence(self, changes: Changes, number: int) -> None:
        """End the batches that the fence was to be signaled by; it is signaled."""
        record = changes.sync_object(number)
        for batch in () if record is None else record.batches:
            self._end_through(changes, batch)

    def _changes(self) -> Changes:
        """Return the records, with the batches ended that have finished meanwhile."""
        if self._ended:
            with contextlib.suppress(IndexError):  # a signal handler of this thread took the last
                while self._ended:
                    changes = Changes(self._table)
                    end(changes, *self._ended[0])
                    changes.apply()
                    self._ended.popleft()
        return Changes(self._table)

    def _observe(self, changes: Changes, number: int, value: int) -> None:
        record = changes.sync_object(number)
        payload = None if record is None else changes.payload(record.current.payload)
        if record is None or payload is None:
            return
        for batch, _, signaled in payload.signals:
            if signaled <= value:
                self._end_through(changes, batch)
        payload = changes.payload(record.current.payload)
        if payload is not None and value > payload.value:
            waits = tuple([wait for wait in payload.waits if wait[2] > value]) if payload.waits else ()
            changes.put(record.current.payload, payload.with_operations(value, payload.signals, waits))

    def _end_through(self, changes: Changes, batch: int) -> None:
        """End a batch whose end was seen, and all before it: its end includes theirs."""
        left = [batch]
        while left:
            number = left.pop()
            record = changes.batch(number)
            if record is not None:
                left += record.before
                end(changes, number)


def end(changes: Changes, number: int, abandoned: bool = False) -> None:
    """End a batch: its operations are done, and no longer pending. Unknown numbers are ignored.

    abandoned: they are not done. What it was to signal is not signaled; what it waited for may be signaled still.
    """
    batch = changes.batch(number)
    if batch is None:
        return
    changes.put(number, None)
    if changes.get(("queue", batch.queue)) == number:
        changes.put(("queue", batch.queue), None)
    for key in batch.payloads:
        payload = changes.payload(key)
        if payload is None:
            continue
        if abandoned and not payload.timeline:
            is_signaler = payload.signaler == number
            if is_signaler:
                payload = msgspec.structs.replace(payload, signaled=False, signaler=0)
            else:  # it waited
                payload = msgspec.structs.replace(payload, external=True)
        value, signals, waits = payload.value, payload.signals, payload.waits
        if signals:
            if payload.timeline and not abandoned:
                value = max([value, *[signaled for by, _, signaled in signals if by == number]])
            signals = tuple([signal for signal in signals if signal[0] != number])
        if waits:
            waits = tuple([wait for wait in waits if wait[0] != number])
        changes.put(key, payload.with_operations(value, signals, waits))
    for key in batch.objects:
        record = changes.sync_object(key)
        if record is not None:
            waits = record.waits
            if waits:
                waits = tuple([wait for wait in waits if wait[0] != number])
            changes.put(key, record.with_batches(tuple([each for each in record.batches if each != number]), waits))
    fence = changes.payload(batch.fence) if batch.fence else None
    if fence is not None and not abandoned:
        changes.put(batch.fence, msgspec.structs.replace(fence, signaled=True))


def semaphore_facts(records: Changes, number: int, value: int | None = None) -> SemaphoreFacts | None:
    """Return the facts of a semaphore with these records."""
    record = records.sync_object(number)
    payload = None if record is None else records.payload(record.current.payload)
    if record is None or payload is None:
        return None
    current = record.temporary or record.permanent
    external = payload.external
    waits, signals = payload.waits, payload.signals
    waiting = [queue for _, queue, waited in record.waits if waited == current.payload] if record.waits else ()
    if value is None and not external:
        value = payload.value
    return SemaphoreFacts(
        record.timeline,
        record.name,
        number,
        device_identity=record.device,
        flags=record.flags,
        export_types=payload.export_types,
        import_type=current.import_type,
        temporary=record.temporary is not None,
        exported_nt_types=current.exported_nt_types,
        external=external,
        in_use=bool(record.batches),
        waiting_queue=waiting[-1] if waiting else None,
        signaled=None if external else payload.signaled,
        unsubmitted=unsubmitted(records, payload.signaler) if payload.signaler and not external else (),
        value=value if record.timeline else None,
        pending_signals=tuple([(queue, signaled) for _, queue, signaled in signals]) if signals else (),
        pending_waits=tuple([(queue, waited) for _, queue, waited in waits]) if waits else (),
    )


def fence_facts(records: Changes, number: int, signaled: bool | None = None) -> FenceFacts | None:
    """Return the facts of a fence with these records. signaled: its status, if the device was asked."""
    record = records.sync_object(number)
    payload = None if record is None else records.payload(record.current.payload)
    if record is None or payload is None:
        return None
    current = record.current
    if signaled is None and not payload.external:
        signaled = payload.signaled
    return FenceFacts(
        record.name,
        number,
        device_identity=record.device,
        flags=record.flags,
        export_types=payload.export_types,
        import_type=current.import_type,
        temporary=record.temporary is not None,
        exported_nt_types=current.exported_nt_types,
        external=payload.external,
        pending=bool(record.batches),
        signaled=signaled,
    )


_current = current_process.pid, SyncStates()
