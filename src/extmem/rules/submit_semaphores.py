"""Semaphores that a submission waits for and signals.

Valid usage binds what this process does. Whether a binary semaphore is signaled, and who signals a timeline, is unknown
once others can use the payload; then only this process' own operations are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from extmem.rules._engine import Demand, Suite, demand
from extmem.rules._submission import SIGNAL, SIGNAL2, WAIT, WAIT2, Operation
from extmem.rules._timeline_values import difference, not_above

__all__: list[str] = []


_SEMAPHORE = "VkSemaphoreSubmitInfo-semaphore-parameter"


def _of_other_device(call: Operation) -> bool:
    ours, theirs = call.batch.device.identity, call.facts.device_identity
    return bool(ours and theirs) and ours != theirs


def _waited_by_other_queue(call: Operation) -> bool:
    waiting = call.facts.waiting_queue
    return not call.facts.timeline and waiting is not None and waiting != call.batch.queue


def _without_signal(call: Operation) -> tuple[str, str] | None:
    """Return what is missing for a binary wait to end, and what to do about it."""
    facts = call.facts
    if facts.timeline:
        return None
    if facts.signaled is False:
        return "it is unsignaled, and no signal operation was submitted", "Submit the signal before the wait."
    if not facts.unsubmitted:
        return None
    missing = facts.unsubmitted[0]
    what = f"{missing.name} to reach {missing.value}" if missing.value else f"a signal of {missing.name}"
    return (
        f"its signal waits for {what}, and no submitted operation does that",
        f"Submit that signal first, or signal {missing.name} on the host.",
    )


def _signaled_twice(call: Operation) -> bool:
    return not call.facts.timeline and call.facts.signaled is True


def _value_not_greater(call: Operation) -> tuple[int, str] | None:
    """Return a value that the timeline has when the signal executes, if the new one is not greater, and what it is.

    A queue executes a signal after its earlier signals, and after its earlier waits and those of the same batch ended.
    """
    facts, value = call.facts, call.value
    if not facts.timeline or value is None:
        return None
    low = not_above(facts, value)
    if low is not None:
        return low
    for queue, other in facts.pending_signals:
        if other == value or (queue == call.batch.queue and other > value):
            return other, "the value of a signal submitted before"
    for queue, other in facts.pending_waits:
        if queue == call.batch.queue and other >= value:
            return other, "a value that this queue waits for before"
    return None


def _too_far(call: Operation) -> tuple[int, str, int] | None:
    if not call.facts.timeline or call.value is None:
        return None
    return difference(call.facts, call.value, call.batch.sync.max_timeline_difference)


def _in_range(vuids: tuple[str, ...]) -> Demand:
    """Return the row that a value is within maxTimelineSemaphoreValueDifference of all others."""
    return Demand(
        vuids,
        _too_far,
        "{call.value_where}",
        "{call.value} differs from {found[1]}, {found[0]}, by {found[2]}; the device's limit is "
        "{call.batch.sync.max_timeline_difference}",
        "Raise the value in steps within maxTimelineSemaphoreValueDifference.",
    )


def _alive(on: Sequence[Suite[Operation]], parameter: str, command: str) -> None:
    demand(
        on,
        Demand(
            (parameter, _SEMAPHORE),
            lambda call: not call.facts.alive,
            "{call.where}",
            "{call.facts.name} is destroyed",
            f"{command} before destroying it.",
        ),
    )


_alive((WAIT, WAIT2), "VkSubmitInfo-pWaitSemaphores-parameter", "Wait for it")
_alive((SIGNAL, SIGNAL2), "VkSubmitInfo-pSignalSemaphores-parameter", "Signal it")
for _both in ((WAIT, WAIT2), (SIGNAL, SIGNAL2)):
    demand(
        _both,
        Demand(
            ("VkSubmitInfo-commonparent", _SEMAPHORE),
            _of_other_device,
            "{call.where}",
            "{call.facts.name} belongs to another device than the queue",
            "Export it, and import it on {call.batch.device.name!r}.",
        ),
    )
demand(
    (WAIT, WAIT2),
    Demand(
        ("vkQueueSubmit-pWaitSemaphores-00068", "vkQueueSubmit2-semaphore-03871"),
        _waited_by_other_queue,
        "{call.where}",
        "another queue waits for {call.facts.name}, and a binary semaphore serves one wait for each signal",
        "Use one binary semaphore for each queue that waits, or a timeline.",
    ),
    Demand(
        ("vkQueueSubmit-pWaitSemaphores-03238", "vkQueueSubmit2-semaphore-03873"),
        _without_signal,
        "{call.where}",
        "a wait for {call.facts.name} would not end: {found[0]}",
        "{found[1]}",
    ),
    _in_range(("VkSubmitInfo-pWaitSemaphores-03243", "VkSubmitInfo2-semaphore-03884")),
)
demand(
    (SIGNAL, SIGNAL2),
    Demand(
        ("vkQueueSubmit-pSignalSemaphores-00067", "vkQueueSubmit2-semaphore-03868"),
        _signaled_twice,
        "{call.where}",
        "{call.facts.name} is signaled already, or will be by a submission before this one",
        "Wait for it before it is signaled again, or use a timeline.",
    ),
    Demand(
        ("VkSubmitInfo-pSignalSemaphores-03242", "VkSubmitInfo2-semaphore-03882"),
        _value_not_greater,
        "{call.value_where}",
        "{call.facts.name} would be set to {call.value}, which is not greater than {found[0]}, {found[1]}",
        "Signal a value greater than {found[0]}.",
    ),
    _in_range(("VkSubmitInfo-pSignalSemaphores-03244", "VkSubmitInfo2-semaphore-03883")),
)
