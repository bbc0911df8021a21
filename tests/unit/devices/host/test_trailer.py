"""The frame around a payload's self-description."""

from __future__ import annotations

import pytest

from extmem.devices.host import trailer
from extmem.sharing.limits import DESCRIPTOR_LIMIT


@pytest.mark.parametrize("descriptor", [b"", b"x", b"y" * DESCRIPTOR_LIMIT])
def test_a_frame_returns_what_was_packed(descriptor: bytes) -> None:
    frame = trailer.pack(descriptor)
    assert len(frame) <= trailer.TRAILER_SIZE
    assert trailer.unpack(frame) == (descriptor, "")
    assert trailer.unpack(frame.ljust(trailer.TRAILER_SIZE, b"\0")) == (descriptor, "")


def test_one_byte_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="4081 bytes does not fit; 4080"):
        trailer.pack(bytes(DESCRIPTOR_LIMIT + 1))


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (b"", "0 bytes, less than"),
        (bytes(4096), "does not begin with the mark"),
        (trailer.pack(b"abc")[:8] + b"\xff\xff\xff\xff" + bytes(4084), "claims a descriptor of 4294967295 bytes"),
        (trailer.pack(b"abcdef")[:-2], "claims a descriptor of 6 bytes"),
        (trailer.pack(b"abc")[:-1] + b"d", "checksum"),
    ],
)
def test_a_damaged_frame_reports_why(frame: bytes, problem: str) -> None:
    descriptor, why = trailer.unpack(frame)
    assert descriptor == b""
    assert problem in why
