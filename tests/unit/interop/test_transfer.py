"""`progress=` of long copies: what it is told, and what an exception of it leaves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pytest

import extmem
from extmem.api import Device
from extmem.interop import transfer

SIZE, PIECE = 10_000, 4096
DATA = numpy.random.default_rng(1).integers(0, 256, SIZE, "uint8")


@pytest.fixture(params=["device", "vulkan_device"])
def any_device(request: pytest.FixtureRequest) -> Device:
    device: Device = request.getfixturevalue(request.param)
    return device


@pytest.fixture
def memory(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[extmem.DeviceMemory]:
    monkeypatch.setattr(transfer, "_PIECE", PIECE)
    with any_device.allocate(SIZE, "uint8") as made:
        yield made


def test_each_piece_is_reported_and_the_end(memory: extmem.DeviceMemory) -> None:
    told: list[tuple[int, int]] = []
    memory.write(DATA, progress=lambda done, whole: told.append((done, whole)))
    assert told == [(4096, SIZE), (8192, SIZE), (SIZE, SIZE)]
    assert (memory.read(progress=lambda done, whole: told.append((done, whole))) == DATA).all()
    out = numpy.zeros(SIZE, "uint8")
    memory.read(out, progress=lambda done, whole: told.append((done, whole)))
    assert told == 3 * told[:3] and (out == DATA).all()
    memory.write(DATA[:100].tobytes(), offset=5000, progress=lambda done, whole: told.append((done, whole)))
    assert told[-1] == (100, 100)


def test_an_exception_ends_the_copy_after_what_was_reported(memory: extmem.DeviceMemory) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, whole: int) -> None:
        if done > PIECE:
            raise Enough

    memory.fill(0)
    with pytest.raises(Enough):
        memory.write(DATA, progress=stop)
    found = memory.read()
    assert (found[:8192] == DATA[:8192]).all() and not found[8192:].any()
    out = numpy.zeros(SIZE, "uint8")
    memory.write(DATA)
    with pytest.raises(Enough):
        memory.read(out, progress=stop)
    assert (out[:8192] == DATA[:8192]).all() and not out[8192:].any()


def test_progress_may_use_the_memory(memory: extmem.DeviceMemory) -> None:
    seen: list[int] = []
    memory.write(DATA, progress=lambda done, whole: seen.append(memory.read_bytes(done - 1, 1)[0]))
    assert seen == [DATA[4095], DATA[8191], DATA[-1]]


def test_what_cannot_be_called_is_refused(memory: extmem.DeviceMemory) -> None:
    memory.fill(0)
    with pytest.raises(TypeError, match="give a function"):
        memory.write(DATA, progress=3)  # type: ignore[arg-type]
    assert not memory.read().any(), "nothing was copied"
