"""`Submission`: the facts of one vkQueueSubmit, batch after batch, and its effect on the state of semaphores.

How this works. The batches are applied in turn to the records of `SyncStates`: waits consume payloads and end temporary
imports, signals set payloads. The facts of a semaphore are taken just before its operation. After the device accepted
the submission, `submitted` puts the result into the table. If the table has changed meanwhile, it applies the same
batches to the records as they are then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from extmem.core.sync_records import Batch, Changes
from extmem.core.sync_state import SyncStates, fence_facts, semaphore_facts
from extmem.rules.sync_facts import BatchFacts, FenceFacts, SemaphoreFacts

__all__ = ["Operations", "Submission"]


class Operations(NamedTuple):
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
                self._states.finished(numbers)

    def finished(self) -> None:
        """Record that all batches have completed execution. Safe to call twice, and from any thread or finalizer."""
        self._over = True
        self._states.finished(self._numbers)

    def unknown(self) -> None:
        """Record that the submission may have reached the device or not: its call was interrupted, or failed oddly.

        The binary semaphores and fences that it names are then in an unknown state until they are next imported.
        """
        named = {number for batch in self._batches for number, _ in (*batch.waits, *batch.signals)} | {self._fence}
        with self._states.lock:
            changes = self._states.changes()
            for number in named - {0}:
                record = changes.sync_object(number)
                payload = None if record is None else changes.payload(record.current.payload)
                if record is not None and payload is not None:
                    changes.put(record.current.payload, payload._replace(external=True))
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
    numbers = []
    given = counters or {}
    for batch in batches if batches or not fence else (Operations(),):
        number = states.number()
        numbers.append(number)
        before = [changes.get(("queue", queue)) or 0]
        waits: list[SemaphoreFacts | None] = []
        signals: list[SemaphoreFacts | None] = []
        timelines: list[tuple[int, int, str]] = []
        payloads: list[int] = []
        for each, value in batch.waits:
            if facts is not None:
                waits.append(_facts(changes, each, given))
            before.append(_wait(changes, number, queue, each, value, timelines, payloads))
        signaled = Batch(queue, tuple(dict.fromkeys(filter(None, before))), tuple(timelines))
        changes.put(number, signaled)
        for each, value in batch.signals:
            if facts is not None:
                signals.append(_facts(changes, each, given))
            _signal(changes, number, queue, each, value, payloads)
        objects = {each for each, _ in (*batch.waits, *batch.signals) if each}
        changes.put(number, signaled._replace(objects=tuple(objects), payloads=tuple(dict.fromkeys(payloads))))
        for each in objects:
            _refer(changes, each, number)
        changes.put(("queue", queue), number)
        if facts is not None:
            facts.append(BatchFacts(tuple(waits), tuple(signals)))
    last = changes.batch(numbers[-1]) if numbers else None
    fenced = changes.sync_object(fence) if fence else None
    if last is not None and fenced is not None:
        changes.put(numbers[-1], last._replace(objects=(*last.objects, fence), fence=fenced.current.payload))
        _refer(changes, fence, numbers[-1])
    return tuple(numbers)


def _facts(changes: Changes, number: int, counters: Mapping[int, int]) -> SemaphoreFacts | None:
    return semaphore_facts(changes, number, counters.get(number)) if number else None


def _refer(changes: Changes, number: int, batch: int) -> None:
    """Record that an unfinished batch refers to a semaphore or fence."""
    record = changes.sync_object(number)
    if record is not None:
        changes.put(number, record._replace(batches=(*record.batches, batch)))


def _wait(
    changes: Changes,
    batch: int,
    queue: int,
    number: int,
    value: int,
    timelines: list[tuple[int, int, str]],
    payloads: list[int],
) -> int:
    """Apply a wait, and return the batch whose binary signal it consumes; 0 if there is none.

    A temporary payload is in force until the wait was submitted.
    """
    record = changes.sync_object(number)
    payload = None if record is None else changes.payload(record.current.payload)
    if record is None or payload is None:
        return 0
    key = record.current.payload
    payloads.append(key)
    consumed = 0
    if record.timeline:
        timelines.append((key, value, record.name))
        if value > payload.value:
            payload = payload._replace(waits=(*payload.waits, (batch, queue, value)))
    else:
        consumed = payload.signaler
        payload = payload._replace(signaled=False, signaler=0)
        record = record._replace(waits=(*record.waits, (batch, queue, key)))
    changes.put(key, payload)
    changes.detach(record.temporary)
    changes.put(number, record._replace(temporary=None))
    return consumed


def _signal(changes: Changes, batch: int, queue: int, number: int, value: int, payloads: list[int]) -> None:
    """Apply a signal to the current payload."""
    record = changes.sync_object(number)
    payload = None if record is None else changes.payload(record.current.payload)
    if record is None or payload is None:
        return
    payloads.append(record.current.payload)
    if record.timeline:
        payload = payload._replace(signals=(*payload.signals, (batch, queue, value)))
    else:
        payload = payload._replace(signaled=True, signaler=batch)
    changes.put(record.current.payload, payload)
