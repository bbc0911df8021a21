"""The errors of waits that timed out: each timeline that is behind, who owes its value, and since when."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.sharing import timeline_page as layout


def timeout_of(call: Any, *arguments: Any) -> extmem.WaitTimeoutError:
    with pytest.raises(extmem.WaitTimeoutError) as caught:
        call(*arguments, timeout=0.001)
    return caught.value


def test_one_timeline(device: Device) -> None:
    with device.timeline() as timeline:
        timeline.signal(1)
        error = timeout_of(timeline.wait, 5)
        assert str(error) == (
            "the timeline (unnamed) has value 1, and 5 was not signaled within 0.001 s; of the processes that created "
            f"or signaled it, only this one ({os.getpid()}) is left; wait longer, or call signal(5) where the work is "
            "done"
        )
        assert (error.value, error.reached) == (5, 1)
        assert str(timeout_of(extmem.wait_all, [(timeline, 5)])) == str(error)


def test_all_that_are_behind_are_listed(device: Device, name: str) -> None:
    with device.timeline(3, name=name) as first, device.timeline(7) as second, device.timeline() as third:
        pairs = [(first, 4), (second, 7), (third, 2)]
        head, one, other, last = str(timeout_of(extmem.wait_all, pairs)).split("\n")
        assert head == "2 of 3 values were not signaled within 0.001 s:"
        assert one.startswith(f"  waits[0]: the timeline ({name!r}) has value 3, and 4 was not signaled; ")
        assert other.startswith("  waits[2]: the timeline (unnamed) has value 0, and 2 was not signaled; ")
        assert str(os.getpid()) in one and str(os.getpid()) in other
        assert last == "do: wait longer, or signal the values where the work is done"
        head, one, last = str(timeout_of(extmem.wait_all, [(first, 3), (third, 2), (second, 1)])).split("\n")
        assert head == "1 of 3 values was not signaled within 0.001 s:" and one.startswith("  waits[1]: ")
        assert last == "do: wait longer, or call signal(2) where the work is done"
        error = timeout_of(extmem.wait_any, [(first, 9), (second, 9)])
        assert str(error).startswith("none of 2 values was signaled within 0.001 s:\n  waits[0]: ")
        assert "  waits[1]: " in str(error) and (error.value, error.reached) == (9, 3)


def test_the_list_has_an_end(device: Device) -> None:
    with device.timeline() as timeline:
        lines = str(timeout_of(extmem.wait_all, [(timeline, 1 + index) for index in range(100)])).split("\n")
        assert len(lines) == 11 and lines[-2] == "  and 92 more"


def test_what_ended_is_told_with_the_time(device: Device) -> None:
    with device.timeline() as timeline:
        page: Any = timeline.record.page
        layout.mark_gone(page._words.cast("B"), 4711, time.monotonic_ns() - 2_000_000_000)
        timeline.signal(1)  # it repairs, and signals no more
        assert "; process 4711 ended or closed it 2.0" in str(timeout_of(timeline.wait, 5))
        assert " s ago, at value 0; wait longer" in str(timeout_of(timeline.wait, 5))


def test_who_may_only_wait_is_not_told_to_signal(device: Device, name: str) -> None:
    with device.timeline(name=name), extmem.open_timeline(name, access=extmem.Access.READ) as waiting:
        assert str(timeout_of(waiting.wait, 1)).endswith(
            "wait longer; this process opened it without the right to signal"
        )
