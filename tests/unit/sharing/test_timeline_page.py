"""The page of a timeline: its table of signalers and its mark, and contents that a faulty process wrote."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from extmem.sharing import timeline_page
from extmem.sharing.timeline_page import Facts, Flags, Left, Signaler, State
from extmem.testing.strategies import timeline_pages


@pytest.fixture
def page() -> memoryview:
    return memoryview(bytearray(timeline_page.PAGE_SIZE))


def test_an_empty_page_is_of_a_timeline_at_0_that_nobody_has_signaled(page: memoryview) -> None:
    assert timeline_page.read(page) == Facts(0, 0, State.ALIVE, 0, 0, 0, 0, 0)
    assert not timeline_page.read(page).marked and timeline_page.signalers(page) == []


def test_the_offsets_are_those_of_the_codec(page: memoryview) -> None:
    page.cast("Q")[timeline_page.VALUE // 8] = 7
    words = page.cast("I")
    words[timeline_page.SEQUENCE // 4], words[timeline_page.STATE // 4] = 8, 2
    longs = page.cast("Q")
    longs[timeline_page.WHO // 8], longs[timeline_page.SINCE // 8], longs[timeline_page.REACHED // 8] = 9, 10, 11
    words[timeline_page.FLAGS // 4], words[timeline_page.MARKS // 4] = 1, 12
    assert timeline_page.read(page) == Facts(7, 8, State.POISONED, 9, 10, 11, Flags.CLOSED, 12)


def test_a_process_is_entered_once(page: memoryview) -> None:
    assert timeline_page.enter(page, 5, 70) and timeline_page.enter(page, 5, 70)
    assert timeline_page.signalers(page) == [Signaler(0, 5, 70, False)]
    assert timeline_page.enter(page, 5, 71)  # another process, which has the pid now
    assert timeline_page.leave(page, 5, 70) == Left(True, False, 1, 0, False)
    assert timeline_page.leave(page, 5, 70) == Left(False, False, 1, 0, False)
    assert timeline_page.signalers(page) == [Signaler(1, 5, 71, False)]


def test_entries_of_dead_signalers_are_kept_until_their_place_is_needed(page: memoryview) -> None:
    for pid in range(1, timeline_page.SIGNALERS + 1):
        assert timeline_page.enter(page, pid, pid)
    assert not timeline_page.enter(page, 99, 99)
    assert timeline_page.leave(page, 4, 4, dead=True).signalers == timeline_page.SIGNALERS - 1
    assert Signaler(3, 4, 4, True) in timeline_page.signalers(page)
    assert not timeline_page.leave(page, 4, 4, dead=True).found
    assert timeline_page.enter(page, 99, 99)
    assert timeline_page.signalers(page)[3] == Signaler(3, 99, 99, False)


def test_a_creator_is_a_signaler_from_its_first_signal_on(page: memoryview) -> None:
    assert timeline_page.enter(page, 5, 70, creator=True)
    assert timeline_page.signalers(page) == [Signaler(0, 5, 70, False, True)]
    assert timeline_page.enter(page, 6, 80)
    assert timeline_page.leave(page, 6, 80) == Left(True, False, 0, 1, False)
    assert timeline_page.enter(page, 5, 70) and timeline_page.enter(page, 5, 70, creator=True)
    assert timeline_page.signalers(page) == [Signaler(0, 5, 70, False)]
    assert timeline_page.enter(page, 6, 80, creator=True)
    assert timeline_page.leave(page, 6, 80) == Left(True, True, 1, 0, False)


def test_a_process_that_leaves_says_so_in_its_own_entry(page: memoryview) -> None:
    for pid in (5, 6):
        timeline_page.enter(page, pid, 10 * pid, creator=pid == 6)
    timeline_page.mark_leaving(page, 5, 51)  # another process, which had the pid before
    assert not any(one.leaving for one in timeline_page.signalers(page))
    timeline_page.mark_leaving(page, 6, 60)
    timeline_page.mark_leaving(page, 7, 70)  # it has no entry
    assert timeline_page.signalers(page) == [Signaler(0, 5, 50, False), Signaler(1, 6, 60, False, True, True)]
    timeline_page.enter(page, 6, 60)  # it signals after all
    assert timeline_page.signalers(page)[1] == Signaler(1, 6, 60, False, False, True)
    assert timeline_page.leave(page, 6, 60, dead=True) == Left(True, False, 1, 0, True)
    timeline_page.enter(page, 7, 70)  # the place of the dead one, and none of its flags
    assert timeline_page.signalers(page)[1] == Signaler(1, 7, 70, False)


@pytest.mark.parametrize("creator", [False, True])
@pytest.mark.parametrize("leaving", [False, True])
@pytest.mark.parametrize("others", [0, 1])
def test_whose_end_matters(creator: bool, leaving: bool, others: int) -> None:
    expected = not others or not (creator or leaving)
    assert Left(True, creator, others, 0, leaving).end_matters is expected
    assert not Left(False, creator, others, 0, leaving).end_matters


def test_a_mark_names_the_process_and_what_was_reached(page: memoryview) -> None:
    page.cast("Q")[0] = 41
    timeline_page.mark_gone(page, 1234, 10**9)
    found = timeline_page.read(page)
    assert found == Facts(41, 0, State.GONE, 1234, 10**9, 41, 0, 1)
    assert found.marked and found.abandoned and not found.closed
    timeline_page.mark_repaired(page)
    found = timeline_page.read(page)
    assert found.marked and not found.abandoned
    timeline_page.mark_gone(page, 1235, 2 * 10**9, closed=True)
    found = timeline_page.read(page)
    assert (found.pid, found.marks, found.closed, found.abandoned) == (1235, 2, True, True)
    assert not found.exited
    timeline_page.mark_gone(page, 1236, 3 * 10**9, exited=True)
    found = timeline_page.read(page)
    assert (found.pid, found.closed, found.exited, found.abandoned) == (1236, True, True, True)


@settings(max_examples=60, deadline=None)
@given(timeline_pages())
def test_any_contents_are_accepted(contents: bytearray) -> None:
    page = memoryview(contents)
    timeline_page.mark_gone(page, 1, 2)
    timeline_page.mark_repaired(page)
    found = timeline_page.read(page)
    assert found.marked and not found.abandoned and found.reached == found.value
    for one in timeline_page.signalers(page):
        timeline_page.leave(page, one.pid, one.start, dead=True)
    assert timeline_page.enter(page, 7, 8) and timeline_page.leave(page, 7, 8).signalers == 0
