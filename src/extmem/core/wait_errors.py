"""The errors of waits that timed out: which values are missing, who owes them, and what is known of those processes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from extmem.core.sync_record import SemaphoreRecord
from extmem.core.sync_state import sync_states
from extmem.errors import WaitTimeoutError
from extmem.handles.process_id import current_process

__all__ = ["check_reached", "several_timed_out", "timed_out"]

_MOST = 8
"""How many timelines, and how many processes of one, a message lists."""
_ADVICE = "wait longer, or signal the values where the work is done"


def check_reached(record: SemaphoreRecord, value: int, timeout: float | None) -> None:
    """Raise WaitTimeoutError if the value is not reached, at the end of a wait."""
    reached = record.native.counter()
    if reached < value:
        raise timed_out(record, value, reached, timeout)


def timed_out(record: SemaphoreRecord, value: int, reached: int, timeout: float | None) -> WaitTimeoutError:
    """Return the error of a wait for one timeline. reached: the value that was read last."""
    return WaitTimeoutError(
        f"{_missing(record, value, reached)} within {timeout} s; {_signalers(record, value)}; {_remedy(record, value)}",
        value=value,
        reached=reached,
    )


def several_timed_out(
    waits: Sequence[tuple[SemaphoreRecord, int]], values: Sequence[int], timeout: float | None, *, any_of: bool
) -> WaitTimeoutError:
    """Return the error of a wait for several timelines. values: those that were read last, of all.

    `value` and `reached` of the error are those of the first one that is behind.
    """
    behind = [index for index, (_, value) in enumerate(waits) if values[index] < value]
    record, value = waits[behind[0]]
    reached = values[behind[0]]
    if len(waits) == 1:
        return timed_out(record, value, reached, timeout)
    count, were = ("none", "was") if any_of else (len(behind), "was" if len(behind) == 1 else "were")
    lines = [f"{count} of {len(waits)} values {were} {'' if any_of else 'not '}signaled within {timeout} s:"]
    for index in behind[:_MOST]:
        one, wanted = waits[index]
        lines.append(f"  waits[{index}]: {_missing(one, wanted, values[index])}; {_signalers(one, wanted)}")
    lines += [f"  and {len(behind) - _MOST} more"] * (len(behind) > _MOST)
    lines.append(f"do: {_remedy(record, value) if len(behind) == 1 else _ADVICE}")
    return WaitTimeoutError("\n".join(lines), value=value, reached=reached)


def _missing(record: SemaphoreRecord, value: int, reached: int) -> str:
    return f"the timeline ({record.what()}) has value {reached}, and {value} was not signaled"


def _remedy(record: SemaphoreRecord, value: int) -> str:
    if record.payload.writable:
        return f"wait longer, or call signal({value}) where the work is done"
    return "wait longer; this process opened it without the right to signal"


def _signalers(record: SemaphoreRecord, value: int) -> str:
    """Return who is to signal the value, as far as it is known, and since when one of them cannot any more."""
    facts = sync_states().semaphore(record.state, None)
    if facts is not None and any(signaled >= value for _, signaled in facts.pending_signals):
        return "work that this process has submitted is to signal it, and is not done"
    page = record.told_page
    if page is None:
        owner = record.descriptor.owner_pid
        return f"process {owner} created it" if owner else "its signaler is not known"
    said = _left(page.signalers, record.descriptor.owner_pid)
    told = page.facts
    if told.marked:
        seconds = max(0, time.monotonic_ns() - told.since) / 1e9
        said += f"; process {told.pid} ended or closed it {seconds:.3f} s ago, at value {told.reached}"
    return said


def _left(pids: Sequence[int], owner: int) -> str:
    own = current_process.pid
    if list(pids) == [own]:
        return f"of the processes that created or signaled it, only this one ({own}) is left"
    if pids:
        names = ", ".join(f"{pid} (this process)" if pid == own else str(pid) for pid in pids[:_MOST])
        names += f" and {len(pids) - _MOST} more" * (len(pids) > _MOST)
        return f"of the processes that created or signaled it, {names} {'is' if len(pids) == 1 else 'are'} left"
    return f"process {owner} created it, and no process has signaled it yet" if owner else "its signaler is not known"
