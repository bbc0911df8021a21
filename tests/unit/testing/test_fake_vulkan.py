"""The fake driver itself: it moves bytes, counts, follows its script, and records every misuse that it can find."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.host import HAS_FDS
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer
from extmem.testing.fake_vulkan.gpus import from_plain, to_plain
from extmem.vk.abi import ffi, to_c
from tests.behaviours.steps import FD, SIZE, W32, export, fd

_S = vk.StructureType
_Layout = vk.ImageLayout
_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
EXTERNAL, OURS = int(vk.QUEUE_FAMILY_EXTERNAL), 0
SHARED = int(FD if HAS_FDS else W32)


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([fake_vulkan.NON_COHERENT])
    with fake_vulkan.installed(made):
        yield made


@pytest.fixture
def device(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


def backend_of(device: Device) -> VulkanBackend:
    assert isinstance(device.backend, VulkanBackend)
    return device.backend


def problems(fake: fake_vulkan.FakeVulkan) -> list[str]:
    """Return the misuses so far, and clear them."""
    found = [str(misuse) for misuse in fake.misuses]
    fake.misuses.clear()
    return found


# Counters.


def test_counters_say_what_lives(fake: fake_vulkan.FakeVulkan) -> None:
    assert not fake.alive()
    with extmem.open_device(kind="vulkan") as device:
        assert fake.alive() == {"instances": 1, "devices": 1}
        with device.create_buffer(vk.BufferCreateInfo(size=100, usage=_USAGE)) as buffer:
            assert buffer.requirements.size == 256
            with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)):
                assert fake.alive() == {
                    "instances": 1,
                    "devices": 1,
                    "buffers": 1,
                    "memory": 1,
                    "bytes of device memory": SIZE,
                }
        assert fake.alive() == {"instances": 1, "devices": 1}
    assert fake.alive() == {"instances": 1} and not fake.misuses


def test_new_memory_is_garbage_and_high_level_memory_is_not(device: Device) -> None:
    with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)) as memory, device.allocate(SIZE) as high_level:
        assert memory.read()[0] == memory.read()[-1] == 0xCD
        assert not high_level.read().any()


@pytest.mark.linux_only("the fake driver's fds are memory files")
def test_each_export_is_a_new_fd_of_the_same_file(device: Device) -> None:
    with export(device, types=FD) as memory, fd(device, memory) as a, fd(device, memory) as b:
        assert int(a) != int(b) and os.path.sameopenfile(int(a), int(b))
        assert fake_vulkan.PAYLOAD_NAME in os.readlink(f"/proc/self/fd/{int(a)}")


def test_heaps_and_counts_have_an_end(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    half = vk.MemoryAllocateInfo(fake_vulkan.NON_COHERENT.heaps[0] // 2, 0)
    with device.allocate_memory(half), device.allocate_memory(half):
        with pytest.raises(extmem.OutOfMemoryError, match="OUT_OF_DEVICE_MEMORY"):
            export(device)
    export(device).close()


# The script.


def test_the_script_fails_the_nth_call_of_a_command_and_no_other(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    fake.fail(2, vk.Result.ERROR_TOO_MANY_OBJECTS, command="vkAllocateMemory")
    export(device).close()
    with pytest.raises(extmem.OutOfMemoryError, match="vkAllocateMemory .*TOO_MANY_OBJECTS"):
        export(device)
    export(device).close()


def test_the_script_fails_the_nth_call_of_all(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    start = len(fake.calls)
    export(device).close()
    fallible = [name for name in fake.calls[start:] if name in ("vkAllocateMemory", "vkGetMemoryFdKHR")]
    for at in range(1, len(fallible) + 1):
        fake.fail(at)
        with pytest.raises(extmem.OutOfMemoryError, match=fallible[at - 1]):
            export(device)
    export(device).close()


def test_a_lost_device_stays_lost_and_others_do_not(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    with extmem.open_device(kind="vulkan") as other:
        fake.fail(1, vk.Result.ERROR_DEVICE_LOST)
        for _ in range(2):
            with pytest.raises(extmem.DriverError, match="DEVICE_LOST"):
                export(device)
        export(other).close()


# Misuse. The tests above are the twins: they do the same without a misuse.


def _twice_freed(backend: VulkanBackend) -> None:
    memory = backend.allocate(SIZE, 0, b"")
    raw = memory.raw
    memory.close()
    backend.device.commands.vkFreeMemory(backend.device.handle, raw, ffi.NULL)


def _of_another_device(backend: VulkanBackend) -> None:
    other = VulkanBackend(backend.device.physical)
    memory = other.allocate(SIZE, 0, b"")
    backend.device.commands.vkFreeMemory(backend.device.handle, memory.raw, ffi.NULL)
    memory.close()
    other.close()


def _left_behind(backend: VulkanBackend) -> None:
    other = VulkanBackend(backend.device.physical)
    memory = other.allocate(SIZE, 0, b"")
    other.device.commands.vkDestroyDevice(other.device.handle, ffi.NULL)
    memory.close()  # what it is on has ended: this is one misuse more
    other.close()  # and so is this


def _not_acquired(backend: VulkanBackend) -> None:
    memory = backend.allocate(SIZE, 0, b"", handle_types=SHARED)
    backend.fill(memory, 0, SIZE, 1)
    memory.owner = "here"  # which is wrong: it was released after the fill
    backend.fill(memory, 0, SIZE, 2)
    memory.close()


def _bound_past_the_end(backend: VulkanBackend) -> None:
    memory = backend.allocate(SIZE, 0, b"")
    buffer = backend.create_buffer(vk.BufferCreateInfo(size=2 * SIZE, usage=_USAGE))
    assert backend.device.commands.vkBindBufferMemory(backend.device.handle, buffer.raw, memory.raw, 0)
    buffer.destroy()
    memory.close()


def _bound_twice(backend: VulkanBackend) -> None:
    memory = backend.allocate(SIZE, 0, b"")
    buffer = backend.create_buffer(vk.BufferCreateInfo(size=SIZE, usage=_USAGE))
    backend.bind(memory, 0, buffer)
    with contextlib.suppress(extmem.DriverError):
        backend.bind(memory, 0, buffer)
    buffer.destroy()
    memory.close()


def _misaligned_range(backend: VulkanBackend) -> None:
    memory = backend.allocate(SIZE, 0, b"")
    memory.map()
    area = ffi.new("VkMappedMemoryRange *", (int(_S.MAPPED_MEMORY_RANGE), ffi.NULL, memory.raw, 3, 100))
    backend.device.commands.vkFlushMappedMemoryRanges(backend.device.handle, 1, area)
    memory.close()


def _other_family(backend: VulkanBackend) -> None:
    memory = backend.allocate(SIZE, 0, b"")
    with contextlib.suppress(extmem.DriverError):
        backend.transfers.submissions.run(
            lambda c: _barrier(backend, c.buffer, backend.transfers.buffers.buffer_of(memory).raw, OURS, EXTERNAL), []
        )
    memory.close()


def _barrier(backend: VulkanBackend, commands: Any, buffer: int, source: int, target: int) -> None:
    barrier = ffi.new("VkBufferMemoryBarrier *")
    barrier.sType, barrier.buffer, barrier.size = int(_S.BUFFER_MEMORY_BARRIER), buffer, int(vk.WHOLE_SIZE)
    barrier.srcQueueFamilyIndex, barrier.dstQueueFamilyIndex = source, target
    backend.device.commands.vkCmdPipelineBarrier(commands, 1, 1, 0, 0, ffi.NULL, 1, barrier, 0, ffi.NULL)


def _not_exported(backend: VulkanBackend) -> None:
    memory = backend.allocate(SIZE, 0, b"")
    with contextlib.suppress(extmem.DriverError):
        backend.memories.get_handle(memory.live, SHARED)
    memory.close()


MISUSES: dict[str, tuple[Callable[[VulkanBackend], None], str]] = {
    "freed twice": (_twice_freed, "that was destroyed"),
    "of another device": (_of_another_device, "belongs to Device"),
    "left behind": (_left_behind, "is destroyed while Memory .* live"),
    "not acquired": (_not_acquired, "it was not acquired"),
    "bound past the end": (_bound_past_the_end, f"is bound at 0 of {SIZE}"),
    "bound twice": (_bound_twice, "is bound twice"),
    "a misaligned range": (_misaligned_range, "not a multiple of"),
    "released to others, but not shared": (_other_family, "is not shared"),
    "exported, not made for that": (_not_exported, "was not made to be exported"),
}


@pytest.mark.parametrize("kind", MISUSES)
def test_misuse_is_seen(kind: str, fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    run, words = MISUSES[kind]
    run(backend_of(device))
    found = problems(fake)
    assert found
    with pytest.raises(AssertionError, match=words):
        raise AssertionError("\n".join(found))
    # And what is right still works.
    with device.allocate(SIZE) as memory:
        memory.fill(4)
        assert memory.read()[0] == 4
    assert not problems(fake)


def test_a_wait_that_fails_leaves_nothing_running(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    """What was submitted is waited for before anything that it uses is changed; the payload's owner stays known."""
    with export(device) as memory:
        memory.fill(1)
        for times in (1, 3, 4, 9):
            for at in range(1, times + 1):
                fake.fail(at, command="vkWaitForFences")
            with contextlib.suppress(extmem.OutOfMemoryError):
                memory.fill(2)
            with contextlib.suppress(extmem.OutOfMemoryError):
                memory.fill(3)
            with contextlib.suppress(extmem.OutOfMemoryError):
                memory.fill(3)
            assert memory.read()[0] == 3
    assert not problems(fake)


