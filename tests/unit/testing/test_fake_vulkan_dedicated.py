"""Bytes of memory that is dedicated to a buffer: copied by that buffer if it is bound and allows it, else by the host.

The scripted driver records what a real one need not notice: a buffer that is bound twice, or copied without the usage.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory
from extmem.devices.host import HAS_FDS
from extmem.testing import fake_vulkan
from tests.behaviours.steps import FD, W32

SHARED = FD if HAS_FDS else W32
Usage = vk.BufferUsageFlagBits
TRANSFER = Usage.TRANSFER_SRC | Usage.TRANSFER_DST
UNSEEN, SEEN = 0, 1
"""Memory types of the discrete GPU."""


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses, [str(misuse) for misuse in made.misuses]
    assert not made.alive()


@pytest.fixture
def device(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


def buffer(device: Device, usage: Usage = TRANSFER, size: int = 4096) -> Buffer:
    external = vk.ExternalMemoryBufferCreateInfo(SHARED)
    return device.create_buffer(vk.BufferCreateInfo(size=size, usage=usage, p_next=external))


def memory_of(device: Device, alone: Buffer, kind: int) -> DeviceMemory:
    chain = vk.MemoryDedicatedAllocateInfo(None, alone, vk.ExportMemoryAllocateInfo(SHARED))
    return device.allocate_memory(vk.MemoryAllocateInfo(alone.requirements.size, kind, chain))


def moves(memory: DeviceMemory) -> None:
    memory.fill(3)
    assert set(memory.read_bytes()) == {3}
    memory.write(b"some bytes", offset=5)
    assert bytes(memory.read_bytes(4, 12)) == b"\3some bytes\3"


def test_the_callers_buffer_is_not_bound_behind_its_back(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    with buffer(device) as mine, memory_of(device, mine, SEEN) as memory:
        moves(memory)
        assert "vkBindBufferMemory" not in fake.calls and not mine.facts.bound
        device.bind_buffer_memory(mine, memory)
        submissions = fake.calls.count("vkQueueSubmit")
        moves(memory)
        assert fake.calls.count("vkQueueSubmit") > submissions, "by the buffer, now that it is bound"
        with pytest.raises(extmem.RuleViolation, match="buffer-07459"):
            device.bind_buffer_memory(mine, memory)
        assert fake.calls.count("vkBindBufferMemory") == 2  # the staging buffer's, too


def test_unseen_memory_waits_for_its_buffer(device: Device) -> None:
    with buffer(device) as mine, memory_of(device, mine, UNSEEN) as memory:
        for call in (memory.fill, memory.read_bytes, lambda: memory.write(b"x")):
            with pytest.raises(extmem.UnsupportedError, match=r"bind it first, with Device\.bind_buffer_memory"):
                call()
        device.bind_buffer_memory(mine, memory)
        moves(memory)


@pytest.mark.parametrize(
    ("usage", "reads", "writes"),
    [(Usage.STORAGE_BUFFER, False, False), (Usage.TRANSFER_SRC, True, False), (Usage.TRANSFER_DST, False, True)],
)
def test_a_buffer_without_transfer_usage_is_not_copied(usage: Usage, reads: bool, writes: bool, device: Device) -> None:
    with buffer(device, usage) as mine, memory_of(device, mine, SEEN) as memory:
        device.bind_buffer_memory(mine, memory)
        moves(memory)
    with buffer(device, usage) as mine, memory_of(device, mine, UNSEEN) as memory:
        device.bind_buffer_memory(mine, memory)
        for allowed, name, call in (
            (reads, "TRANSFER_SRC", memory.read_bytes),
            (writes, "TRANSFER_DST", memory.fill),
            (writes, "TRANSFER_DST", lambda: memory.write(b"x")),
        ):
            if allowed:
                call()
                continue
            with pytest.raises(extmem.UnsupportedError, match=f"created without {name}"):
                call()


def test_who_opens_it_elsewhere_copies_it_the_same_way(device: Device) -> None:
    with buffer(device, Usage.STORAGE_BUFFER) as mine, memory_of(device, mine, SEEN) as memory:
        memory.fill(7)
        with memory.export_handle(SHARED) as handle, device.open(handle) as opened:
            assert set(opened.read_bytes()) == {7}
            moves(opened)
    with buffer(device) as mine, memory_of(device, mine, UNSEEN) as memory:
        with memory.export_handle(SHARED) as handle, device.open(handle) as opened:
            moves(opened)  # by a buffer of extmem, which extmem binds
            assert isinstance(opened.resource, Buffer) and not opened.resource.facts.bound
            device.bind_buffer_memory(opened.resource, opened)  # and the program can bind it, once
            with pytest.raises(extmem.RuleViolation, match="07459"):
                device.bind_buffer_memory(opened.resource, opened)
            moves(opened)


def test_what_lies_past_the_buffer_is_not_copied_by_it(device: Device) -> None:
    """Memory is as large as the buffer requires, which may be more than the buffer has."""
    with buffer(device, size=100) as mine, memory_of(device, mine, UNSEEN) as memory:
        device.bind_buffer_memory(mine, memory)
        assert memory.size > 100
        with pytest.raises(extmem.UnsupportedError, match="which has 100 bytes"):
            memory.fill(3)
        memory.write(bytes(100))
        assert not any(memory.read_bytes(0, 100))
    with buffer(device, size=100) as mine, memory_of(device, mine, SEEN) as memory:
        device.bind_buffer_memory(mine, memory)
        moves(memory)


def test_a_destroyed_buffer_copies_nothing(device: Device) -> None:
    for kind in (SEEN, UNSEEN):
        mine = buffer(device)
        with memory_of(device, mine, kind) as memory:
            device.bind_buffer_memory(mine, memory)
            mine.close()
            if kind == SEEN:
                moves(memory)
            else:
                with pytest.raises(extmem.UnsupportedError, match="is destroyed"):
                    memory.fill(3)


def test_memory_that_is_not_coherent_is_flushed() -> None:
    fake = fake_vulkan.FakeVulkan([fake_vulkan.NON_COHERENT])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        with buffer(device) as mine, memory_of(device, mine, 0) as memory:
            memory.fill(3)
            device.bind_buffer_memory(mine, memory)
            assert set(memory.read_bytes()) == {3}
    assert not fake.misuses


@pytest.mark.parametrize("size", [64, 255, 256, 300])
def test_memory_without_room_for_a_buffer_of_its_size_is_moved_by_the_host(device: Device, size: int) -> None:
    """A buffer of 64 bytes requires 256 on this device; memory that is allocated plainly may be smaller."""
    with device.allocate_memory(vk.MemoryAllocateInfo(size, SEEN)) as memory:
        moves(memory)
    with device.allocate_memory(vk.MemoryAllocateInfo(size, UNSEEN)) as unseen:
        if size % 256:
            with pytest.raises(extmem.UnsupportedError, match=f"has {size} bytes, and a buffer of as many takes"):
                unseen.fill(3)
        else:
            moves(unseen)
