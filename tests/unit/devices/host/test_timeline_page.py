"""Timeline pages: values, rights, several signalers, and the end of one."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time

import pytest

from extmem.devices.host import page_signals, timeline_page
from extmem.devices.host.page_signals import deadline_after
from extmem.devices.host.timeline_page import TimelinePage, create_page, open_page
from extmem.errors import AccessDeniedError, DriverError, PeerGoneError
from extmem.owning import OwnedFd
from extmem.sharing import timeline_page as layout
from extmem.testing.children import Peer
from extmem.testing.leaks import no_leaks
from extmem.testing.waiting import DEADLINE
from extmem.wire.process_start import start_time

FAR = int(DEADLINE * 1e9)
OPEN = """
from extmem.devices.host.page_signals import deadline_after
from extmem.devices.host.timeline_page import open_page
from extmem.owning import OwnedFd
page = open_page(OwnedFd(os.open(f"/proc/{parent}/fd/{fd}", os.O_RDWR if writable else os.O_RDONLY)), writable)
"""


def bytes_of(page: TimelinePage) -> memoryview:
    return page._words.cast("B")


def read_only(file: OwnedFd) -> TimelinePage:
    return open_page(OwnedFd.open(f"/proc/self/fd/{file.fd}", os.O_RDONLY), False)


def test_a_value_grows_and_is_read_by_every_opener() -> None:
    file = create_page(5, b"who I am")
    page, other = open_page(file), read_only(file)
    assert (page.value, other.value, page.facts.state) == (5, 5, layout.State.ALIVE)
    page.signal(6)
    page.signal(2**64 - 1)
    assert other.value == 2**64 - 1
    assert open_page(file) is page


@pytest.mark.parametrize("value", [0, 4, 5])
def test_a_value_that_is_not_greater_is_refused(value: int) -> None:
    page = open_page(create_page(5))
    with pytest.raises(DriverError, match=f"has value 5 and {value} is to be signaled; signal a greater"):
        page.signal(value)
    assert page.value == 5
    assert not page.raise_to(value)
    assert page.raise_to(6)
    assert page.value == 6


def test_the_right_to_wait_alone_is_enforced_by_the_kernel() -> None:
    file = create_page()
    page = read_only(file)
    for call in (lambda: page.signal(1), page.wake, page.prepare_to_signal, page.announce_signal):
        with pytest.raises(AccessDeniedError, match="without the right to signal .* open it with Access.READ_WRITE"):
            call()
    with pytest.raises(AccessDeniedError):
        open_page(OwnedFd.open(f"/proc/self/fd/{file.fd}", os.O_RDONLY), True)
    with pytest.raises(TypeError):  # and the library does not write by accident
        page._values[0] = 1
    open_page(file).signal(1)
    assert page.wait(1, 0)


def test_waits_poll_have_deadlines_and_are_woken() -> None:
    file = create_page(1)
    page, other = open_page(file), read_only(file)
    assert page.wait(1, 0)
    assert not page.wait(2, 0)
    end = deadline_after(2_000_000)
    assert end is not None
    assert not page.wait(2, end)
    assert time.monotonic_ns() >= end
    thread = threading.Thread(target=page.signal, args=(3,))
    thread.start()
    assert other.wait(2, deadline_after(FAR))
    thread.join(DEADLINE)
    assert deadline_after(1 << 63) is deadline_after(None) is None


def test_a_sequence_that_wraps_wakes() -> None:
    page = open_page(create_page())
    page._words[layout.SEQUENCE // 4] = 0xFFFF_FFFF
    thread = threading.Thread(target=page.signal, args=(1,))
    thread.start()
    assert page.wait(1, deadline_after(FAR))
    thread.join(DEADLINE)
    assert page.sequence_number == 0


def test_the_first_signal_enters_the_process_once() -> None:
    file = create_page()
    page = open_page(file)
    assert not layout.signalers(bytes_of(page))
    page.signal(1)
    page.signal(2)
    (entry,) = layout.signalers(bytes_of(page))
    assert (entry.pid, entry.start, entry.dead) == (os.getpid(), start_time(os.getpid()), False)
    assert page._words[layout.ENTRIES // 4] == 1


def test_a_full_table_only_loses_the_notice() -> None:
    page = open_page(create_page())
    for number in range(layout.SIGNALERS):
        layout.enter(bytes_of(page), 1 << 20 | number, 1)
    page.signal(1)
    page.signal(2)
    assert page.value == 2
    assert os.getpid() not in [one.pid for one in layout.signalers(bytes_of(page))]


@pytest.mark.slow("starts a process")
def test_a_table_that_a_process_keeps_locked_does_not_stop_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_page, "_LOCK_ATTEMPTS", 2)
    file = create_page()
    with Peer() as peer:
        peer(
            OPEN + "import fcntl; fcntl.lockf(page._file.fd, fcntl.LOCK_EX, 4096, 64)",
            parent=os.getpid(),
            fd=file.fd,
            writable=True,
        )
        page = open_page(file)
        page.signal(1)
        assert page.value == 1


def test_a_store_that_came_too_late_is_put_right() -> None:
    """Two threads signal 5 and 6; the one with 5 stores last. Its own look at the claims restores 6."""
    page = open_page(create_page())
    page.signal(1)
    page._claims[0] = 6  # another thread has announced, stored and finished
    page.signal(5)
    assert page.value == 6
    page.signal(7)
    assert page.value == 7


def test_a_store_over_that_of_another_process_is_put_right() -> None:
    page = open_page(create_page())
    view = bytes_of(page)
    layout.enter(view, 1 << 20, 1)
    page.signal(1)  # the table has another process: from now on its announcements are read
    page._values[layout.RAISED // 8] = 9
    page.signal(5)
    assert page.value == 9


def test_threads_that_signal_at_once_end_at_the_maximum() -> None:
    page = open_page(create_page())
    most = 4 * 200

    def signal(first: int) -> None:
        for value in range(first, most + 1, 4):
            page.raise_to(value)

    threads = [threading.Thread(target=signal, args=(first,)) for first in (1, 2, 3, 4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    finally:
        sys.setswitchinterval(interval)
    assert page.value == most
    assert page.wait(most, 0)


def test_claims_of_ended_threads_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_signals, "_MANY_THREADS", 4)
    page = open_page(create_page())
    for value in range(1, 12):
        thread = threading.Thread(target=page.signal, args=(value,))
        thread.start()
        thread.join(DEADLINE)
    assert page.value == 11
    assert len(page._claims) < 8


# The end of a signaler.


def mark(page: TimelinePage, pid: int = 4711, *, closed: bool = False, exited: bool = False) -> None:
    layout.mark_gone(bytes_of(page), pid, time.monotonic_ns(), closed=closed, exited=exited)
    timeline_page.add_and_wake(page.sequence)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "which could signal the timeline, ended without closing it"),
        ({"closed": True}, "the last that could signal the timeline, closed it"),
        ({"exited": True}, "the last that signaled or created the timeline, ended normally"),
    ],
)
def test_S59_the_end_of_the_signaler_ends_a_wait(how: dict[str, bool], words: str) -> None:
    page = open_page(create_page(3))
    thread = threading.Thread(target=mark, args=(page,), kwargs=how)
    thread.start()
    with pytest.raises(PeerGoneError, match=rf"process 4711, {words} [0-9.]* s ago: .* has value 3, and the value 4"):
        page.wait(4, deadline_after(FAR))
    thread.join(DEADLINE)
    assert page.wait(3, 0)  # what was signaled stays so


def test_S59_a_survivor_repairs_and_the_mark_stays() -> None:
    page = open_page(create_page())
    mark(page)
    page.signal(1)
    assert page.wait(1, 0)
    assert not page.wait(2, 0)  # the survivor may signal it
    assert (page.facts.marked, page.facts.abandoned, page.facts.pid, page.facts.reached) == (True, False, 4711, 0)
    mark(page, 4712)
    with pytest.raises(PeerGoneError, match="4712"):
        page.wait(2, 0)


def test_a_poisoned_page_and_nonsense_are_errors_or_numbers() -> None:
    page = open_page(create_page())
    page._words[layout.STATE // 4] = layout.State.POISONED
    with pytest.raises(PeerGoneError, match="declared the timeline invalid"):
        page.wait(1, 0)
    for at in range(layout.PAGE_SIZE // 8):
        page._values[at] = 2**64 - 1
    assert page.value == 2**64 - 1
    assert page.wait(5, 0)
    assert page.facts.state == 2**32 - 1
    assert not page.raise_to(7)


@pytest.mark.parametrize("seed", range(20))
def test_a_page_of_random_bytes_is_read_and_signaled(seed: int) -> None:
    """A process with the right to signal may write anything."""
    page = open_page(create_page())
    bytes_of(page)[:] = random.Random(seed).randbytes(layout.PAGE_SIZE)
    before = page.value
    assert page.facts.value == before
    assert page.wait(before, 0)
    with contextlib.suppress(PeerGoneError):
        assert not page.wait(2**64 - 1, 0)
    assert page.raise_to(2**64 - 1)
    assert page.value == 2**64 - 1
    assert all(0 < pid < 2**32 for pid in page.signalers)


def test_a_page_leaves_nothing_behind() -> None:
    open_page(create_page()).signal(1)
    with no_leaks(objects=False):
        file = create_page(1, b"described")
        page = open_page(file)
        page.signal(2)
        page.wait(2)
        other = read_only(file)
        del page, other, file


def test_the_child_of_a_fork_opens_pages_of_its_own() -> None:
    file = create_page()
    page = open_page(file)
    timeline_page._forget_after_fork()
    assert open_page(file) is not page


def test_a_page_that_a_wait_keeps_after_its_last_user_is_not_opened_again() -> None:
    """The object manager has removed the process from the table, so the next page has to enter it again."""
    file = create_page()
    page = open_page(file)
    page.add_user()
    page.signal(1)
    page.drop_user()
    layout.leave(bytes_of(page), os.getpid(), start_time(os.getpid()))
    again = open_page(file)
    assert again is not page and again.value == 1
    again.add_user()
    again.signal(2)
    assert again.signalers == [os.getpid()]
    assert page.wait(2, 0)


def test_a_page_is_opened_once_while_it_has_a_user() -> None:
    file = create_page()
    page = open_page(file)
    page.add_user()
    page.add_user()
    page.drop_user()
    assert open_page(file) is page


@pytest.mark.slow("starts a process")
def test_two_processes_signal_and_wait() -> None:
    file, back = create_page(), create_page()
    page, answers = open_page(file), open_page(back)
    with Peer() as peer:
        peer(OPEN + "waited = page", parent=os.getpid(), fd=file.fd, writable=False)
        peer(OPEN, parent=os.getpid(), fd=back.fd, writable=True)
        peer.start("for n in range(1, 101):\n    waited.wait(n, deadline_after(10**10)) and page.signal(n)")
        for value in range(1, 101):
            page.signal(value)
            assert answers.wait(value, deadline_after(FAR))
        peer.finish()
        assert [one.pid for one in layout.signalers(bytes_of(answers))] == [peer.pid]


@pytest.mark.slow("starts a process")
def test_two_processes_that_signal_at_once_end_at_the_maximum() -> None:
    file = create_page()
    page = open_page(file)
    with Peer() as peer:
        peer(OPEN, parent=os.getpid(), fd=file.fd, writable=True)
        peer.start("for n in range(1, 4000, 2):\n    page.raise_to(n)")
        for value in range(2, 4001, 2):
            page.raise_to(value)
        peer.finish()
    assert page.value == 4000
    assert page._words[layout.ENTRIES // 4] == 2
