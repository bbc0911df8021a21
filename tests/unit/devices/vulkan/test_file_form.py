"""What files of a driver have in common besides the payload, and that a file with anything else is found."""

from __future__ import annotations

import struct

import pytest

from extmem.devices.vulkan.file_form import Form, Sample, learn

FIRST, LAST = b"first bytes here", b"and the last one"
_HEADER = struct.Struct("<QQ16sQ")


def file(
    size: int, *, offset: int = 64, tail: bytes = b"", page: int = 1, changes: tuple[tuple[int, bytes], ...] = ()
) -> bytes:
    """A driver's file: its length, where the payload begins, its name and the payload's size; then the payload."""
    whole = -(-size // page) * page
    header = _HEADER.pack(offset + whole + len(tail), offset, b"some driver 1.23", size).ljust(offset, b"\0")
    made = bytearray(header + FIRST.ljust(size - len(LAST), b"p") + LAST + bytes(whole - size) + tail)
    for at, data in changes:
        made[at : at + len(data)] = data
    return bytes(made)


def sample(size: int, **more: int | bytes) -> Sample:
    return Sample(size, file(size, **more), FIRST, LAST)  # type: ignore[arg-type]  # as `file` takes them


def learned(**more: int | bytes) -> Form:
    form = learn([sample(4096, **more), sample(5000, **more)])
    assert form is not None
    return form


def problem(form: Form, content: bytes, size: int) -> str:
    tail = content[len(content) - form.tail.size :] if form.tail.size else b""
    return form.problem(content[: form.head.size], tail, len(content), size)


@pytest.mark.parametrize(
    "more", [{}, {"page": 4096}, {"offset": 4096}, {"tail": b"the end." * 3}, {"tail": b"end" * 5}]
)
@pytest.mark.parametrize("size", [32, 100, 4095, 4096, 4097, 70_001])
def test_every_file_of_the_driver_has_its_form(more: dict[str, int | bytes], size: int) -> None:
    assert problem(learned(**more), sample(size, **more).content, size) == ""


@pytest.mark.parametrize("at", [0, 7, 8, 9, 16, 31, 32, 40, 63])
@pytest.mark.parametrize("data", [b"\x99", b"\x99" * 8])
def test_any_byte_before_the_payload_is_looked_at(at: int, data: bytes) -> None:
    form = learned()
    content = bytearray(file(1000))
    content[at : at + len(data)] = data
    assert "which is not the payload's, differs from the driver's own" in problem(form, bytes(content), 1000)


@pytest.mark.parametrize("at", [-1, -8, -24])
def test_any_byte_behind_the_payload_is_looked_at_where_the_driver_writes_there(at: int) -> None:
    tail = b"the end." * 3
    content = bytearray(file(1000, tail=tail))
    assert problem(learned(tail=tail), bytes(content), 1000) == ""
    content[at] ^= 0xFF
    assert f"byte {len(content) + at}, which is not the payload's" in problem(learned(tail=tail), bytes(content), 1000)


def test_what_rounds_a_size_up_may_contain_anything() -> None:
    form, content = learned(page=4096), bytearray(file(5000, page=4096))
    content[-1] = 7
    assert form.tail.size == 0 and problem(form, bytes(content), 5000) == ""


def test_the_payload_may_be_anything() -> None:
    content = bytearray(file(1000))
    content[64:1064] = bytes(range(250)) * 4
    assert problem(learned(), bytes(content), 1000) == ""


def test_a_length_that_is_another_is_found_and_a_file_that_is_too_short() -> None:
    form = learned()
    assert "byte 0" in problem(form, file(1000, changes=((0, (1 << 40).to_bytes(8, "little")),)), 1000)
    assert "byte 32" in problem(form, file(1000, changes=((32, (1 << 40).to_bytes(8, "little")),)), 1000)
    assert "a file of 1064 bytes, and a payload of 1001 bytes takes 1065" in problem(form, file(1000), 1001)


def test_what_differs_from_file_to_file_is_left_alone() -> None:
    first = Sample(4096, file(4096, changes=((48, b"12345678"),)), FIRST, LAST)
    second = Sample(5000, file(5000, changes=((48, b"87654321"),)), FIRST, LAST)
    form = learn([first, second])
    assert form is not None
    assert problem(form, file(1000, changes=((48, b"anything"),)), 1000) == ""
    assert problem(form, file(1000, changes=((56, b"anything"),)), 1000) != ""


def test_a_payload_that_does_not_lie_at_one_place_has_no_form() -> None:
    assert learn([sample(4096), sample(5000, offset=128)]) is None
    scattered = Sample(5000, file(5000)[:-1] + b"x", FIRST, LAST)
    assert learn([sample(4096), scattered]) is None
    assert learn([Sample(4096, b"", FIRST, LAST), sample(5000)]) is None
    assert learn([sample(4096), sample(5000)]) is not None
