"""The control page of a channel: a header round trip, and every number that cannot be true."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem.errors import ChannelCorruptError
from extmem.sharing.channel_page import ARRAYS_LIMIT, META_LIMIT, Header, Layout, parse_header

GOOD = Header(
    64, 32, 8, bytes(range(16)), epoch=3, slots=4, arrays_size=9, pid=7, start=1 << 40, namespace=(1 << 64) - 1
)
SIZE = GOOD.layout.size


def test_a_header_is_read_as_it_was_written() -> None:
    assert parse_header(GOOD.pack(), SIZE) == GOOD
    assert parse_header(memoryview(GOOD.pack().ljust(SIZE, b"x")), SIZE + 4096) == GOOD


def test_the_parts_of_a_page_lie_side_by_side_and_are_aligned() -> None:
    for capacity in (1, 3, 64, 1024):
        layout = Layout(capacity)
        assert layout.numbers % 8 == layout.times % 8 == layout.sizes % 4 == layout.table % 4 == 0
        assert layout.times - layout.numbers == layout.sizes - layout.times == 8 * capacity
        assert layout.table - layout.sizes == 4 * capacity
        assert layout.metas - layout.table == 4 * layout.entries == 8 * capacity
        assert layout.arrays - layout.metas == META_LIMIT * capacity
        assert layout.size - layout.arrays == ARRAYS_LIMIT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"capacity": 0}, "room for 0 slots"),
        ({"capacity": 1025}, "room for 1025 slots"),
        ({"slots": 0}, "0 slots, outside 1 to 64"),
        ({"slots": 65}, "65 slots, outside 1 to 64"),
        ({"arrays_size": ARRAYS_LIMIT + 1}, "table of arrays has 65537 bytes"),
        ({"max_readers": 0, "max_reliable": 0}, "allows 0 readers"),
        ({"max_readers": 257}, "allows 257 readers"),
        ({"max_reliable": 33}, "33 of them reliable"),
        ({"epoch": 0}, "epoch is 0, outside 1 to"),
        ({"epoch": (1 << 32) + 1}, "epoch is 4294967297, outside"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(changes: dict[str, int], words: str) -> None:
    wrong = msgspec.structs.replace(GOOD, **changes).pack()
    with pytest.raises(ChannelCorruptError, match=words):
        parse_header(wrong, 10 * SIZE, "'camera'")


@pytest.mark.parametrize(
    ("at", "octets", "words"),
    [(0, b"EXTMCHAM", "begins with"), (8, b"\x02\0\0\0", "version 2")],
)
def test_another_kind_or_version_of_page_is_refused(at: int, octets: bytes, words: str) -> None:
    page = bytearray(GOOD.pack())
    page[at : at + len(octets)] = octets
    with pytest.raises(ChannelCorruptError, match=words):
        parse_header(page, SIZE)


def test_a_file_that_is_too_small_is_refused() -> None:
    with pytest.raises(ChannelCorruptError, match=f"need a page of {SIZE} bytes, and it has {SIZE - 1}"):
        parse_header(GOOD.pack(), SIZE - 1)
    with pytest.raises(ChannelCorruptError, match="255 bytes"):
        parse_header(GOOD.pack()[:255], 255)


@given(st.binary(min_size=256, max_size=256))
def test_any_bytes_are_a_header_inside_its_limits_or_are_refused(octets: bytes) -> None:
    page = GOOD.pack()[:12] + octets[12:]
    try:
        header = parse_header(page, 1 << 20)
    except ChannelCorruptError:
        return
    assert 1 <= header.slots <= header.capacity <= 1024
    assert header.layout.size <= 1 << 20
