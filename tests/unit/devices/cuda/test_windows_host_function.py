"""The event that a stream sets on Windows: its thread raises the value, wakes the waiters, and tells of its end."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem.devices.cuda import host_calls
from extmem.testing.waiting import wait_until

pytestmark = pytest.mark.windows_only("Linux has machine code in its place")


@pytest.fixture
def page() -> Iterator[Any]:
    """The page of a timeline of the host with the value 3."""
    with extmem.open_device(kind="host") as device, device.timeline(3) as made:
        yield made.record.page


def call(prepared: Any) -> None:
    """Call the function as CUDA does."""
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(host_calls.host_function_address())(prepared.address)


@pytest.mark.parametrize(("value", "after"), [(9, 9), (3, 3), (1, 3), ((1 << 64) - 1, (1 << 64) - 1)])
def test_the_value_is_raised_and_never_lowered(page: Any, value: int, after: int) -> None:
    prepared = host_calls.prepared_call(page, value)
    assert not prepared.done and page.value == 3
    call(prepared)
    wait_until(lambda: prepared.done, "the value to be raised")
    assert page.value == after
    host_calls.release_call(prepared)


def test_whoever_waits_for_a_value_that_the_stream_has_written_wakes(page: Any) -> None:
    reached: list[bool] = []
    waiter = threading.Thread(target=lambda: reached.append(page.wait(5)))
    waiter.start()
    prepared = host_calls.prepared_call(page, 5)
    ctypes.c_uint64.from_address(page.address).value = 5  # as cuStreamWriteValue64
    before = page.sequence_number
    call(prepared)
    waiter.join(10)
    assert reached == [True]
    wait_until(lambda: prepared.done, "the waiters to be woken")
    assert page.sequence_number != before


def test_calls_of_many_streams_lose_nothing(page: Any) -> None:
    calls = [host_calls.prepared_call(page, value) for value in range(4, 40)]
    for one in reversed(calls):
        call(one)
    wait_until(lambda: all(one.done for one in calls), "all values to be raised")
    assert page.value == 39


def test_a_cancelled_call_raises_nothing_and_is_done(page: Any) -> None:
    prepared = host_calls.prepared_call(page, 7)
    prepared.cancel()
    wait_until(lambda: prepared.done, "the thread to end")
    assert page.value == 3


def test_a_lack_of_threads_is_an_error_and_leaves_nothing(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(extmem.OutOfMemoryError, match="no thread .* value 7"):
        host_calls.prepared_call(page, 7)
    monkeypatch.undo()
    prepared = host_calls.prepared_call(page, 7)
    call(prepared)
    wait_until(lambda: prepared.done, "the value to be raised")
    assert page.value == 7
