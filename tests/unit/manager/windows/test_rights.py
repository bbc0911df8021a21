"""Rights of shared memory as those of a section: a pure part of the Windows manager, tested on every system."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem import errors
from extmem.manager.windows import rights
from extmem.sharing.kinds import ObjectKind


@pytest.mark.parametrize(
    ("asked", "section"),
    [
        (0x8000_0000, 0x20005),
        (0x8000_0001, 0x20007),
        (0x1000_0000, 0xF0007),
        (0x1, 0x2),
        (0, 0),
        (0x0200_0000, 0x0200_0000),
        (0x1F0001, 0xF0007),
        (0x10000, 0x10000),
    ],
)
def test_rights_of_shared_memory_as_a_sections(asked: int, section: int) -> None:
    assert rights.to_section(rights.asked(asked)) == section


@pytest.mark.parametrize(
    ("section", "memory"),
    [(0x20005, 0x20000), (0x20007, 0x20001), (0xF001F, 0xF0001), (0x4, 0x20000), (0x2, 0x1), (0x1, 0), (0, 0)],
)
def test_a_sections_rights_as_those_of_shared_memory(section: int, memory: int) -> None:
    assert rights.from_section(section) == memory


@given(st.integers(0, 0xFFFF_FFFF).map(lambda mask: mask & 0x000F_0001))
def test_rights_come_back_as_they_were_asked(mask: int) -> None:
    assert rights.from_section(rights.to_section(mask)) == mask


def test_bits_that_shared_memory_has_not_are_refused() -> None:
    with pytest.raises(errors.AccessDeniedError):
        rights.asked(0x2)
    with pytest.raises(errors.InvalidHandleError):
        rights.asked(1 << 32)


@pytest.mark.parametrize(
    ("asked", "timeline", "event"),
    [
        (0x8000_0000, 0x2_0005, 0x12_0000),
        (0x4000_0000, 0x2_0002, 0x2_0002),
        (0x2000_0000, 0x2_0000, 0x2_0000),
        (0x1000_0000, 0xF_0007, 0x1F_0002),
        (0x1, 0x5, 0x10_0000),
        (0x2, 0x2, 0x2),
        (0x3, 0x7, 0x10_0002),
        (0x2_0000, 0x2_0000, 0x2_0000),
        (0, 0, 0),
    ],
)
def test_S23_rights_of_semaphores_as_those_of_kernel_objects(asked: int, timeline: int, event: int) -> None:
    """To wait is to read a timeline's page, or to synchronize with an event; to signal is to change it."""
    mask = rights.asked(asked, ObjectKind.SEMAPHORE)
    assert (rights.TIMELINE.to_kernel(mask), rights.EVENT.to_kernel(mask)) == (timeline, event)


@given(st.integers(0, 0xFFFF_FFFF).map(lambda mask: mask & 0x000F_0003))
def test_rights_of_semaphores_come_back_as_they_were_asked(mask: int) -> None:
    for how in (rights.TIMELINE, rights.EVENT):
        assert how.from_kernel(how.to_kernel(mask)) == mask
        assert not how.to_kernel(mask) & how.references_alone


@pytest.mark.parametrize(
    ("stated", "timeline", "event"),
    [
        (0x8000_0000, 0x8000_0000, 0x8010_0000),
        (0x1000_0000, 0x1000_0000, 0x1010_0000),
        (0x2_0001, 0x2_0005, 0x12_0001),
        (0x2_0003, 0x2_0017, 0x12_0003),
        (0x2000_0000, 0x2000_0000, 0x2_0000),
        (0x12_0000, 0x12_0000, 0x2_0000),
    ],
)
def test_the_masks_of_aces_are_about_semaphores(stated: int, timeline: int, event: int) -> None:
    """Who may wait may synchronize, and nobody else: EXECUTE and SYNCHRONIZE alone are no right to wait."""
    assert (rights.timeline_ace(stated), rights.event_ace(stated)) == (timeline, event)


@pytest.mark.parametrize("mask", [0x4, 0x20_0000, 0x8])
def test_bits_that_semaphores_do_not_have_are_refused(mask: int) -> None:
    with pytest.raises(errors.AccessDeniedError):
        rights.asked(mask, ObjectKind.FENCE)
    assert rights.asked(0x3, ObjectKind.FENCE) == 0x3
