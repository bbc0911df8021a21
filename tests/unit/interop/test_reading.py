"""`read(out=…)`: what it copies into, in which order the elements are then, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import extmem
from extmem.api import Device
from extmem.interop import reading

SHAPE = (3, 5, 2)
VALUES = numpy.arange(30, dtype="int16").reshape(SHAPE)


@pytest.fixture(params=["C", "F"])
def memory(request: pytest.FixtureRequest, device: Device) -> Iterator[extmem.DeviceMemory]:
    with device.allocate(SHAPE, "int16", order=request.param) as made:
        made.write(VALUES)
        yield made


OUTS: dict[str, Any] = {
    "row-major": lambda: numpy.zeros(SHAPE, "int16"),
    "column-major": lambda: numpy.zeros(SHAPE, "int16", order="F"),
    "a part": lambda: numpy.zeros((6, 5, 4), "int16")[::2, :, 1:3],
    "backwards": lambda: numpy.zeros(SHAPE, "int16")[::-1],
    "a memoryview": lambda: memoryview(numpy.zeros(SHAPE, "int16")),
}


@pytest.mark.parametrize("kind", OUTS)
def test_the_elements_are_those_of_the_payload(kind: str, memory: extmem.DeviceMemory) -> None:
    out = OUTS[kind]()
    assert memory.read(out=out) is out
    assert (numpy.asarray(out) == VALUES).all()


def test_an_array_in_the_order_of_the_payload_is_the_target_itself(memory: extmem.DeviceMemory) -> None:
    described = memory.descriptor.array
    direct = {}
    for kind in ("row-major", "column-major", "a part"):
        out = OUTS[kind]()
        target = reading.target_of(out, memory.descriptor.payload_size, described)
        direct[kind] = target.finish is None and numpy.shares_memory(out, target.octets)
    assert sorted(direct.values()) == [False, False, True] and not direct["a part"]


@pytest.mark.parametrize("make", [bytearray, lambda size: numpy.zeros(size, "uint8")])
def test_bytes_are_those_of_the_whole_payload(make: Any, memory: extmem.DeviceMemory) -> None:
    out = make(memory.descriptor.payload_size)
    assert memory.read(out) is out
    assert bytes(numpy.asarray(out)) == memory.tobytes()


def test_bytes_of_the_other_order(device: Device) -> None:
    with device.allocate((4, 3), ">int32") as memory:
        data = bytes(range(48))
        memory.write(data)
        assert memory.read(numpy.zeros((4, 3), ">i4")).tobytes() == data


def test_the_payload_itself_as_the_target(memory: extmem.DeviceMemory) -> None:
    whole = memory.numpy()
    memory.read(whole)
    assert (whole == VALUES).all()
    del whole


def test_empty_and_scalar_arrays(device: Device) -> None:
    with device.allocate((), "float32") as memory:
        memory.write(numpy.float32(2.5))
        assert memory.read(numpy.zeros((), "float32")) == 2.5
    with device.allocate((0, 3), "float32") as memory:
        assert memory.read(numpy.zeros((0, 3), "float32")).shape == (0, 3)


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "another type": (lambda: numpy.zeros(SHAPE, "float32"), TypeError, "float32 and the payload holds int16"),
    "another byte order": (lambda: numpy.zeros(SHAPE, ">i2"), TypeError, "converts no values"),
    "another shape": (lambda: numpy.zeros((30,), "int16"), ValueError, r"shape \(30,\)"),
    "too few bytes": (lambda: bytearray(7), ValueError, "7 bytes and the payload"),
    "bytes": (lambda: bytes(60), TypeError, "read-only"),
    "a read-only array": (lambda: numpy.broadcast_to(numpy.int16(0), SHAPE), TypeError, "read-only"),
    "a list": (lambda: [0] * 30, TypeError, "no buffer"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str, device: Device) -> None:
    make, error, message = REFUSED[kind]
    with device.allocate(SHAPE, "int16") as memory, pytest.raises(error, match=message):
        memory.read(make())


def test_without_an_array_only_bytes_are_taken(device: Device) -> None:
    with device.allocate(64) as memory:
        memory.write(bytes(range(64)))
        assert memory.read(bytearray(64)) == bytes(range(64))
        if memory.descriptor.array is None:
            with pytest.raises(TypeError, match="describes no array"):
                memory.read(numpy.zeros(16, "float32"))
