"""`extmem.raw` on a device that another binding made: exports, imports, raw handles, chains by address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from tests.vulkan_bed import SHARES_NOTHING

W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST


@pytest.fixture
def theirs(vulkan_device: Device) -> Iterator[Any]:
    """The other binding's handles; skipped with `vulkan_device` where there is no driver."""
    from tests.unit.core.foreign import foreign

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
    from tests.unit.core.foreign import other

    for _ in range(2):
        device = raw.adopt_device(*theirs.numbers, extensions=theirs.extensions, queue_family_index=0)
        device.allocate(64).close()
        device.close()
    other.vkDeviceWaitIdle(theirs.device)


@pytest.mark.linux_only(
    "the broker names what was exported by fd; on Windows the driver does, when memory is allocated"
)
def test_their_memory_is_shared_by_name(theirs: Any, adopted: Device, vulkan_device: Device, name: str) -> None:
    from tests.unit.core.foreign import number, other

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
            memory.write(b"hello")  # by a queue of the other binding
            assert bytes(opened.read_bytes(0, 5)) == b"hello"
    finally:
        other.vkFreeMemory(theirs.device, theirs_memory, None)


@pytest.mark.linux_only("the payload is exported as an fd")
def test_raw_handles_and_chains_go_out(adopted: Device, theirs: Any, vulkan_device: Device) -> None:
    from tests.unit.core.foreign import number, other

    assert raw.vk_device(adopted) == number(theirs.device)
    with vulkan_device.allocate(4096, handle_types=int(FD)) as source, source.export_handle(FD) as fd:
        # The chain is extmem's, the call the other binding's; the fd is the driver's once the call has succeeded.
        chain = raw.c_struct(vk.ImportMemoryFdInfoKHR(FD, fd))
        info = other.VkMemoryAllocateInfo(
            pNext=other.ffi.cast("void *", chain.address),
            allocationSize=source.allocation_size,
            memoryTypeIndex=source.memory_type_index,
        )
        imported = other.vkAllocateMemory(theirs.device, info, None)
        fd.take()
        source.write(b"through both")
        known = vk.MemoryAllocateInfo(source.allocation_size, source.memory_type_index)
        with raw.adopt_memory(adopted, number(imported), known, imported=FD) as memory:
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


def test_queues_are_asked_of_the_physical_device(theirs: Any) -> None:
    """A family or queue that does not exist would end the process at the first submission."""
    families = other_families(theirs)
    for family, index, vuid in (
        (families, 0, "VUID-vkGetDeviceQueue-queueFamilyIndex-00384"),
        (families + 6, 0, "VUID-vkGetDeviceQueue-queueFamilyIndex-00384"),
        (-1, 0, "VUID-vkGetDeviceQueue-queueFamilyIndex-00384"),
        (0, 1 << 16, "VUID-vkGetDeviceQueue-queueIndex-00385"),
        (0, -1, "VUID-vkGetDeviceQueue-queueIndex-00385"),
    ):
        with pytest.raises(extmem.RuleViolation) as caught:
            raw.adopt_device(
                *theirs.numbers, extensions=theirs.extensions, queue_family_index=family, queue_index=index, check="off"
            )
        assert caught.value.vuids == (vuid,)
    with pytest.raises(TypeError, match="integer"):
        raw.adopt_device(*theirs.numbers, extensions=theirs.extensions, queue_family_index=0.0)  # type: ignore[arg-type]
    with raw.adopt_device(*theirs.numbers, extensions=theirs.extensions, queue_family_index=0) as device:
        with device.allocate(4096) as memory:
            memory.fill(3)
            assert set(memory.read_bytes()) == {3}


def other_families(theirs: Any) -> int:
    from tests.unit.core.foreign import other

    return len(other.vkGetPhysicalDeviceQueueFamilyProperties(theirs.physical))


def test_a_physical_device_of_another_instance_is_refused(theirs: Any) -> None:
    instance, physical, device = theirs.numbers
    with pytest.raises(extmem.HandleStateError, match="not a VkPhysicalDevice of this instance"):
        raw.adopt_device(instance, physical + 8, device, extensions=theirs.extensions, queue_family_index=0)


@pytest.mark.parametrize(
    "extensions", ["VK_KHR_external_memory_fd", b"VK_KHR_external_memory_fd", [b"VK_KHR_external_memory_fd"], 7]
)
def test_extensions_are_a_sequence_of_str(theirs: Any, extensions: Any) -> None:
    with pytest.raises(TypeError, match="each"):
        raw.adopt_device(*theirs.numbers, extensions=extensions, queue_family_index=0)
    for right in (theirs.extensions, tuple(theirs.extensions), iter(theirs.extensions)):
        raw.adopt_device(*theirs.numbers, extensions=right, queue_family_index=0).close()


