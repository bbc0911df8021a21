"""Waits for any and for all of several timeline pages."""

from __future__ import annotations

import threading
import time

import pytest

from extmem.devices.host import futex
from extmem.devices.host.page_signals import deadline_after
from extmem.devices.host.page_waits import wait_pages
from extmem.devices.host.timeline_page import TimelinePage, create_page, open_page
from extmem.errors import PeerGoneError
from extmem.sharing import timeline_page as layout
from extmem.testing.waiting import DEADLINE

FAR = int(DEADLINE * 1e9)


def pages(count: int) -> list[TimelinePage]:
    return [open_page(create_page()) for _ in range(count)]


def mark(page: TimelinePage) -> None:
    layout.mark_gone(page._words.cast("B"), 4711, time.monotonic_ns())
    futex.add_and_wake(page.sequence)


def test_nothing_is_reached_at_once() -> None:
    assert wait_pages([], any_of=True)
    assert wait_pages([], any_of=False)


def test_any_and_all_poll() -> None:
    first, second = pages(2)
    waits = [(first, 1), (second, 2)]
    assert not wait_pages(waits, any_of=True, deadline=0)
    second.signal(2)
    assert wait_pages(waits, any_of=True, deadline=0)
    assert not wait_pages(waits, any_of=False, deadline=0)
    first.signal(1)
    assert wait_pages(waits, any_of=False, deadline=0)


@pytest.mark.parametrize("waitv", [True, False])
def test_a_signal_of_any_page_wakes_and_all_wait_for_the_last(waitv: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(futex, "_has_waitv", lambda: waitv)
    several = pages(3)
    thread = threading.Thread(target=several[2].signal, args=(1,))
    thread.start()
    assert wait_pages([(page, 1) for page in several], any_of=True, deadline=deadline_after(FAR))
    thread.join(DEADLINE)

    def signal() -> None:
        several[1].signal(1)
        several[0].signal(1)

    thread = threading.Thread(target=signal)
    thread.start()
    assert wait_pages([(page, 1) for page in several], any_of=False, deadline=deadline_after(FAR))
    thread.join(DEADLINE)


def test_the_deadline_ends_it() -> None:
    assert not wait_pages([(page, 1) for page in pages(2)], any_of=True, deadline=deadline_after(2_000_000))


def test_S59_all_fail_by_one_lost_signaler_and_any_by_the_loss_of_each() -> None:
    first, second = pages(2)
    waits = [(first, 1), (second, 1)]
    mark(first)
    with pytest.raises(PeerGoneError, match="4711"):
        wait_pages(waits, any_of=False, deadline=0)
    assert not wait_pages(waits, any_of=True, deadline=0)
    second.signal(1)
    assert wait_pages(waits, any_of=True, deadline=0)
    waits = [(first, 1), (second, 2)]
    mark(second)
    with pytest.raises(PeerGoneError, match="4711"):
        wait_pages(waits, any_of=True, deadline=0)
    first.signal(1)  # a survivor's repair
    assert wait_pages(waits, any_of=True, deadline=0)


def test_a_lost_signaler_ends_a_wait_for_several() -> None:
    first, second = pages(2)
    thread = threading.Thread(target=mark, args=(second,))
    thread.start()
    with pytest.raises(PeerGoneError):
        wait_pages([(first, 1), (second, 1)], any_of=False, deadline=deadline_after(FAR))
    thread.join(DEADLINE)
