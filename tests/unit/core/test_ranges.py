"""vkFlushMappedMemoryRanges and vkInvalidateMappedMemoryRanges, with the specification's structs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device, DeviceMemory
from extmem.testing import fake_vulkan

SIZE = 65_536
VERBS: dict[str, Callable[[Device, list[vk.MappedMemoryRange]], None]] = {
    "flush": Device.flush_mapped_memory_ranges,
    "invalidate": Device.invalidate_mapped_memory_ranges,
}
verbs = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    fake = fake_vulkan.FakeVulkan(gpus=[fake_vulkan.NON_COHERENT])
    with fake_vulkan.installed(fake):
        yield fake
    assert not fake.misuses


@pytest.fixture
def lax(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    """A device with memory that is not coherent."""
    with extmem.open_device(kind="vulkan") as device:
        yield device


@pytest.fixture
def memory(lax: Device) -> Iterator[DeviceMemory]:
    with lax.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)) as memory:
        memory.fill(0)
        yield memory


def area(memory: object, offset: int = 0, size: int = int(vk.WHOLE_SIZE)) -> vk.MappedMemoryRange:
    return vk.MappedMemoryRange(memory, offset, size)


def test_the_device_sees_the_ranges_that_were_flushed_and_no_others(lax: Device, memory: DeviceMemory) -> None:
    view = memory.map()
    view[:] = b"\x01" * SIZE
    lax.flush_mapped_memory_ranges([area(memory, 4096, 4096), area(memory, 32_768)])
    seen = memory.read_bytes()
    assert (seen[4096:8192], seen[32_768:]) == (b"\x01" * 4096, b"\x01" * (SIZE - 32_768))
    assert seen[:4096] == bytes(4096) and seen[8192:32_768] == bytes(32_768 - 8192)
    del view


def test_the_host_sees_the_ranges_that_were_invalidated(lax: Device, memory: DeviceMemory) -> None:
    view = memory.map()
    memory.fill(7)
    assert view[:1] == b"\0", "not yet"
    lax.invalidate_mapped_memory_ranges([area(memory, 0, 4096)])
    assert view[:4096] == b"\x07" * 4096 and view[-1:] == b"\0"
    del view


@verbs
def test_a_range_outside_the_memory_is_refused_before_any_is_done(
    fake: fake_vulkan.FakeVulkan, lax: Device, memory: DeviceMemory, verb: str
) -> None:
    memory.map()
    for offset, size in ((0, SIZE + 1), (SIZE, int(vk.WHOLE_SIZE)), (-1, 4), (SIZE - 4, 8), (0, 0)):
        before = len(fake.calls)
        with pytest.raises(ValueError, match=rf"range 1: {size} bytes from offset {offset} are not within .*{SIZE}"):
            VERBS[verb](lax, [area(memory), area(memory, offset, size)])
        assert len(fake.calls) == before
    VERBS[verb](lax, [area(memory), area(memory, SIZE - 4, 4)])


@verbs
def test_memory_that_is_not_mapped_is_refused(lax: Device, memory: DeviceMemory, verb: str) -> None:
    with pytest.raises(extmem.HandleStateError, match="VUID-VkMappedMemoryRange-memory-00684"):
        VERBS[verb](lax, [area(memory)])
    memory.map()
    VERBS[verb](lax, [area(memory)])


@verbs
def test_memory_of_another_device_is_refused(lax: Device, memory: DeviceMemory, device: Device, verb: str) -> None:
    memory.map()
    with pytest.raises(extmem.HandleStateError, match="belongs to"):
        VERBS[verb](device, [area(memory)])
    with pytest.raises(TypeError, match="pass a DeviceMemory"):
        VERBS[verb](lax, [area(17)])


@verbs
def test_on_the_host_device_there_is_nothing_to_do(device: Device, verb: str) -> None:
    with device.allocate(SIZE) as memory:
        view = memory.map()
        VERBS[verb](device, [area(memory, 16, 16)])
        view[0] = 9
        assert memory.read_bytes(0, 1) == b"\x09"
        del view


@verbs
@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        (lambda memory: [area(memory, offset="1")], "range 0: offset is '1', a str; give a whole number"),  # type: ignore[arg-type]
        (lambda memory: [area(memory), area(memory, size=1.7)], "range 1: size is 1.7, a float; give a whole number"),  # type: ignore[arg-type]
        (lambda memory: [None], "range 0 is None; pass a vk.MappedMemoryRange"),
        (lambda memory: [memory], "range 0 is <DeviceMemory.*; pass a vk.MappedMemoryRange"),
    ],
)
def test_what_is_not_a_range_is_a_type_error(
    lax: Device, memory: DeviceMemory, verb: str, ranges: Callable[[DeviceMemory], list[Any]], words: str
) -> None:
    view = memory.map()
    with pytest.raises(TypeError, match=words):
        VERBS[verb](lax, ranges(memory))
    del view
