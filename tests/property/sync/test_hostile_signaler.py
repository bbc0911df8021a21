"""A process with the right to signal writes what it likes into a timeline's page: waits report what they read."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.api.timeline import Timeline
from extmem.core import host_waits
from extmem.errors import PeerGoneError, WaitTimeoutError
from extmem.sharing import timeline_page as layout
from extmem.testing.waiting import DEADLINE

SOON = 0.02


def words(timeline: Timeline) -> memoryview:
    """Return the bytes of the page."""
    page: memoryview = timeline.record.page._words.cast("B")
    return page


def put(timeline: Timeline, at: int, value: int, size: int = 8) -> None:
    words(timeline)[at : at + size] = value.to_bytes(size, "little")


@pytest.fixture
def timelines(device: Device) -> Iterator[list[Timeline]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(device.timeline()) for _ in range(3)]


@contextlib.contextmanager
def changing(timeline: Timeline) -> Iterator[None]:
    """Change value, sequence, state and marks all the time, in a thread."""
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            number += 1
            put(timeline, layout.SEQUENCE, number & 0xFFFF, 4)
            put(timeline, layout.MARKS, number & 0xFFFF, 4)
            put(timeline, layout.VALUE, number & 1)
            put(timeline, layout.STATE, number & 3, 4)
            put(timeline, layout.FLAGS, layout.Flags.REPAIRED, 4)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(DEADLINE)


def test_a_value_that_was_lowered_ends_no_wait_for_any(
    timelines: list[Timeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is ended by the value, which is then lowered: no index is returned for it."""
    real = host_waits.wait_pages

    def lowering(waits: Any, **more: Any) -> bool:
        ended = real(waits, **more)
        put(timelines[1], layout.VALUE, 0)
        return ended

    timelines[1].signal(5)
    waits = [(one, 5) for one in timelines]
    with monkeypatch.context() as patch:
        patch.setattr(host_waits, "wait_pages", lowering)
        with pytest.raises(WaitTimeoutError, match="has value 0, and 5 was not signaled"):
            extmem.wait_any(waits, timeout=SOON)
    put(timelines[1], layout.VALUE, 5)  # the twin
    assert extmem.wait_any(waits, timeout=SOON) == 1


def test_a_value_that_was_raised_at_the_end_of_the_time_is_no_timeout(
    timelines: list[Timeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = host_waits.wait_pages

    def raising(waits: Any, **more: Any) -> bool:
        ended = real(waits, **more)
        for one in timelines[:2]:
            put(one, layout.VALUE, 5)
        return ended

    with monkeypatch.context() as patch:
        patch.setattr(host_waits, "wait_pages", raising)
        extmem.wait_all([(one, 5) for one in timelines[:2]], timeout=0)
        put(timelines[0], layout.VALUE, 0)
        with pytest.raises(WaitTimeoutError):
            extmem.wait_all([(one, 5) for one in timelines], timeout=0)


def test_waits_end_by_their_timeout_while_the_page_changes(timelines: list[Timeline]) -> None:
    """The sequence never has the expected number, so no sleep lasts."""
    timeline = timelines[0]
    with changing(timeline):
        for _ in range(3):
            with pytest.raises(WaitTimeoutError) as late:
                timeline.wait(7, timeout=SOON)
            assert late.value.reached in (0, 1)
            with pytest.raises(WaitTimeoutError):
                extmem.wait_any([(timeline, 7), (timelines[1], 1)], timeout=SOON)
            with pytest.raises(WaitTimeoutError):
                extmem.wait_all([(timeline, 7), (timelines[1], 1)], timeout=SOON)
    timeline.signal(8)
    timeline.wait(8, timeout=0)


def test_coroutines_run_while_the_page_changes(timelines: list[Timeline]) -> None:
    """Marks that change all the time are news all the time; other coroutines run, and timeouts and cancels end it."""
    timeline = timelines[0]
    turns = 0

    async def counting() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> None:
        other = asyncio.create_task(counting())
        with pytest.raises(WaitTimeoutError):
            await timeline.wait_async(7, timeout=SOON)
        waiting = asyncio.create_task(timeline.wait_async(7))
        await asyncio.sleep(SOON)
        for task in (waiting, other):
            task.cancel()
        ended = await asyncio.gather(waiting, other, return_exceptions=True)
        assert [type(one) for one in ended] == [asyncio.CancelledError] * 2

    with changing(timeline):
        asyncio.run(asyncio.wait_for(both(), DEADLINE))
    assert turns > 1


@pytest.mark.parametrize("state", [1, 2, 3, 0xFFFFFFFF])
def test_any_state_is_an_error_of_unreached_values_only(state: int, timelines: list[Timeline]) -> None:
    timeline = timelines[0]
    timeline.signal(3)
    put(timeline, layout.STATE, state, 4)
    put(timeline, layout.WHO, (1 << 64) - 1)
    put(timeline, layout.SINCE, (1 << 64) - 1)
    put(timeline, layout.FLAGS, 0, 4)
    timeline.wait(3)
    assert timeline.value == 3
    with pytest.raises(PeerGoneError, match=f"process {(1 << 64) - 1}.* 0.000 s ago: it has value 3, .* 4,"):
        timeline.wait(4)
    assert extmem.wait_any([(timeline, 4), (timeline, 3)]) == 1
    timeline.signal(4)  # a survivor's repair
    timeline.wait(4)


def test_a_value_at_the_limit_can_be_waited_for_and_not_be_raised(timelines: list[Timeline]) -> None:
    timeline = timelines[0]
    most = (1 << 64) - 1
    put(timeline, layout.VALUE, most)
    assert timeline.value == most
    timeline.wait(most)
    with pytest.raises(extmem.RuleViolation, match=f"{most}"):
        timeline.signal(most)