# Images.


def _transition(backend: VulkanBackend, commands: Any, image: int, old: int, new: int) -> None:
    barrier = ffi.new("VkImageMemoryBarrier *")
    barrier.sType, barrier.image = int(_S.IMAGE_MEMORY_BARRIER), image
    barrier.oldLayout, barrier.newLayout = old, new
    barrier.srcQueueFamilyIndex = barrier.dstQueueFamilyIndex = 0xFFFF_FFFF
    barrier.subresourceRange = (int(vk.ImageAspectFlagBits.COLOR), 0, 1, 0, 1)
    backend.device.commands.vkCmdPipelineBarrier(commands, 1, 1, 0, 0, ffi.NULL, 0, ffi.NULL, 1, barrier)


@pytest.mark.parametrize("tiling", [vk.ImageTiling.LINEAR, vk.ImageTiling.OPTIMAL])
def test_an_image_is_cleared_and_copied_out(
    tiling: vk.ImageTiling, fake: fake_vulkan.FakeVulkan, device: Device
) -> None:
    backend = backend_of(device)
    wide, high = 5, 3
    info = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.B8G8R8A8_UNORM,
        extent=vk.Extent3D(wide, high, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=tiling,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
    )
    source, target = int(_Layout.TRANSFER_DST_OPTIMAL), int(_Layout.TRANSFER_SRC_OPTIMAL)
    with device.create_image(info) as image, device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)) as out:
        with device.allocate_memory(vk.MemoryAllocateInfo(image.requirements.size, 0)) as memory:
            device.bind_image_memory(image, memory)
            allocation: Any = out.record.allocation  # the Vulkan device's own
            buffer = backend.transfers.buffers.buffer_of(allocation).raw
            color = ffi.new("VkClearColorValue *", {"float32": [1.0, 0.5, 0.0, 1.0]})
            area = ffi.new("VkImageSubresourceRange *", (int(vk.ImageAspectFlagBits.COLOR), 0, 1, 0, 1))
            region = ffi.new("VkBufferImageCopy *")
            region.imageSubresource = (int(vk.ImageAspectFlagBits.COLOR), 0, 0, 1)
            region.imageExtent = (wide, high, 1)

            def record(recorder: Any) -> None:
                commands = recorder.buffer
                _transition(backend, commands, image.raw, 0, source)
                backend.device.commands.vkCmdClearColorImage(commands, image.raw, source, color, 1, area)
                _transition(backend, commands, image.raw, source, target)
                backend.device.commands.vkCmdCopyImageToBuffer(commands, image.raw, target, buffer, 1, region)

            backend.transfers.submissions.run(record, [])
            assert bytes(out.read()[: wide * high * 4]) == bytes([0, 128, 255, 255]) * (wide * high)
            assert not problems(fake)
            wrong = int(_Layout.TRANSFER_DST_OPTIMAL)
            backend.transfers.submissions.run(
                lambda c: backend.device.commands.vkCmdCopyImageToBuffer(c.buffer, image.raw, wrong, buffer, 1, region),
                [],
            )
            assert any("is used in layout" in problem for problem in problems(fake))


