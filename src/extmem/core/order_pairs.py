"""The pairs (timeline, value) that calls take: `wait` and `signal` of queues and streams, `wait_all`, `wait_any`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from extmem.arguments import a_type, whole_number
from extmem.core.sync_object import SemaphoreObject, SyncObject
from extmem.core.sync_record import SemaphoreRecord
from extmem.owning import Uses

__all__ = ["Pairs", "checked_value", "pairs", "timeline_pairs"]

Pairs = list[tuple[SemaphoreRecord, int]]

_MOST = (1 << 64) - 1
_SHOWN = 120
"""Characters of an argument in a message."""


def pairs(given: object, uses: Uses, what: str) -> Pairs:
    """Return the semaphores and values of an argument `wait` or `signal`, held: a pair, a list of pairs, or None.

    A binary semaphore may stand alone; a value beside it is ignored, as by vkQueueSubmit.
    Errors: TypeError; ValueError for a value beyond 64 bits; HandleStateError.
    """
    if given is None:
        return []
    if isinstance(given, SemaphoreObject) or _is_pair(given):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"{_said(what, given)}; give a pair (timeline, value), or a list of them")
    found: Pairs = []
    for index, one in enumerate(given):
        where = f"{what}[{index}]" if len(given) > 1 else what
        semaphore, value = one if isinstance(one, tuple) and len(one) == 2 else (one, None)
        if not isinstance(semaphore, SemaphoreObject):
            _refuse(where, one)
        record = semaphore.record
        record.check_process()
        if value is None and record.timeline:
            raise TypeError(f"{where} is {_shown(one)} without a value; give a pair (timeline, value)")
        number = 0 if value is None else checked_value(value, f"the value of {where}")
        found.append((uses.add(record), number))
    return found


def timeline_pairs(given: object, uses: Uses, what: str = "waits") -> Pairs:
    """Return the timelines and values of `wait_all` and `wait_any`, held: a pair, or any iterable of pairs.

    Errors: TypeError, also for a binary semaphore; ValueError for a value beyond 64 bits; HandleStateError.
    """
    if _is_pair(given):
        given = [given]
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise TypeError(f"{_said(what, given)}; give a list of pairs (timeline, value)")
    found: Pairs = []
    for index, one in enumerate(given):
        where = f"{what}[{index}]"
        if not isinstance(one, (tuple, list)) or len(one) != 2 or not isinstance(one[0], SemaphoreObject):
            _refuse(where, one)
        record = one[0].record
        record.check_process()
        if not record.timeline:
            raise TypeError(
                f"{where} has {one[0]!r}, which is binary: the host waits for timelines alone; wait for a fence that "
                "the submission signals, or create the semaphore as a timeline"
            )
        found.append((uses.add(record), checked_value(one[1], f"the value of {where}")))
    return found


def checked_value(value: object, what: str) -> int:
    """Return a value of a timeline. Errors: TypeError; ValueError beyond 64 bits."""
    number = value if type(value) is int else whole_number(value, what)
    if not 0 <= number <= _MOST:
        raise ValueError(f"{what} is {number}, and a timeline has 64 bits; give a value from 0 to 2**64 - 1")
    return number


def _is_pair(given: object) -> bool:
    """Whether this is one pair, and not a list of two semaphores or pairs."""
    return (
        isinstance(given, tuple)
        and len(given) == 2
        and isinstance(given[0], SemaphoreObject)
        and not isinstance(given[1], (tuple, SemaphoreObject))
    )


def _refuse(where: str, one: object) -> NoReturn:
    """Raise the error for what should be a pair."""
    parts: tuple[Any, ...] = tuple(one) if isinstance(one, (tuple, list)) else (one,)
    if any(isinstance(part, SyncObject) and not isinstance(part, SemaphoreObject) for part in parts):
        raise TypeError(
            f"{where} has a fence: {_shown(one)}; give a pair (timeline, value), or use Fence.wait() and fence="
        )
    if len(parts) == 2 and isinstance(parts[1], SemaphoreObject) and not isinstance(parts[0], SemaphoreObject):
        raise TypeError(f"{where} is {_shown(one)}; give the timeline first: (timeline, value)")
    raise TypeError(f"{_said(where, one)}; give a pair (timeline, value)")


def _said(what: str, given: object) -> str:
    return f"{what} is {_shown(given)}, {a_type(given)}"


def _shown(given: object) -> str:
    """Return what an argument is, at most `_SHOWN` characters of it."""
    text = repr(given)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