def test_an_extension_that_the_physical_device_lacks_is_refused(theirs: Any, adopted: Device) -> None:
    lacking = {"VK_KHR_external_memory_fd", "VK_KHR_external_memory_win32"} - set(theirs.extensions)
    for name in lacking:
        with pytest.raises(extmem.UnsupportedError, match=name):
            raw.adopt_device(*theirs.numbers, extensions=[*theirs.extensions, name], queue_family_index=0)
    # An extension that is not about sharing may be a layer's.
    names = [*theirs.extensions, "VK_EXT_validation_cache"]
    raw.adopt_device(*theirs.numbers, extensions=names, queue_family_index=0).close()


@pytest.mark.linux_only("the driver's export is measured by fd")
@pytest.mark.parametrize("claimed", [1 << 28, 2, 1])
def test_what_is_adopted_is_measured(theirs: Any, adopted: Device, claimed: int) -> None:
    """claimed: the multiple of the real size that is stated; 1 is true."""
    from tests.unit.core.foreign import number, other

    export = other.VkExportMemoryAllocateInfo(handleTypes=other.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT)
    size = 65_536
    made = other.vkAllocateMemory(
        theirs.device, other.VkMemoryAllocateInfo(pNext=export, allocationSize=size, memoryTypeIndex=0), None
    )
    try:
        info = vk.MemoryAllocateInfo(size * claimed if claimed < 3 else claimed, 0, vk.ExportMemoryAllocateInfo(FD))
        if claimed == 1:
            with raw.adopt_memory(adopted, number(made), info) as memory:
                memory.fill(3)
                assert set(memory.read_bytes()) == {3}
            return
        with pytest.raises(extmem.DescriptorError, match="state its VkMemoryAllocateInfo as it was allocated"):
            raw.adopt_memory(adopted, number(made), info)
    finally:
        other.vkFreeMemory(theirs.device, made, None)


@pytest.mark.linux_only("the driver's export is measured by fd")
def test_a_size_is_exact_and_a_type_is_one(vulkan_device: Device) -> None:
    with vulkan_device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ExportMemoryAllocateInfo(FD))) as memory:
        number = raw.vk_memory(memory)

        def adopt(number: Any, size: int, imported: Any = 0, chain: Any = None) -> None:
            info = vk.MemoryAllocateInfo(size, 0, chain or vk.ExportMemoryAllocateInfo(FD))
            raw.adopt_memory(vulkan_device, number, info, imported=imported).close()

        adopt(number, 4096)
        adopt(number, 4096, FD)
        for size in (64, 4095, 4097, 8192):
            with pytest.raises(extmem.DescriptorError, match=f"{size} bytes"):
                adopt(number, size)
        for odd in ("x", 1.5, None):
            with pytest.raises(TypeError, match="VkDeviceMemory is"):
                adopt(odd, 4096)
        with pytest.raises(ValueError, match="outside of 64 bits"):
            adopt(1 << 70, 4096)
        for kind in (-1, 3, 1 << 20, 1 << 40):
            with pytest.raises(ValueError, match="imported is"):
                adopt(number, 4096, kind)
        with pytest.raises(ValueError, match="give the handle type as imported="):
            adopt(number, 4096, 0, vk.ImportMemoryFdInfoKHR(FD, 5))


def their_buffer(theirs: Any, size: int, usage: int) -> Any:
    from tests.unit.core.foreign import other

    external = other.VkExternalMemoryBufferCreateInfo(handleTypes=other.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT)
    return other.vkCreateBuffer(
        theirs.device,
        other.VkBufferCreateInfo(pNext=external, size=size, usage=usage, sharingMode=0),
        None,
    )


def our_words(size: int, usage: int) -> vk.BufferCreateInfo:
    return vk.BufferCreateInfo(
        size=size, usage=vk.BufferUsageFlagBits(usage), p_next=vk.ExternalMemoryBufferCreateInfo(FD)
    )


@pytest.mark.linux_only("the payload is exported as an fd")
def test_memory_is_dedicated_to_a_buffer_of_theirs(theirs: Any, adopted: Device, vulkan_device: Device) -> None:
    from tests.unit.core.foreign import number, other

    usage, size = int(USAGE), 4096
    made = their_buffer(theirs, size, usage)
    try:
        with raw.adopt_buffer(adopted, number(made), our_words(size, usage)) as buffer:
            assert buffer.raw == number(made) and not buffer.facts.bound
            alone = vk.MemoryDedicatedAllocateInfo(None, buffer, vk.ExportMemoryAllocateInfo(FD))
            with adopted.allocate_memory(vk.MemoryAllocateInfo(buffer.requirements.size, 0, alone)) as memory:
                assert memory.descriptor.dedicated_kind == "buffer"
                adopted.bind_buffer_memory(buffer, memory)
                memory.fill(5)
                with vulkan_device.open(memory.export_handle(FD)) as opened:
                    assert set(opened.read_bytes()) == {5}
                with pytest.raises(extmem.RuleViolation, match="07459"):
                    adopted.bind_buffer_memory(buffer, memory)
        other.vkDestroyBuffer(theirs.device, made, None)  # it was left alone
        made = None
    finally:
        if made is not None:
            other.vkDestroyBuffer(theirs.device, made, None)


