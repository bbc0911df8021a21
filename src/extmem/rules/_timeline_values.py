"""Conditions on values of timelines, which submissions and the host have in common."""

from __future__ import annotations

from collections.abc import Iterator

from extmem.rules.sync_facts import SemaphoreFacts

__all__ = ["difference", "not_above"]


def _others(facts: SemaphoreFacts) -> Iterator[tuple[int, str]]:
    """Yield each value that a new one is compared with, and what it is."""
    if facts.value is not None:
        yield facts.value, "the current value"
    for _, value in facts.pending_signals:
        yield value, "that of a pending signal"
    for _, value in facts.pending_waits:
        yield value, "that of a pending wait"


def difference(facts: SemaphoreFacts, value: int, limit: int | None) -> tuple[int, str, int] | None:
    """Return the value that this one differs from by more than the limit, what it is, and the difference."""
    if limit is None:
        return None
    for other, what in _others(facts):
        if abs(value - other) > limit:
            return other, what, abs(value - other)
    return None


def not_above(facts: SemaphoreFacts, value: int) -> tuple[int, str] | None:
    """Return the current value, as text too, if this value is not greater than it."""
    if facts.value is None or value > facts.value:
        return None
    return facts.value, "the current value"
