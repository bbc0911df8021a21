"""The count of changes, and the mark of an update that was not finished."""

from __future__ import annotations

import pytest

from extmem.sharing import control_page, timeline_page


@pytest.fixture
def page() -> memoryview:
    return memoryview(bytearray(control_page.PAGE_SIZE))


def with_generation(page: memoryview, generation: int) -> memoryview:
    page[:8] = generation.to_bytes(8, "little")
    return page


@pytest.mark.parametrize(
    ("generation", "running", "finished", "newer", "begun"),
    [(0, False, 0, 2, 1), (1, True, 0, 2, 3), (2, False, 2, 4, 3), (7, True, 6, 8, 9)],
)
def test_the_count(generation: int, running: bool, finished: int, newer: int, begun: int) -> None:
    assert control_page.is_running(generation) is running
    assert control_page.finished(generation) == finished
    assert control_page.after(generation) == newer
    assert control_page.begun(generation) == begun


def test_the_greatest_generation_leaves_room_for_an_update() -> None:
    assert control_page.begun(control_page.MOST) + 1 < 1 << 64


def test_only_an_update_that_runs_is_marked_and_only_once(page: memoryview) -> None:
    assert not control_page.mark_torn(with_generation(page, 2), 7, 8)
    assert not timeline_page.read(page).marked
    assert control_page.mark_torn(with_generation(page, 3), 7, 8)
    facts = timeline_page.read(page)
    assert (facts.abandoned, facts.pid, facts.since, facts.value) == (True, 7, 8, 3)
    assert not control_page.mark_torn(page, 9, 10)
    timeline_page.mark_repaired(page)
    assert control_page.mark_torn(with_generation(page, 5), 9, 10)
    assert timeline_page.read(page).pid == 9


def test_the_updater_is_beside_what_the_object_manager_writes(page: memoryview) -> None:
    who = control_page.Updater(1 << 40, 2, 3)
    control_page.enter_updater(page, who)
    control_page.mark_torn(with_generation(page, 1), 7, 8)
    assert control_page.updater(page) == who
    assert timeline_page.signalers(page) == []