@pytest.mark.linux_only("the payload is exported as an fd")
def test_a_resource_that_was_created_otherwise_is_refused(theirs: Any, adopted: Device) -> None:
    from tests.unit.core.foreign import number, other

    made = their_buffer(theirs, 4096, int(USAGE))
    try:
        with pytest.raises(extmem.DescriptorError, match="state its create info as it was created"):
            raw.adopt_buffer(adopted, number(made), our_words(8192, int(USAGE)))
        with raw.adopt_buffer(adopted, number(made), our_words(4096, int(USAGE)), bound=True) as buffer:
            assert buffer.facts.bound
        with pytest.raises(extmem.HandleStateError, match="null"):
            raw.adopt_buffer(adopted, 0, our_words(4096, int(USAGE)))
    finally:
        other.vkDestroyBuffer(theirs.device, made, None)


@pytest.mark.linux_only("the payload is exported as an fd")
def test_an_image_of_theirs_is_published_as_dedicated(theirs: Any, adopted: Device, vulkan_device: Device) -> None:
    """The memory and the image belong to the other binding, which bound them; the opener gets it as dedicated."""
    from tests.unit.core.foreign import number, other

    usage = vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST
    external = other.VkExternalMemoryImageCreateInfo(handleTypes=other.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT)
    theirs_info = other.VkImageCreateInfo(
        pNext=external,
        imageType=other.VK_IMAGE_TYPE_2D,
        format=other.VK_FORMAT_R8G8B8A8_UNORM,
        extent=other.VkExtent3D(32, 32, 1),
        mipLevels=1,
        arrayLayers=1,
        samples=1,
        tiling=other.VK_IMAGE_TILING_OPTIMAL,
        usage=int(usage),
        sharingMode=0,
        initialLayout=0,
    )
    made = other.vkCreateImage(theirs.device, theirs_info, None)
    ours = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(32, 32, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits(1),
        tiling=vk.ImageTiling.OPTIMAL,
        usage=usage,
        p_next=vk.ExternalMemoryImageCreateInfo(FD),
    )
    needs = other.vkGetImageMemoryRequirements(theirs.device, made)
    alone = other.VkMemoryDedicatedAllocateInfo(image=made)
    export = other.VkExportMemoryAllocateInfo(
        pNext=alone, handleTypes=other.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
    )
    memory = other.vkAllocateMemory(
        theirs.device, other.VkMemoryAllocateInfo(pNext=export, allocationSize=needs.size, memoryTypeIndex=0), None
    )
    other.vkBindImageMemory(theirs.device, made, memory, 0)
    try:
        with raw.adopt_image(adopted, number(made), ours, bound=True) as image:
            chain = vk.MemoryDedicatedAllocateInfo(image, None, vk.ExportMemoryAllocateInfo(FD))
            info = vk.MemoryAllocateInfo(int(needs.size), 0, chain)
            with raw.adopt_memory(adopted, number(memory), info) as mine, mine.export_handle(FD) as handle:
                assert mine.descriptor.dedicated_kind == "image"
                with vulkan_device.open(handle) as opened:
                    assert opened.descriptor.dedicated_kind == "image" and opened.resource is not None
            # A number is not ignored: it cannot be determined what it refers to.
            with pytest.raises(TypeError, match=r"extmem\.raw\.adopt_image"):
                chain = vk.MemoryDedicatedAllocateInfo(number(made), None, vk.ExportMemoryAllocateInfo(FD))
                raw.adopt_memory(adopted, number(memory), vk.MemoryAllocateInfo(int(needs.size), 0, chain))
    finally:
        other.vkFreeMemory(theirs.device, memory, None)
        other.vkDestroyImage(theirs.device, made, None)


def test_without_the_extension_nothing_is_shared(theirs: Any, name: str) -> None:
    with raw.adopt_device(*theirs.numbers, extensions=[], queue_family_index=0) as device:
        answer = device.get_physical_device_external_buffer_properties(
            vk.PhysicalDeviceExternalBufferInfo(usage=USAGE, handle_type=FD)
        )
        assert not answer.external_memory_properties.external_memory_features
        with device.allocate(64) as memory:  # of this process alone
            memory.write(b"mine")
            assert bytes(memory.read_bytes(0, 4)) == b"mine"
            for kind in (None, FD, W32):
                with pytest.raises(extmem.UnsupportedError, match="it has no VK_KHR_external_memory_"):
                    memory.export_handle(kind)
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
