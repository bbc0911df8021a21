"""The graph of submitted batches: which signal operations a batch depends on that are not submitted.

How this works. A batch begins after the previous one of its queue, after the batches that signal its binary semaphores,
and after its waits for timelines. A wait for a value is certain to end if the value is reached, if others can signal
the timeline, or if a submitted batch that is certain to run signals the value or a higher one. At first all batches
count as certain. Those with a wait that nothing can end are not, and neither are those that depend on them. Batches
that wait for each other in a circle stay certain: all of their operations are submitted.
"""

from __future__ import annotations

from extmem.core.sync_records import Batch, Changes
from extmem.rules.sync_facts import Unsubmitted

__all__ = ["unsubmitted"]


def unsubmitted(records: Changes, batch: int) -> tuple[Unsubmitted, ...]:
    """Return the signal operations that a batch depends on, and that no batch performs; none for a finished batch."""
    graph = _reachable(records, batch)
    awaited = {(payload, value) for one in graph.values() for payload, value, _ in one.waits}
    if not awaited:
        return ()
    signalers = {wait: _signalers(records, *wait) for wait in awaited}
    if batch not in _uncertain(graph, signalers):
        return ()
    return tuple(
        dict.fromkeys(
            Unsubmitted(name, value)
            for number in sorted(graph)
            for payload, value, name in graph[number].waits
            if signalers[payload, value] == ()
        )
    )


def _uncertain(graph: dict[int, Batch], signalers: dict[tuple[int, int], tuple[int, ...] | None]) -> set[int]:
    """Return the batches that are not certain to run.

    signalers: for each wait the batches that can end it; None if it needs none.
    """
    followers: dict[int, list[int]] = {}
    left = []
    for number, one in graph.items():
        for before in one.before:
            followers.setdefault(before, []).append(number)
        for payload, value, _ in one.waits:
            possible = signalers[payload, value]
            if possible == ():
                left.append(number)
            for signaler in possible or ():
                followers.setdefault(signaler, []).append(number)
    uncertain: set[int] = set()
    while left:
        number = left.pop()
        if number in uncertain:
            continue
        uncertain.add(number)
        left += [
            follower
            for follower in followers.get(number, ())
            if number in graph[follower].before
            or any(_fails(signalers[payload, value], uncertain) for payload, value, _ in graph[follower].waits)
        ]
    return uncertain


def _fails(signalers: tuple[int, ...] | None, uncertain: set[int]) -> bool:
    """Return whether all batches that could end a wait are uncertain."""
    return signalers is not None and uncertain.issuperset(signalers)


def _signalers(records: Changes, payload: int, value: int) -> tuple[int, ...] | None:
    """Return the batches that signal the value or a higher one; None if nothing here has to."""
    record = records.payload(payload)
    if record is None or record.external or record.value >= value:
        return None
    return tuple(number for number, _, signaled in record.signals if signaled >= value)


def _reachable(records: Changes, batch: int) -> dict[int, Batch]:
    """Return the unfinished batches that the batch depends on, itself included."""
    found: dict[int, Batch] = {}
    left = [batch]
    while left:
        number = left.pop()
        record = records.batch(number) if number and number not in found else None
        if record is None:
            continue
        found[number] = record
        left += record.before
        for payload, value, _ in record.waits:
            left += _signalers(records, payload, value) or ()
    return found
