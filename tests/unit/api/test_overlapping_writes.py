"""Writing a payload's own bytes to another place of it: they arrive as they were before the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import extmem
from extmem.api import Device, DeviceMemory
from extmem.devices.vulkan import transfers
from extmem.testing import fake_vulkan

SIZE, PART = 4096, 3000
BYTES = bytes(index * 7 % 251 for index in range(SIZE))


@pytest.fixture(params=["host", "vulkan"])
def any_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A device; that of Vulkan is scripted and copies a kilobyte at a time."""
    monkeypatch.setattr(transfers, "_STAGING", 1024)
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind=request.param) as device:
        yield device
    assert not fake.misuses


@pytest.fixture
def memory(any_device: Device, name: str) -> Iterator[DeviceMemory]:
    with any_device.allocate(SIZE, name=name) as made:
        made.write(BYTES)
        yield made


VIEWS: dict[str, Callable[[DeviceMemory], memoryview]] = {
    "map": lambda memory: memory.map(),
    "numpy": lambda memory: memory.numpy().data,
    "read-only": lambda memory: memory.map().toreadonly(),
    "buffer": lambda memory: memory.buffer().map(),
}


@pytest.mark.parametrize("view_type", VIEWS)
def test_bytes_of_the_payload_arrive_as_they_were(memory: DeviceMemory, view_type: str) -> None:
    for start, at in ((0, 500), (500, 0), (0, 0)):
        memory.write(BYTES)
        view = VIEWS[view_type](memory)
        memory.write(view[start : start + PART], offset=at)
        expected = bytearray(BYTES)
        expected[at : at + PART] = BYTES[start : start + PART]
        assert memory.read_bytes() == expected
        del view


def test_bytes_that_another_memory_object_sees(any_device: Device, memory: DeviceMemory, name: str) -> None:
    with any_device.open(name) as other:
        view = other.map()
        memory.write(view[:PART], offset=500)
        assert memory.read_bytes()[500 : 500 + PART] == BYTES[:PART]
        del view


def test_bytes_of_another_payload_are_not_copied_first(
    any_device: Device, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copying takes as much memory as is written, so it is done only where it is necessary."""
    given: list[type] = []
    write = any_device.backend.write
    monkeypatch.setattr(any_device.backend, "write", lambda *args: (given.append(type(args[2].obj)), write(*args)))
    with any_device.allocate(SIZE) as other:
        other.write(BYTES[::-1])
        view, mine = other.map(), memory.map()
        given.clear()
        memory.write(view)
        assert given[0] is not bytes
        memory.write(mine[:PART], offset=500)
        assert given[1] is bytes
        del view, mine
