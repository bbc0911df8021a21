"""Who has the page of a semaphore or fence, and which ends the waiters are told of."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from extmem.broker import signalers as module
from extmem.broker.fd_closer import FdCloser
from extmem.broker.fd_inspection import inspect
from extmem.broker.fd_quota import FdQuota
from extmem.broker.payload_fds import PayloadFds
from extmem.broker.sessions import Session
from extmem.broker.signalers import Signalers
from extmem.sharing import timeline_page
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.limits import FRAME_AFTER_CONTROL_PAGE
from extmem.wire.process_start import start_time

PID = os.getpid()
START = start_time(PID)


class Bed:
    """Payloads 1 to 3 are timelines of the host. Processes are numbers; `alive` are the pids that exist."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._quota = FdQuota(10_000, "here")
        self.payloads = PayloadFds(FdCloser(), self._quota)
        self.signalers = Signalers(self.payloads)
        self.alive = {pid: 10 * pid for pid in range(100, 110)}
        monkeypatch.setattr(module, "start_time", lambda pid: self.alive.get(pid, 0))
        monkeypatch.setattr(module, "_own_pid", lambda pid: pid)
        for payload in (1, 2, 3):
            fd = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, timeline_page.PAGE_SIZE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self.add(payload, fd)

    def add(self, payload: int, fd: int) -> None:
        """Add a payload that this file is."""
        self._quota.take(1000, 1)
        self.payloads.add(payload, inspect(Backing.HOST_FILE, [fd], 0, 1000), [fd], 1000, 1)

    def has(self, process: int, payload: int = 1, *, signal: bool = True, created: bool = False) -> None:
        """A process, whose pid is 100 more, gets the page."""
        session: Any = SimpleNamespace(process=process, credentials=SimpleNamespace(pid=100 + process))
        self.signalers.has(cast(Session, session), payload, signal, created=created)

    def signals(self, process: int, payload: int = 1) -> None:
        """A process enters itself and signals."""
        fd = self.payloads.page(payload) or -1
        page = bytearray(os.pread(fd, timeline_page.PAGE_SIZE, 0))
        timeline_page.enter(memoryview(page), 100 + process, 10 * (100 + process))
        os.pwrite(fd, page, 0)

    def leaves(self, process: int, payload: int = 1) -> None:
        """A process writes that it is about to end normally."""
        fd = self.payloads.page(payload) or -1
        page = bytearray(os.pread(fd, timeline_page.PAGE_SIZE, 0))
        timeline_page.mark_leaving(memoryview(page), 100 + process, 10 * (100 + process))
        os.pwrite(fd, page, 0)

    def ends(self, process: int) -> None:
        for _ in self.signalers.ended(process):
            pass

    def told(self, payload: int = 1) -> tuple[int, bool] | None:
        """The pid that the waiters are told of, and whether it has closed the payload."""
        fd = self.payloads.page(payload) or -1
        facts = timeline_page.read(memoryview(os.pread(fd, timeline_page.PAGE_SIZE, 0)))
        assert facts.sequence == facts.marks
        return (facts.pid, facts.closed) if facts.marked else None


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    made = Bed(monkeypatch)
    yield made
    made.payloads.close()


