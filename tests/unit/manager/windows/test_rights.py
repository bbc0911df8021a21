"""Rights of shared memory as those of a section: a pure part of the Windows manager, tested on every system."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem import errors
from extmem.manager.windows import rights


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
