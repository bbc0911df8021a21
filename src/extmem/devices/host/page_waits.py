"""Waits for several timeline pages at once: for any of them, or for all."""

from __future__ import annotations

from collections.abc import Sequence

from extmem.devices.host.page_signals import gone_error
from extmem.devices.host.sync_system import TimelinePage, sleep_on_pages

__all__ = ["wait_pages"]


def wait_pages(waits: Sequence[tuple[TimelinePage, int]], *, any_of: bool, deadline: int | None = None) -> bool:
    """Wait until all the values are reached, or any of them. Return whether they are; False after the deadline.

    deadline: as `TimelinePage.wait`. No waits are satisfied at once. Errors: PeerGoneError if nobody is going to signal
    one of the values (all), or each of them (any).
    """
    if not waits:
        return True
    if len(waits) == 1:
        page, value = waits[0]
        return page.wait(value, deadline)
    in_time = True
    while True:
        missing: list[tuple[TimelinePage, int]] = []
        gone: Exception | None = None
        alive = False
        for page, value in waits:
            expected = page.sequence_number  # before the value: a later signal changes it
            if page.value >= value:
                if any_of:
                    return True
                continue
            missing.append((page, expected))
            facts = page.abandoned_below(value) if page.marked else None
            if facts is None:
                alive = True
            elif gone is None:
                gone = gone_error(facts, value, page.label)
        if not missing:
            return True
        if gone is not None and not (any_of and alive):
            raise gone
        if not in_time:
            return False
        in_time = sleep_on_pages(missing, deadline)