def test_a_signaler_that_ends_is_told_of_whoever_else_signals(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.has(2)
    bed.has(3)
    bed.signals(2)
    bed.signals(3)
    bed.ends(2)
    assert bed.told() == (102, False)


def test_a_signaler_that_ends_normally_is_told_of_if_no_signaler_is_left(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.has(2)
    bed.has(3)
    bed.signals(2)
    bed.signals(3)
    bed.leaves(2)
    bed.ends(2)
    assert bed.told() is None  # process 3 may signal what comes
    bed.leaves(3)
    assert bed.told() is None  # it has not ended
    bed.ends(3)
    assert bed.told() == (103, True)


def test_a_creator_that_ends_normally_before_it_signals_is_told_of(bed: Bed) -> None:
    for payload in (1, 2):
        bed.has(1, payload, created=True)
        bed.has(2, payload)
        bed.leaves(1, payload)
    bed.signals(2, 2)
    bed.ends(1)
    assert (bed.told(1), bed.told(2)) == ((101, True), None)


def test_what_ended_normally_without_a_broker_is_told_as_that(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.signals(1)
    bed.has(2, signal=False)
    bed.leaves(1)
    bed.signalers.undone(1, 1)  # it is not known to the next broker
    bed.signalers._who.pop(1)
    del bed.alive[101]
    for _ in bed.signalers.recovered():
        pass
    assert bed.told() == (101, True)


def test_a_waiter_that_ends_is_not(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.signals(1)
    bed.has(2)
    bed.ends(2)
    assert bed.told() is None
    bed.ends(1)
    assert bed.told() == (101, False)


def test_the_creators_end_concerns_the_waiters_until_another_signals(bed: Bed) -> None:
    for payload in (1, 2):
        bed.has(1, payload, created=True)
        bed.has(2, payload)
    bed.signals(2, 2)
    bed.ends(1)
    assert (bed.told(1), bed.told(2)) == ((101, False), None)


def test_one_that_ends_before_its_first_signal_concerns_a_creator_that_waits(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.has(2, signal=False)
    bed.has(3)
    bed.ends(2)
    assert bed.told() is None
    bed.ends(3)
    assert bed.told() == (103, False)
    # One of several that may signal: another may be the one.
    for process in (1, 2, 3):
        bed.has(process, 2, created=process == 1)
    bed.ends(3)
    assert bed.told(2) is None
    # It was told of a signaler that ended, and not of one that came later and did not signal.
    bed.has(1, 3, created=True)
    bed.has(4, 3)
    bed.signals(4, 3)
    bed.ends(4)
    bed.has(5, 3)
    bed.ends(5)
    assert bed.told(3) == (104, False)


def test_closing_is_told_when_no_signaler_is_left(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.has(2)
    bed.has(3)
    bed.signals(2)
    bed.signals(3)
    bed.signalers.closed(2, 1)
    assert bed.told() is None
    bed.has(4)
    bed.signalers.closed(3, 1)
    assert bed.told() is None  # the creator may still signal, and so may another
    bed.signalers.closed(4, 1)
    bed.signalers.closed(1, 1)
    assert bed.told() == (101, True)
    bed.ends(1)
    assert bed.told() == (101, True)
    # The creator is the one that waits.
    bed.has(1, 2, created=True)
    bed.has(2, 2)
    bed.signals(2, 2)
    bed.signalers.closed(2, 2)
    assert bed.told(2) == (102, True)


def test_a_creator_may_close_what_another_process_is_going_to_signal(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.has(2)
    bed.signalers.closed(1, 1)
    assert bed.told() is None
    bed.has(1, 2, created=True)
    bed.has(2, 2, signal=False)
    bed.signalers.closed(1, 2)
    assert bed.told(2) == (101, True)


def test_a_process_that_did_not_get_the_page_is_forgotten(bed: Bed) -> None:
    bed.has(1, created=True)
    bed.signals(1)
    bed.signalers.undone(1, 1)
    bed.signalers.closed(1, 1)
    bed.ends(1)
    assert bed.told() is None


def test_a_next_broker_tells_of_signalers_that_neither_announced_nor_live(bed: Bed) -> None:
    for process, payload in ((1, 1), (2, 1), (3, 2), (4, 3)):
        bed.signals(process, payload)
    bed.has(1, 1)  # announced; of the others 103 lives and has not announced
    bed.has(1, 2)
    bed.has(1, 3)
    del bed.alive[102], bed.alive[104]
    for _ in bed.signalers.recovered():
        pass
    assert (bed.told(1), bed.told(2), bed.told(3)) == ((102, False), None, (104, False))


def test_the_value_is_read_from_the_page(bed: Bed) -> None:
    os.pwrite(bed.payloads.page(2) or -1, b"\x05", 0)
    found = [bed.signalers.value(payload, ObjectKind.SEMAPHORE) for payload in (1, 2, 9)]
    assert found == [0, 5, None]


def test_the_generation_of_memory_is_read_from_its_control_page_alone(bed: Bed) -> None:
    """Payload 1 is no memory with a control page: the first bytes of its contents are no generation."""
    os.pwrite(bed.payloads.page(1) or -1, b"\x05", 0)
    fd = os.memfd_create("memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    page = timeline_page.PAGE_SIZE
    os.ftruncate(fd, 3 * page)
    os.pwrite(fd, (4).to_bytes(8, sys.byteorder), page)
    os.pwrite(fd, FRAME_AFTER_CONTROL_PAGE, 2 * page)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    bed.add(4, fd)
    assert [bed.signalers.value(payload, ObjectKind.MEMORY) for payload in (1, 4, 9)] == [None, 4, None]


def test_many_pages_are_marked_in_steps(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGES", 1)
    for payload in (1, 2, 3):
        bed.has(1, payload, created=True)
    bed.payloads.drop([2])  # it has ended meanwhile
    assert len(list(bed.signalers.ended(1))) == 3
    assert bed.told(1) == bed.told(3) == (101, False)


def test_the_pid_is_that_of_the_process_in_its_own_namespace() -> None:
    assert module._own_pid(PID) == PID and module._own_pid(2**22 + 1) == 2**22 + 1
