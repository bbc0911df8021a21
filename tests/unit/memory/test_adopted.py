"""`extmem.raw` on a device that another binding made: exports, imports, raw handles, chains by address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.memory import Device
from tests.vulkan_bed import SHARES_NOTHING

W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST


@pytest.fixture
def theirs(vulkan_device: Device) -> Iterator[Any]:
    """The other binding's handles; skipped with `vulkan_device` where there is no driver."""
    from tests.unit.memory.foreign import foreign

    with foreign() as made:
        yield made


@pytest.fixture
def adopted(theirs: Any) -> Iterator[Device]:
    with raw.adopt_device(*theirs.numbers, extensions=theirs.extensions, queue_family_index=0) as device:
        yield device


@SHARES_NOTHING
def test_an_adopted_device_shares_with_one_of_our_own(adopted: Device, vulkan_device: Device, name: str) -> None:
    assert adopted.uuid == vulkan_device.uuid
    with adopted.allocate(64, name=name) as memory, vulkan_device.open(name) as opened:
        memory.write(bytes(range(64)))
        assert opened.read().tobytes() == bytes(range(64))
        opened.fill(7)
        assert memory.read().tobytes() == b"\7" * 64
    with vulkan_device.allocate(64, name=name) as memory, adopted.open(name) as opened:
        memory.fill(9)
        assert opened.read().tobytes() == b"\11" * 64


def test_closing_leaves_their_device_alone(theirs: Any, vulkan_device: Device) -> None:
    from tests.unit.memory.foreign import other

    for _ in range(2):
        device = raw.adopt_device(*theirs.numbers, extensions=theirs.extensions, queue_family_index=0)
        device.allocate(64).close()
        device.close()
    other.vkDeviceWaitIdle(theirs.device)


@pytest.mark.linux_only(
    "the broker names what was exported by fd; on Windows the driver does, when memory is allocated"
)
def test_their_memory_is_shared_by_name(theirs: Any, adopted: Device, vulkan_device: Device, name: str) -> None:
    from tests.unit.memory.foreign import number, other

    info = vk.BufferCreateInfo(size=4096, usage=USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(FD))
    with adopted.create_buffer(info) as buffer:
        size = buffer.requirements.size
    export = other.VkExportMemoryAllocateInfo(handleTypes=other.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT)
    theirs_memory = other.vkAllocateMemory(
        theirs.device, other.VkMemoryAllocateInfo(pNext=export, allocationSize=size, memoryTypeIndex=0), None
    )
    try:
        chain = vk.ExportMemoryAllocateInfo(W32, vk.ExportMemoryWin32HandleInfoKHR(None, 0x8000_0001, name))
        memory = raw.adopt_memory(adopted, number(theirs_memory), vk.MemoryAllocateInfo(size, 0, chain))
        with memory, vulkan_device.open(name) as opened:
            assert raw.vk_memory(memory) == number(theirs_memory)
            memory.write(b"hello")  # by a queue of theirs
            assert bytes(opened.read_bytes(0, 5)) == b"hello"
    finally:
        other.vkFreeMemory(theirs.device, theirs_memory, None)


@pytest.mark.linux_only("the payload goes out by fd")
def test_raw_handles_and_chains_go_out(adopted: Device, theirs: Any, vulkan_device: Device) -> None:
    from tests.unit.memory.foreign import number, other

    assert raw.vk_device(adopted) == number(theirs.device)
    with vulkan_device.allocate(4096, handle_types=int(FD)) as source, source.export_handle(FD) as fd:
        # The chain is ours, the call is theirs; the fd is the driver's once the call has succeeded.
        chain = raw.c_struct(vk.ImportMemoryFdInfoKHR(FD, fd))
        info = other.VkMemoryAllocateInfo(
            pNext=other.ffi.cast("void *", chain.address),
            allocationSize=source.allocation_size,
            memoryTypeIndex=source.memory_type_index,
        )
        imported = other.vkAllocateMemory(theirs.device, info, None)
        fd.take()
        source.write(b"through both")
        known = vk.MemoryAllocateInfo(source.allocation_size, source.memory_type_index, vk.ExportMemoryAllocateInfo(FD))
        with raw.adopt_memory(adopted, number(imported), known) as memory:
            assert bytes(memory.read_bytes(0, 12)) == b"through both"
        other.vkFreeMemory(theirs.device, imported, None)


def test_mistakes_are_told(theirs: Any, adopted: Device) -> None:
    instance, physical, device = theirs.numbers
    for handles, what in (
        ((0, physical, device), "VkInstance"),
        ((instance, 0, device), "VkPhysicalDevice"),
        ((instance, physical, 0), "VkDevice"),
    ):
        with pytest.raises(extmem.HandleStateError, match=f"the {what} is null"):
            raw.adopt_device(*handles, extensions=theirs.extensions, queue_family_index=0)
    with pytest.raises(extmem.UnsupportedError, match="needs Vulkan 1.1"):
        raw.adopt_device(*theirs.numbers, extensions=theirs.extensions, queue_family_index=0, api_version=1 << 22)
    with pytest.raises(extmem.HandleStateError, match="VkDeviceMemory is null"):
        raw.adopt_memory(adopted, 0, vk.MemoryAllocateInfo(64, 0))


def test_without_the_extension_nothing_is_shared(theirs: Any, name: str) -> None:
    with raw.adopt_device(*theirs.numbers, extensions=[], queue_family_index=0) as device:
        answer = device.get_physical_device_external_buffer_properties(
            vk.PhysicalDeviceExternalBufferInfo(usage=USAGE, handle_type=FD)
        )
        assert not answer.external_memory_properties.external_memory_features
        with device.allocate(64) as memory:  # of this process alone
            memory.write(b"mine")
            assert bytes(memory.read_bytes(0, 4)) == b"mine"
        with pytest.raises(extmem.UnsupportedError, match="this memory is to be shared"):
            device.allocate(64, name=name)


def test_the_host_device_has_no_vulkan_handles(device: Device) -> None:
    with device.allocate(64) as memory:
        with pytest.raises(extmem.UnsupportedError, match="no VkDeviceMemory"):
            raw.vk_memory(memory)
        with pytest.raises(extmem.UnsupportedError, match="no VkDevice"):
            raw.vk_device(device)
        with pytest.raises(extmem.UnsupportedError, match="could be adopted"):
            raw.adopt_memory(device, 1, vk.MemoryAllocateInfo(64, 0))
