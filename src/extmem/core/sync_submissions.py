"""`Submission`: the facts of one vkQueueSubmit, batch after batch, and its effect on the state of semaphores.

How this works. The batches are applied in turn to the records of `SyncStates`: waits consume payloads and end temporary
imports, signals set payloads. The facts of a semaphore are taken just before its operation. After the device accepted
the submission, `submitted` puts the result into the table. If the table has changed meanwhile, it applies the same
batches to the records as they are then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from extmem.core.sync_records import Batch, Changes, SyncObject
from extmem.core.sync_state import SyncStates, fence_facts, semaphore_facts
from extmem.rules.sync_facts import BatchFacts, FenceFacts, SemaphoreFacts

__all__ = ["Operations", "Submission"]


class Operations(msgspec.Struct, frozen=True):
    """The semaphore operations of one batch: (number of the semaphore, value) each.

    The number is 0 for a semaphore of other code, about which nothing is known; the value of a binary one is ignored.
    """

    waits: Sequence[tuple[int, int]] = ()
    signals: Sequence[tuple[int, int]] = ()


class Submission:
    """One submission to a queue. Its facts are taken when it is created.

    queue: any number that identifies the queue among those of the process.
    fence: the number of the fence, or 0.
    counters: by the number of a timeline semaphore, its counter as the device just reported it.
    fence_signaled: the status of the fence, as the device just reported it; None if it was not asked.
    """

    def __init__(
        self,
        states: SyncStates,
        queue: int,
        batches: Sequence[Operations],
        fence: int = 0,
        *,
        counters: Mapping[int, int] | None = None,
        fence_signaled: bool | None = None,
    ) -> None:
        self._states = states
        self._queue = queue
        self._batches = batches
        self._fence = fence
        self._numbers: tuple[int, ...] = ()
        self._over = False
        self._abandoned: frozenset[int] = frozenset()
        counters = counters or {}
        with states.lock:
            changes = states.changes()
            states.observe(changes, counters)
            if fence_signaled:
                states.end_of_fence(changes, fence)
            self.fence: FenceFacts | None = fence_facts(changes, fence, fence_signaled) if fence else None
            """The facts of the fence; None without one."""
            changes.apply()
            changes = states.changes()
            facts: list[BatchFacts] = []
            self._planned = _apply(states, changes, queue, batches, fence, counters, facts)
            self._changes = changes
            self.batches: tuple[BatchFacts, ...] = tuple(facts[: len(batches)])
            """The facts of the semaphores of each batch."""

    def submitted(self) -> None:
        """Record that the device accepted the submission. `finished` may have been called before."""
        with self._states.lock:
            changes, numbers = self._changes, self._planned
            if self._states.has_ended or not changes.are_current:
                changes = self._states.changes()
                numbers = _apply(self._states, changes, self._queue, self._batches, self._fence)
            self._numbers = numbers
            changes.apply()
            if self._over:
                self._finish(numbers)

    def finished(self, abandoned: Iterable[int] = ()) -> None:
        """Record that all batches have completed execution. Safe to call twice, and from any thread or finalizer.

        abandoned: the indices of those that the device has not executed.
        """
        self._abandoned = frozenset(abandoned)
        self._over = True
        self._finish(self._numbers)

    def _finish(self, numbers: Sequence[int]) -> None:
        for index, number in enumerate(numbers):
            self._states.finished((number,), abandoned=index in self._abandoned)

    def unknown(self, restored: Iterable[int] = ()) -> None:
        """Record that the submission may have reached the device or not, or in part: its call was interrupted, or
        failed after its first operation.

        The binary semaphores and fences that it names are then in an unknown state until they are next imported.
        restored: the numbers of the semaphores whose temporary payloads have ended.
        """
        named = {number for batch in self._batches for number, _ in (*batch.waits, *batch.signals)} | {self._fence}
        with self._states.lock:
            changes = self._states.changes()
            for number in named - {0}:
                record = changes.sync_object(number)
                payload = None if record is None else changes.payload(record.current.payload)
                if record is not None and payload is not None:
                    changes.put(record.current.payload, msgspec.structs.replace(payload, external=True))
            for number in restored:
                record = changes.sync_object(number)
                if record is not None:
                    changes.detach(record.temporary)
                    changes.put(number, msgspec.structs.replace(record, temporary=None))
            changes.apply()


def _apply(
    states: SyncStates,
    changes: Changes,
    queue: int,
    batches: Sequence[Operations],
    fence: int,
    counters: Mapping[int, int] | None = None,
    facts: list[BatchFacts] | None = None,
) -> tuple[int, ...]:
    """Apply the batches to the records, and return their numbers. facts: gets the facts of each batch, if given.

    A fence without batches is signaled after everything that was submitted to the queue before.
    """
    numbers: list[int] = []
    given = counters or {}
    last = changes.get(("queue", queue)) or 0
    fenced = changes.sync_object(fence) if fence else None
    works = batches if batches or not fence else (Operations(),)
    for index, work in enumerate(works):
        number = states.number()
        effect = _Effect(changes, number, queue, last)
        waits: list[SemaphoreFacts | None] = []
        signals: list[SemaphoreFacts | None] = []
        for each, value in work.waits:
            if facts is not None:
                waits.append(_facts(changes, each, given))
            effect.wait(each, value)
        for each, value in work.signals:
            if facts is not None:
                signals.append(_facts(changes, each, given))
            effect.signal(each, value)
        signaled = fenced if index == len(works) - 1 else None
        if signaled is not None:
            effect.refer(fence, signaled)
        effect.put(signaled)
        numbers.append(number)
        last = number
        if facts is not None:
            facts.append(BatchFacts(tuple(waits), tuple(signals)))
    if numbers:
        changes.put(("queue", queue), last)
    return tuple(numbers)


def _facts(changes: Changes, number: int, counters: Mapping[int, int]) -> SemaphoreFacts | None:
    return semaphore_facts(changes, number, counters.get(number)) if number else None


class _Effect:
    """The effect of one batch on the records."""

    __slots__ = ("before", "changes", "number", "objects", "payloads", "queue", "timelines")

    def __init__(self, changes: Changes, number: int, queue: int, last: int) -> None:
        self.changes = changes
        self.number = number
        self.queue = queue
        self.before = [last] if last else []
        """The batches that it waits for."""
        self.timelines: list[tuple[int, int, str]] = []
        self.payloads: list[int] = []
        self.objects: list[int] = []

    def wait(self, number: int, value: int) -> None:
        """Apply a wait. A temporary payload is in force until the wait was submitted."""
        changes = self.changes
        record = changes.sync_object(number)
        payload = None if record is None else changes.payload(record.current.payload)
        if record is None or payload is None:
            return
        key = record.current.payload
        self.payloads.append(key)
        waits = record.waits
        if record.timeline:
            self.timelines.append((key, value, record.name))
            if value > payload.value:
                waiting = (*payload.waits, (self.number, self.queue, value))
                changes.put(key, payload.with_operations(payload.value, payload.signals, waiting))
        else:
            if payload.signaler:
                self.before.append(payload.signaler)
            waits = (*waits, (self.number, self.queue, key))
            changes.put(key, msgspec.structs.replace(payload, signaled=False, signaler=0))
        if record.temporary is not None:
            changes.detach(record.temporary)
        self.refer(number, record, waits, restored=True)

    def signal(self, number: int, value: int) -> None:
        """Apply a signal to the current payload."""
        changes = self.changes
        record = changes.sync_object(number)
        payload = None if record is None else changes.payload(record.current.payload)
        if record is None or payload is None:
            return
        key = record.current.payload
        self.payloads.append(key)
        if record.timeline:
            signals = (*payload.signals, (self.number, self.queue, value))
            payload = payload.with_operations(payload.value, signals, payload.waits)
        else:
            payload = msgspec.structs.replace(payload, signaled=True, signaler=self.number)
        changes.put(key, payload)
        self.refer(number, record, record.waits)

    def refer(
        self,
        number: int,
        record: SyncObject,
        waits: tuple[tuple[int, int, int], ...] = (),
        *,
        restored: bool = False,
    ) -> None:
        """Record that the batch refers to a semaphore or fence. restored: a temporary payload ends."""
        batches = record.batches
        if not batches or batches[-1] != self.number:
            batches = (*batches, self.number)
            self.objects.append(number)
        temporary = None if restored else record.temporary
        self.changes.put(number, msgspec.structs.replace(record, temporary=temporary, batches=batches, waits=waits))

    def put(self, fence: SyncObject | None) -> None:
        """Put the batch into the records. fence: what it signals at its end."""
        batch = Batch(
            self.queue,
            tuple(dict.fromkeys(self.before)),
            tuple(self.timelines),
            tuple(self.objects),
            tuple(dict.fromkeys(self.payloads)),
            fence.current.payload if fence is not None else 0,
        )
        self.changes.put(self.number, batch)
