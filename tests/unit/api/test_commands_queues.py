"""Commands on queues that support only some: those of a scripted driver with one queue family, which a test names."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

import extmem
from extmem import vk
from extmem.api import Buffer, Device, Image
from extmem.api.commands import Commands
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan import Family

F, L, A, S = vk.Format, vk.ImageLayout, vk.ImageAspectFlagBits, vk.PipelineStageFlagBits
COPYING = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
COPIED = vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST
Queue = vk.QueueFlagBits


@contextlib.contextmanager
def on_queue(flags: int, image_format: int = F.R8G8B8A8_UNORM) -> Iterator[tuple[Device, Buffer, Image]]:
    """A device with only such a queue, a buffer of 512 bytes and an image of 8 × 8 texels in GENERAL."""
    gpu = dataclasses.replace(fake_vulkan.INTEGRATED, families=(Family(int(flags)),))
    fake = fake_vulkan.FakeVulkan([gpu])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device, contextlib.ExitStack() as stack:
        buffer = stack.enter_context(device.create_buffer(vk.BufferCreateInfo(size=512, usage=COPYING)))
        extent = vk.Extent3D(8, 8, 1)
        info = vk.ImageCreateInfo(0, 1, image_format, extent, 1, 1, 1, usage=COPIED)
        image = stack.enter_context(device.create_image(info))
        for made in (buffer, image):
            bits = made.requirements.memory_type_bits
            kind = (bits & -bits).bit_length() - 1
            memory = device.allocate_memory(vk.MemoryAllocateInfo(made.requirements.size, kind))
            stack.callback(memory.close)
            if isinstance(made, Buffer):
                device.bind_buffer_memory(made, memory)
            else:
                device.bind_image_memory(made, memory)
        with device.commands() as commands:
            commands.change_layout(image, L.UNDEFINED, L.GENERAL)
        yield device, buffer, image
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]


def copy_both_ways(commands: Commands, buffer: Buffer, image: Image, offset: int = 0) -> None:
    commands.copy_buffer_to_image(buffer, image, buffer_offset=offset)
    commands.copy_image_to_buffer(image, buffer, buffer_offset=offset)


@pytest.mark.parametrize("flags", [Queue.TRANSFER, Queue.COMPUTE, Queue.GRAPHICS])
def test_every_queue_fills_and_copies(flags: int) -> None:
    with on_queue(flags) as (device, buffer, image), device.commands() as commands:
        commands.fill_buffer(buffer, 0x01020304)
        commands.copy_buffer(buffer, buffer, target_offset=256, size=256)
        copy_both_ways(commands, buffer, image)


def test_clearing_takes_graphics_or_compute() -> None:
    for flags, clears in ((Queue.COMPUTE, True), (Queue.GRAPHICS, True), (Queue.TRANSFER, False)):
        with on_queue(flags) as (device, buffer, image):
            if clears:
                with device.commands() as commands:
                    commands.clear_color_image(image, (1, 0, 0, 1))
                    commands.copy_image_to_buffer(image, buffer)
                continue
            with pytest.raises(extmem.RuleViolation) as caught, device.commands() as commands:
                commands.clear_color_image(image, (1, 0, 0, 1))
            assert caught.value.vuids == ("VUID-vkCmdClearColorImage-commandBuffer-cmdpool",)


def test_depth_takes_graphics() -> None:
    with on_queue(Queue.GRAPHICS, F.D32_SFLOAT) as (device, buffer, image), device.commands() as commands:
        copy_both_ways(commands, buffer, image)
    with on_queue(Queue.COMPUTE, F.D32_SFLOAT) as (device, buffer, image):
        with pytest.raises(extmem.RuleViolation) as caught, device.commands() as commands:
            commands.copy_buffer_to_image(buffer, image)
        assert caught.value.vuids == ("VUID-vkCmdCopyBufferToImage-commandBuffer-07739",)
        with pytest.raises(extmem.RuleViolation) as caught, device.commands() as commands:
            commands.copy_image_to_buffer(image, buffer)
        assert caught.value.vuids == ("VUID-vkCmdCopyImageToBuffer-commandBuffer-10216",)


def test_queues_that_only_copy_move_words() -> None:
    with on_queue(Queue.GRAPHICS, F.R8_UNORM) as (device, buffer, image), device.commands() as commands:
        copy_both_ways(commands, buffer, image, offset=1)
    with on_queue(Queue.TRANSFER, F.R8_UNORM) as (device, buffer, image):
        with device.commands() as commands:
            copy_both_ways(commands, buffer, image, offset=4)
        with pytest.raises(extmem.RuleViolation) as caught, device.commands() as commands:
            commands.copy_buffer_to_image(buffer, image, buffer_offset=1)
        assert caught.value.vuids == ("VUID-vkCmdCopyBufferToImage-commandBuffer-07737",)
        with pytest.raises(extmem.RuleViolation) as caught, device.commands() as commands:
            commands.copy_image_to_buffer(image, buffer, buffer_offset=1)
        assert caught.value.vuids == ("VUID-vkCmdCopyImageToBuffer-commandBuffer-07746",)


def test_stages_are_those_of_the_queue() -> None:
    with on_queue(Queue.TRANSFER) as (device, _, _image):
        with device.commands() as commands:
            commands.pipeline_barrier(S.TRANSFER | S.HOST, S.ALL_COMMANDS)
        for masks, vuid in (
            ((S.FRAGMENT_SHADER, S.TRANSFER), "VUID-vkCmdPipelineBarrier-srcStageMask-06461"),
            ((S.TRANSFER, S.COMPUTE_SHADER), "VUID-vkCmdPipelineBarrier-dstStageMask-06462"),
        ):
            with pytest.raises(extmem.RuleViolation) as caught, device.commands() as commands:
                commands.pipeline_barrier(*masks)
            assert caught.value.vuids == (vuid,)


def test_commands_of_a_lost_device_raise() -> None:
    """And the device can be closed, with everything on it."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        with device.allocate(64) as memory:
            memory.fill(1)
            fake.fail(1, vk.Result.ERROR_DEVICE_LOST, command="vkWaitForFences")
            with pytest.raises(extmem.DriverError, match="the device is lost") as caught:
                memory.fill(2)
            assert caught.value.result == vk.Result.ERROR_DEVICE_LOST


def test_commands_that_do_not_end_raise_and_hold_what_they_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fence that nothing signals: one wait takes its time, the next ones only query it; everything is kept."""
    from extmem.devices.vulkan import submission

    monkeypatch.setattr(submission, "_PATIENCE_S", 0.05)
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        memory = device.allocate(64)
        memory.fill(1)
        moving = device.backend.transfers.submissions  # type: ignore[attr-defined]  # of Vulkan drivers
        moving._patience = 0.05
        signals = moving._commands.vkWaitForFences
        monkeypatch.setattr(moving._commands, "vkWaitForFences", lambda *_: int(vk.Result.TIMEOUT))
        for _ in range(3):
            with pytest.raises(extmem.DriverError, match="do not end"):
                memory.fill(2)
        memory.close()
        with pytest.raises(extmem.DriverError, match="do not end"):
            device.close()
        assert moving in submission._running_submissions and moving._submitted
        monkeypatch.setattr(moving._commands, "vkWaitForFences", signals)
        device.close()
        assert moving not in submission._running_submissions
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    assert not fake.alive()
