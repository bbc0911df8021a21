"""Events: eventfds that are signaled once and consumed once."""

from __future__ import annotations

import os
import threading
import time

import pytest

from extmem.devices.host import futex
from extmem.devices.host.event import Event, wait_events
from extmem.devices.host.page_signals import deadline_after
from extmem.devices.host.timeline_page import TimelinePage
from extmem.errors import AccessDeniedError, OutOfMemoryError, PeerGoneError
from extmem.owning import OwnedFd, copy_fd
from extmem.sharing import timeline_page as layout
from extmem.testing.children import Peer
from extmem.testing.leaks import no_leaks
from extmem.testing.waiting import DEADLINE, wait_until

FAR = int(DEADLINE * 1e9)


def event(signaled: bool = False) -> Event:
    return Event.create(signaled, "vkCreateSemaphore")


def mark(page: TimelinePage) -> None:
    layout.mark_gone(page._words.cast("B"), 4711, time.monotonic_ns())
    futex.add_and_wake(page.sequence)


def test_a_signal_is_made_once_and_consumed_once() -> None:
    one = event()
    assert (one.is_signaled(), one.consume()) == (False, False)
    assert (one.signal(), one.signal()) == (True, False)
    assert one.is_signaled()
    assert (one.consume(), one.consume()) == (True, False)
    assert event(signaled=True).consume()


def test_all_descriptors_of_an_event_are_one_payload() -> None:
    one = event()
    other = Event(copy_fd(one.fd))
    other.signal()
    assert one.is_signaled()
    assert one.consume()
    assert not other.is_signaled()


def test_signals_of_other_programs_are_one_signal() -> None:
    one = event()
    os.eventfd_write(one.fd, 3)
    assert not one.signal()
    assert one.consume()
    assert not one.consume()


def test_many_waiters_consume_each_signal_once() -> None:
    one, taken = event(), []

    def waiter() -> None:
        if one.take(deadline_after(FAR)):
            taken.append(1)

    threads = [threading.Thread(target=waiter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in range(4):
        assert one.signal()
        wait_until(lambda count=count: len(taken) == count + 1, "a waiter to consume the signal")
    for thread in threads:
        thread.join(DEADLINE)
    assert not one.is_signaled()


def test_waits_for_any_and_all_and_deadlines() -> None:
    first, second = event(), event(signaled=True)
    assert wait_events([], any_of=False)
    assert wait_events([first, second], any_of=True, deadline=0)
    assert not wait_events([first, second], any_of=False, deadline=deadline_after(2_000_000))
    thread = threading.Thread(target=first.signal)
    thread.start()
    assert wait_events([first, second], any_of=False, deadline=deadline_after(FAR))
    thread.join(DEADLINE)


def test_without_the_right_it_only_waits() -> None:
    one = event()
    other = Event(copy_fd(one.fd), writable=False)
    with pytest.raises(AccessDeniedError, match="right to signal"):
        other.signal()
    one.signal()
    assert wait_events([other], any_of=False, deadline=0)
    assert other.consume()


def test_S59_its_companion_page_tells_of_the_end_of_the_signaler() -> None:
    one = event()
    (page,) = one.pages
    assert (page.writable, page.by_rights) == (True, True)
    assert one.pages == (page,)
    one.signal()
    made = one._page
    assert made is not None
    assert [entry.pid for entry in layout.signalers(made._words.cast("B"))] == [os.getpid()]
    mark(made)
    assert wait_events([one], any_of=False, deadline=0)  # it was signaled before
    one.consume()
    with pytest.raises(
        PeerGoneError, match=r"process 4711, which could signal the semaphore, ended .* it is not signaled"
    ):
        one.take(deadline_after(FAR))
    assert wait_events([one, event(signaled=True)], any_of=True, deadline=0)
    one.signal()  # a survivor
    one.consume()
    assert not one.take(0)


def test_an_event_leaves_nothing_behind() -> None:
    event().signal()
    with no_leaks(objects=False):
        one = event()
        assert one.pages
        one.signal()
        del one


def test_a_lack_of_descriptors_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refuse)
    with pytest.raises(OutOfMemoryError, match="vkCreateSemaphore: no room for an eventfd"):
        event()


@pytest.mark.slow("starts a process")
def test_two_processes_hand_a_signal_back_and_forth() -> None:
    there, back = event(), event()
    with Peer(pass_fds=[there.fd, back.fd]) as peer:
        peer.start(
            "from extmem.devices.host.event import Event\n"
            "ping, pong = Event.of_fd(there, True), Event.of_fd(back, True)\n"
            "for _ in range(100):\n    ping.take() and pong.signal()",
            there=there.fd,
            back=back.fd,
        )
        for _ in range(100):
            assert there.signal()
            assert back.take(deadline_after(FAR))
        peer.finish()
    assert not there.is_signaled()


def test_the_file_is_owned() -> None:
    one = event()
    assert isinstance(one._file, OwnedFd)
    assert one.fd >= 3
