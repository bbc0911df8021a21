"""What a reader of a channel says about itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from extmem.sharing import timeline_page
from extmem.sharing.reader_page import CURSOR, HELD, HELD_LIMIT, LOST, Mode, ReaderState, is_reliable, pack, read


def test_a_state_is_read_as_it_was_written() -> None:
    page = memoryview(bytearray(4096))
    pack(page, Mode.EVERY | Mode.RELIABLE, 41, 3)
    words = page.cast("Q")
    words[CURSOR], words[LOST] = 42, 7
    words[HELD], words[HELD + 1] = 42, 1000
    words[HELD + 62], words[HELD + 63] = 40, 900
    assert read(page) == ReaderState(Mode.EVERY | Mode.RELIABLE, 42, 7, 3, ((42, 1000), (40, 900)))


def test_who_is_waited_for() -> None:
    page = memoryview(bytearray(4096))
    for mode in (Mode(0), Mode.EVERY, Mode.EVERY | Mode.RELIABLE):
        pack(page, mode, 41, 3)
        assert is_reliable(page) == (Mode.RELIABLE in mode)


def test_it_does_not_touch_what_timelines_use() -> None:
    page = memoryview(bytearray(4096))
    pack(page, Mode(3), (1 << 64) - 1, 32)
    assert not any(page[: timeline_page.RAISED + 8 * timeline_page.SIGNALERS])
    assert not any(page[2048 : 2048 + 256])  # the id of a page on Windows
    assert HELD + 2 * HELD_LIMIT <= 4096 // 8


@given(st.binary(max_size=300), st.integers(2560, 3104))
def test_any_page_is_read(octets: bytes, at: int) -> None:
    page = bytearray(4096)
    page[at : at + len(octets)] = octets
    found = read(memoryview(page))
    assert len(found.held) <= HELD_LIMIT and found.mode in (0, 1, 2, 3)