# Other processes.


def test_a_gpu_travels_as_text() -> None:
    for gpu in (fake_vulkan.DISCRETE, fake_vulkan.INTEGRATED, fake_vulkan.NON_COHERENT):
        assert from_plain(eval(repr(to_plain(gpu)))) == gpu


def test_misuse_in_another_process_ends_it_with_a_number(fake: fake_vulkan.FakeVulkan) -> None:
    for raw, code in ((0, 0), (16, fake_vulkan.EXIT_MISUSE)):
        with Peer() as peer:
            peer(f"device = {fake_vulkan.elsewhere(fake)}")
            assert peer("device.name") == fake_vulkan.NON_COHERENT.name
            peer(
                f"from extmem.vk.abi import ffi\nd = device.backend.device\n"
                f"d.commands.vkFreeMemory(d.handle, {raw}, ffi.NULL)"
            )
            peer("device.close()")
            peer.connection.close()
            assert peer.wait(expect=None) == code


def test_what_was_there_before_comes_back() -> None:
    here = [who.device_uuid for who in extmem.enumerate_devices()]
    with fake_vulkan.installed(fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])):
        assert fake_vulkan.DISCRETE.device_uuid in [who.device_uuid for who in extmem.enumerate_devices()]
    assert [who.device_uuid for who in extmem.enumerate_devices()] == here


def test_struct_memory_is_read_and_not_kept(device: Device) -> None:
    """What the caller does with its structs afterwards has no effect."""
    backend = backend_of(device)
    asked = to_c(vk.BufferCreateInfo(size=64, usage=_USAGE))
    made = ffi.new("uint64_t *")
    assert not backend.device.commands.vkCreateBuffer(backend.device.handle, asked.cdata, ffi.NULL, made)
    ffi.memmove(asked.cdata, b"\xff" * ffi.sizeof("VkBufferCreateInfo"), ffi.sizeof("VkBufferCreateInfo"))
    backend.device.commands.vkDestroyBuffer(backend.device.handle, made[0], ffi.NULL)
