"""The frame of a description in a section: a pure part of the Windows manager, tested on every system."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem.manager.windows.section_frame import FRAME, Description, pack, unpack

_DESCRIPTION = Description(7, 1, False, r"\Sessions\1\BaseNamedObjects\Camera", b"descriptor")


def test_a_description_comes_back_from_its_frame() -> None:
    assert unpack(pack(_DESCRIPTION)) == _DESCRIPTION
    assert unpack(pack(_DESCRIPTION).ljust(FRAME, b"\0")) == _DESCRIPTION


def test_the_largest_description_fits() -> None:
    largest = Description(2**62, 255, True, "😀" * 300, b"\xff" * 4096)
    assert unpack(pack(largest)) == largest
    with pytest.raises(ValueError, match="does not fit"):
        pack(Description(1, 1, False, "x", b"\0" * FRAME))


@given(st.binary(max_size=200), st.integers(0, 120))
def test_a_damaged_frame_is_no_description_and_no_error(noise: bytes, at: int) -> None:
    frame = bytearray(pack(_DESCRIPTION))
    frame[at : at + len(noise)] = noise
    found = unpack(bytes(frame))
    assert found is None or found == _DESCRIPTION


def test_a_description_without_a_kind_is_of_memory() -> None:
    """What was written before semaphores existed is read as it was meant."""
    old = Description(1, 1, False, "", b"")
    assert (old.kind, old.pages) == (1, ())
    new = Description(7, 3, False, "", b"x", kind=3, pages=("\\BaseNamedObjects\\extmem.page.00",))
    assert unpack(pack(new)) == new
