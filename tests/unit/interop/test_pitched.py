"""Rows with gaps between them: where the bytes go, and that the gaps stay as they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pytest

import extmem
from extmem.api import Device
from extmem.interop.pitched import Rows, rows_of
from extmem.sharing.elements import element_type
from tests import cuda_bed

INT16 = element_type("int16")


@pytest.fixture(params=["device", "vulkan_device", "cuda"])
def any_device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param != "cuda":
        yield request.getfixturevalue(request.param)
        return
    with cuda_bed.both(), extmem.open_device(kind="cuda") as opened:
        yield opened


@pytest.mark.parametrize(
    ("shape", "strides", "rows"),
    [
        ((3, 4), (8, 2), None),
        ((3, 4), (2, 6), None),
        ((3, 4), (32, 2), Rows(8, 32)),
        ((2, 3, 4), (96, 32, 2), Rows(8, 32)),
        ((2, 3, 4), (64, 8, 2), Rows(24, 64)),
        ((3, 4), (2, 16), Rows(6, 16)),
        ((3, 1), (32, 2), Rows(2, 32)),
        ((), (), None),
        ((1, 1), (64, 64), None),
    ],
)
def test_rows(shape: tuple[int, ...], strides: tuple[int, ...], rows: Rows | None) -> None:
    assert rows_of(shape, strides, INT16) == rows


@pytest.mark.parametrize(
    ("shape", "strides"), [((2, 3, 4), (100, 32, 2)), ((3, 4), (-8, 2)), ((3, 4), (4, 2)), ((3, 4), (0, 2))]
)
def test_what_is_in_no_rows_is_refused(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no rows of equal distance"):
        rows_of(shape, strides, INT16)


@pytest.mark.parametrize("layout", [{"row_pitch": 64}, {"strides": (2, 64, 192)}])
def test_the_gaps_stay_as_they_are(layout: dict[str, object], any_device: Device) -> None:
    data = numpy.arange(3 * 3 * 2, dtype="int16").reshape(3, 3, 2)
    with any_device.allocate(data.shape, "int16", **layout) as memory:  # type: ignore[arg-type]
        memory.fill(0xEE)
        told: list[tuple[int, int]] = []
        memory.write(data, progress=lambda done, whole: told.append((done, whole)))
        assert (memory.read() == data).all() and told == [(data.nbytes, data.nbytes)]
        memory.write(data + 1)
        assert (memory.read() == data + 1).all()
        octets = numpy.frombuffer(memory.read_bytes(), "uint8")
        assert (octets == 0xEE).sum() >= memory.size - data.nbytes, "the gaps"
        assert (memory.read(numpy.zeros(data.shape, "int16")) == data + 1).all()


def test_bytes_with_gaps_between_them_are_written_as_an_array(any_device: Device) -> None:
    data = numpy.arange(5, dtype="uint8")
    with any_device.allocate(5, "uint8", row_pitch=64) as memory:
        memory.write(data)
        assert memory.read().tolist() == memory.read(numpy.zeros(5, "uint8")).tolist() == data.tolist()
        memory.write(bytes(data))  # without an element type: bytes of the payload
        assert memory.read_bytes(0, 5) == bytes(data) and memory.read().tolist() == [0, 1, 2, 3, 4]
    with any_device.allocate(5, "uint8") as memory:
        memory.write(data)
        assert memory.read().tolist() == data.tolist()
