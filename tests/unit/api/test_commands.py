"""`Device.commands()`: fill, copy, clear, and transfers of ownership, on every installed device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from tests.vulkan_bed import SHARES_NOTHING

W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
EXTERNAL = int(vk.QUEUE_FAMILY_EXTERNAL)
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
NOTHING = vk.AccessFlagBits(0)
TRANSFER = vk.PipelineStageFlagBits.TRANSFER
LAYOUT = vk.ImageLayout


@pytest.fixture(params=["host", "vulkan"])
def any_device(request: pytest.FixtureRequest) -> Iterator[Device]:
    try:
        opened = extmem.open_device(kind=request.param)
    except extmem.UnsupportedError as error:
        pytest.skip(f"no Vulkan device here: {error}")
    with opened:
        yield opened


class Bound:
    """A buffer with memory of its own."""

    def __init__(self, device: Device, size: int = 256, *, shared: bool = False) -> None:
        external = vk.ExternalMemoryBufferCreateInfo(W32) if shared else None
        self.buffer = device.create_buffer(vk.BufferCreateInfo(size=size, usage=USAGE, p_next=external))
        needs = self.buffer.requirements
        export = vk.ExportMemoryAllocateInfo(W32) if shared else None
        index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
        self.memory: DeviceMemory = device.allocate_memory(vk.MemoryAllocateInfo(needs.size, index, export))
        device.bind_buffer_memory(self.buffer, self.memory)

    def __enter__(self) -> Bound:
        return self

    def __exit__(self, *_: object) -> None:
        self.buffer.close()
        self.memory.close()

    @property
    def bytes(self) -> bytes:
        return bytes(self.memory.read_bytes(0, self.buffer.size))


def image(device: Device, *, side: int = 8) -> Image:
    return device.create_image(
        vk.ImageCreateInfo(
            image_type=vk.ImageType.TYPE_2D,
            format=vk.Format.R8G8B8A8_UNORM,
            extent=vk.Extent3D(side, side, 1),
            mip_levels=1,
            array_layers=1,
            samples=vk.SampleCountFlagBits.COUNT_1,
            tiling=vk.ImageTiling.OPTIMAL,
            usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
            p_next=vk.ExternalMemoryImageCreateInfo(W32),
        )
    )


def test_commands_run_in_order_and_see_each_other(any_device: Device) -> None:
    with Bound(any_device) as a, Bound(any_device) as b:
        with any_device.commands() as commands:
            commands.fill_buffer(a.buffer, 0x04030201)
            commands.copy_buffer(a.buffer, b.buffer, source_offset=1, target_offset=8, size=3)
            commands.fill_buffer(a.buffer, 0xFFFFFFFF, offset=4, size=4)
        assert a.bytes == bytes([1, 2, 3, 4, 255, 255, 255, 255]) + bytes([1, 2, 3, 4]) * 62
        assert b.bytes[8:11] == bytes([2, 3, 4])


def test_nothing_is_done_after_an_error_in_the_block(any_device: Device) -> None:
    with Bound(any_device) as a:
        with any_device.commands() as commands:
            commands.fill_buffer(a.buffer, 0)
        with pytest.raises(KeyError), any_device.commands() as commands:
            commands.fill_buffer(a.buffer, 0x01010101)
            raise KeyError
        assert a.bytes == bytes(256)
        with any_device.commands() as commands:
            commands.fill_buffer(a.buffer, 0x01010101)
        assert a.bytes == b"\1" * 256


@pytest.mark.parametrize("any_device", ["host", pytest.param("vulkan", marks=SHARES_NOTHING)], indirect=True)
def test_ownership_passes_to_another_device_and_back(any_device: Device) -> None:
    with Bound(any_device, shared=True) as mine, Bound(any_device) as seen:
        handle = mine.memory.export_handle(W32)
        with handle, extmem.open_device(uuid=any_device.uuid) as other:
            theirs = other.create_buffer(mine.buffer.create_info)
            memory = other.allocate_memory(
                vk.MemoryAllocateInfo(
                    mine.memory.allocation_size,
                    mine.memory.memory_type_index,
                    vk.ImportMemoryWin32HandleInfoKHR(W32, handle),
                )
            )
            with theirs, memory:
                other.bind_buffer_memory(theirs, memory)
                with any_device.commands() as commands:
                    commands.fill_buffer(mine.buffer, 0x2A2A2A2A)
                    commands.release(mine.buffer)
                with other.commands() as commands:
                    commands.acquire(theirs)
                    commands.fill_buffer(theirs, 0x07070707, size=4)
                    commands.release(theirs)
                with any_device.commands() as commands:
                    commands.acquire(mine.buffer)
                    commands.copy_buffer(mine.buffer, seen.buffer)
                assert seen.bytes == b"\7" * 4 + b"\x2a" * 252


@SHARES_NOTHING
def test_barriers_are_checked(vulkan_device: Device) -> None:
    def barrier(commands: Any, source: int, target: int, buffer: Buffer) -> None:
        info = vk.BufferMemoryBarrier(NOTHING, NOTHING, source, target, buffer, 0, int(vk.WHOLE_SIZE))
        commands.pipeline_barrier(TRANSFER, TRANSFER, buffer_memory_barriers=[info])

    facts = vulkan_device.backend.queue_facts
    assert facts is not None
    with Bound(vulkan_device, shared=True) as a:
        with vulkan_device.commands() as commands:
            barrier(commands, facts.queue_family, EXTERNAL, a.buffer)
            barrier(commands, EXTERNAL, facts.queue_family, a.buffer)
        with pytest.raises(extmem.RuleViolation) as caught, vulkan_device.commands() as commands:
            barrier(commands, facts.queue_family_count + 5, EXTERNAL, a.buffer)
        assert "VUID-VkBufferMemoryBarrier-buffer-09095" in caught.value.vuids
        assert "VUID-vkCmdPipelineBarrier-srcQueueFamilyIndex-10388" in caught.value.vuids


@SHARES_NOTHING
def test_images_are_cleared_copied_and_passed_on(vulkan_device: Device) -> None:
    texels = 8 * 8 * 4
    with image(vulkan_device) as a, Bound(vulkan_device, texels) as seen:
        needs = a.requirements
        chain = vk.ExportMemoryAllocateInfo(W32, vk.MemoryDedicatedAllocateInfo(a, None))
        with vulkan_device.allocate_memory(vk.MemoryAllocateInfo(needs.size, 0, chain)) as memory:
            vulkan_device.bind_image_memory(a, memory)
            with vulkan_device.commands() as commands:
                commands.change_layout(a, LAYOUT.UNDEFINED, LAYOUT.GENERAL)
                commands.clear_color_image(a, (1.0, 0.0, 0.2, 1.0))
                commands.release(a)
            with memory.export_handle(W32) as handle, vulkan_device.open(handle) as opened:
                other = opened.resource
                assert isinstance(other, Image)
                vulkan_device.bind_image_memory(other, opened)
                with vulkan_device.commands() as commands:
                    commands.acquire(other)
                    commands.copy_image_to_buffer(other, seen.buffer)
                assert seen.bytes == bytes([255, 0, 51, 255]) * 64
                with vulkan_device.commands() as commands:
                    commands.fill_buffer(seen.buffer, 0x01020304)
                    commands.copy_buffer_to_image(seen.buffer, other)
                    commands.fill_buffer(seen.buffer, 0)
                    commands.copy_image_to_buffer(other, seen.buffer)
                assert seen.bytes == bytes([4, 3, 2, 1]) * 64


@SHARES_NOTHING
def test_what_is_dedicated_to_an_image_is_not_read_as_bytes(vulkan_device: Device) -> None:
    with image(vulkan_device) as a:
        chain = vk.ExportMemoryAllocateInfo(W32, vk.MemoryDedicatedAllocateInfo(a, None))
        with vulkan_device.allocate_memory(vk.MemoryAllocateInfo(a.requirements.size, 0, chain)) as memory:
            vulkan_device.bind_image_memory(a, memory)
            with pytest.raises(extmem.UnsupportedError, match="dedicated to an image"):
                memory.read()


def test_the_host_device_refuses_image_commands() -> None:
    with extmem.open_device(kind="host") as device, image(device) as a, Bound(device) as b:
        with device.allocate_memory(vk.MemoryAllocateInfo(a.requirements.size, 0)) as memory:
            device.bind_image_memory(a, memory)
            for command in (
                lambda c: c.clear_color_image(a, (0, 0, 0, 0)),
                lambda c: c.copy_image_to_buffer(a, b.buffer),
                lambda c: c.copy_buffer_to_image(b.buffer, a),
            ):
                with pytest.raises(extmem.UnsupportedError, match="use a Vulkan device"), device.commands() as commands:
                    commands.change_layout(a, LAYOUT.UNDEFINED, LAYOUT.GENERAL)
                    command(commands)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (lambda c, b: c.fill_buffer(b, 0, offset=2), "multiple of 4"),
        (lambda c, b: c.fill_buffer(b, 1 << 32), "32 bits"),
        (lambda c, b: c.fill_buffer(b, 0, size=260), "outside the buffer of 256"),
        (lambda c, b: c.copy_buffer(b, b, source_offset=250, size=8), "outside the buffer of 256"),
        (lambda c, b: c.copy_buffer(b, b, target_offset=-1, size=8), "outside the buffer of 256"),
    ],
)
def test_what_reaches_outside_is_refused(command: Any, words: str, any_device: Device) -> None:
    with Bound(any_device) as a:
        with pytest.raises(ValueError, match=words), any_device.commands() as commands:
            command(commands, a.buffer)


def test_resources_must_be_usable_here(any_device: Device) -> None:
    with Bound(any_device) as a:
        unbound = any_device.create_buffer(vk.BufferCreateInfo(size=64, usage=USAGE))
        with unbound, pytest.raises(extmem.HandleStateError, match="not bound to memory"):
            with any_device.commands() as commands:
                commands.fill_buffer(unbound, 0)
        with pytest.raises(extmem.HandleStateError, match="destroyed"), any_device.commands() as commands:
            commands.copy_buffer(a.buffer, unbound)
        with extmem.open_device(uuid=any_device.uuid) as other:
            with pytest.raises(extmem.HandleStateError, match="of another device"), other.commands() as commands:
                commands.fill_buffer(a.buffer, 0)
        with pytest.raises(TypeError, match="is not a Buffer"), any_device.commands() as commands:
            commands.fill_buffer(a.memory, 0)  # type: ignore[arg-type]  # the mistake under test
        with pytest.raises(TypeError, match="is not an Image"), any_device.commands() as commands:
            commands.clear_color_image(a.buffer, (0, 0, 0, 0))  # type: ignore[arg-type]  # the mistake under test
        late = any_device.commands()
        with pytest.raises(extmem.HandleStateError, match="inside"):
            late.fill_buffer(a.buffer, 0)


def test_layouts_are_tracked_until_the_raw_handle_is_read() -> None:
    """On the host device, where a wrong one does no harm."""
    with extmem.open_device(kind="host") as device, image(device) as a:
        with device.allocate_memory(vk.MemoryAllocateInfo(a.requirements.size, 0)) as memory:
            device.bind_image_memory(a, memory)
            with device.commands() as commands:
                commands.change_layout(a, LAYOUT.UNDEFINED, LAYOUT.GENERAL)
            for old in (LAYOUT.TRANSFER_SRC_OPTIMAL, LAYOUT.TRANSFER_DST_OPTIMAL):
                with pytest.raises(extmem.RuleViolation, match="is in GENERAL"), device.commands() as commands:
                    commands.change_layout(a, old, LAYOUT.GENERAL)
            with pytest.raises(KeyError), device.commands() as commands:
                commands.change_layout(a, LAYOUT.GENERAL, LAYOUT.TRANSFER_DST_OPTIMAL)
                raise KeyError
            with device.commands() as commands:
                commands.change_layout(a, LAYOUT.GENERAL, LAYOUT.TRANSFER_SRC_OPTIMAL)
                commands.change_layout(a, LAYOUT.TRANSFER_SRC_OPTIMAL, LAYOUT.TRANSFER_DST_OPTIMAL)
            assert a.raw == 0
            with device.commands() as commands:
                commands.change_layout(a, LAYOUT.GENERAL, LAYOUT.TRANSFER_SRC_OPTIMAL)


@pytest.mark.parametrize("any_device", ["host", pytest.param("vulkan", marks=SHARES_NOTHING)], indirect=True)
def test_a_buffer_over_memory_outlives_the_object_that_made_it(any_device: Device) -> None:
    """Two memory objects of one payload share the buffer; the open one is the one that it is bound to."""
    name = f"{any_device.kind} buffer over memory"
    with any_device.allocate(64, name=name), extmem.open(name, device=any_device) as first:
        with extmem.open(name, device=any_device) as second:
            buffer = second.buffer()
            assert first.buffer() is buffer
        assert second.closed and not buffer.closed
        with any_device.commands() as commands:
            commands.acquire(first.buffer())
            commands.fill_buffer(first.buffer(), 0x09090909)
            commands.release(first.buffer())
        assert first.tobytes() == b"\t" * 64


def test_a_block_that_two_threads_end_is_submitted_once(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bound(any_device) as one:
        commands = any_device.commands()
        submit, submitted = any_device.backend.submit, []

        def ended_again(record: Any, *others: Any) -> None:
            submitted.append(record)
            commands.__exit__(None, None, None)  # as another thread may, at this moment
            submit(record, *others)

        monkeypatch.setattr(any_device.backend, "submit", ended_again)
        with commands:
            commands.fill_buffer(one.buffer, 0x07070707)
        assert len(submitted) == 1
        assert set(one.memory.read_bytes()) == {7}


def test_two_threads_get_the_same_buffer(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with any_device.allocate(256) as memory:
        create, found = any_device.make_buffer, []
        other = threading.Thread(target=lambda: found.append(memory.buffer()))

        def slow(*arguments: Any) -> Buffer:
            other.start()
            other.join(0.2)  # it does not return before this thread does
            return create(*arguments)

        monkeypatch.setattr(any_device, "make_buffer", slow)
        made = memory.buffer()
        monkeypatch.undo()
        other.join()
        assert found == [made]
