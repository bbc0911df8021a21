"""What was released to another owner is not used before it is acquired again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device, Image
from extmem.testing import fake_vulkan
from tests.unit.api.test_commands import Bound, image

LAYOUT, STAGE = vk.ImageLayout, vk.PipelineStageFlagBits
GENERAL, TARGET, SOURCE = LAYOUT.GENERAL, LAYOUT.TRANSFER_DST_OPTIMAL, LAYOUT.TRANSFER_SRC_OPTIMAL
OLD = "VUID-VkImageMemoryBarrier-oldLayout-01197"


@pytest.fixture
def device() -> Iterator[Device]:
    fake = fake_vulkan.FakeVulkan()
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as opened:
        yield opened


@pytest.fixture
def laid_out(device: Device) -> Iterator[Image]:
    """An image in GENERAL."""
    with image(device) as made:
        needs = made.requirements
        index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
        with device.allocate_memory(vk.MemoryAllocateInfo(needs.size, index)) as memory:
            device.bind_image_memory(made, memory)
            with device.commands() as commands:
                commands.change_layout(made, LAYOUT.UNDEFINED, GENERAL)
            yield made


USES: dict[str, tuple[Callable[[Any, Image, Any, vk.ImageLayout], None], str]] = {
    "clear": (
        lambda c, i, b, layout: c.clear_color_image(i, (0, 0, 0, 0), layout=layout),
        "VUID-vkCmdClearColorImage-imageLayout-00004",
    ),
    "copy to": (
        lambda c, i, b, layout: c.copy_buffer_to_image(b, i, layout=layout),
        "VUID-vkCmdCopyBufferToImage-dstImageLayout-00180",
    ),
    "change": (lambda c, i, b, layout: c.change_layout(i, layout, SOURCE), OLD),
    "release": (lambda c, i, b, layout: c.release(i, old_layout=layout, new_layout=SOURCE), OLD),
}


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("use", USES)
def test_a_released_image_is_acquired_before_it_is_used(device: Device, laid_out: Image, use: str, blocks: int) -> None:
    """In neither of the release's layouts, in the same block or in the next."""
    work, vuid = USES[use]
    with Bound(device) as bound:
        for layout in (GENERAL, TARGET):
            with device.commands() as first:
                first.release(laid_out, old_layout=GENERAL, new_layout=TARGET)
                if blocks == 1:
                    with pytest.raises(extmem.RuleViolation, match="released and not acquired since") as caught:
                        work(first, laid_out, bound.buffer, layout)
            if blocks == 2:
                with pytest.raises(extmem.RuleViolation, match="released and not acquired since") as caught:
                    with device.commands() as second:
                        work(second, laid_out, bound.buffer, layout)
            assert [violation.vuid for violation in caught.value.violations] == [vuid]
            with device.commands() as commands:
                commands.acquire(laid_out, old_layout=TARGET, new_layout=TARGET)
                commands.change_layout(laid_out, TARGET, GENERAL)
        with device.commands() as commands:
            commands.release(laid_out, old_layout=GENERAL, new_layout=TARGET)
            commands.acquire(laid_out, old_layout=TARGET, new_layout=TARGET)
            work(commands, laid_out, bound.buffer, TARGET)


def test_a_programs_own_barrier_releases_and_acquires(device: Device, laid_out: Image) -> None:
    facts = device.backend.queue_facts
    assert facts is not None
    ours, outside = facts.queue_family, int(vk.QUEUE_FAMILY_EXTERNAL)
    whole = vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1)

    def barrier(commands: Any, source: int, target: int) -> None:
        nothing = vk.AccessFlagBits(0)
        mine = vk.ImageMemoryBarrier(nothing, nothing, GENERAL, GENERAL, source, target, laid_out, whole)
        commands.pipeline_barrier(STAGE.TRANSFER, STAGE.TRANSFER, image_memory_barriers=[mine])

    with device.commands() as commands:
        barrier(commands, ours, outside)
        with pytest.raises(extmem.RuleViolation, match="released"):
            commands.clear_color_image(laid_out, (0, 0, 0, 0))
        barrier(commands, outside, ours)
        commands.clear_color_image(laid_out, (0, 0, 0, 0))


def test_contents_that_are_not_needed_need_no_acquire(device: Device, laid_out: Image) -> None:
    with device.commands() as commands:
        commands.release(laid_out)
        commands.change_layout(laid_out, LAYOUT.UNDEFINED, GENERAL)
        commands.clear_color_image(laid_out, (0, 0, 0, 0))


def test_a_release_that_was_not_submitted_did_not_happen(device: Device, laid_out: Image) -> None:
    with pytest.raises(KeyError), device.commands() as commands:
        commands.release(laid_out)
        raise KeyError
    with device.commands() as commands:
        commands.clear_color_image(laid_out, (0, 0, 0, 0))


# Buffers.

READ = "VUID-vkQueueSubmit-pSubmits-02808"


def read_twice(device: Device, laid_out: Image, release: Callable[[Any, Any], None]) -> list[list[str]]:
    """Return the rules that reading a buffer breaks afterwards: in this block, the next, and by copies from it."""
    found = []
    with Bound(device) as bound, Bound(device) as other:
        copies: list[Callable[[Any], None]] = [
            lambda c: c.copy_buffer(bound.buffer, other.buffer),
            lambda c: c.copy_buffer_to_image(bound.buffer, laid_out),
        ]
        for copy in copies:
            with device.commands() as first:
                release(first, bound.buffer)
                found.append(broken(lambda copy=copy, first=first: copy(first)))  # type: ignore[misc]
            with device.commands() as second:
                found.append(broken(lambda copy=copy, second=second: copy(second)))  # type: ignore[misc]
            with device.commands() as third:
                third.acquire(bound.buffer)
                copy(third)
    return found


def broken(record: Callable[[], None]) -> list[str]:
    try:
        record()
    except extmem.RuleViolation as error:
        return [violation.vuid for violation in error.violations]
    return []


def test_a_released_buffer_is_acquired_before_it_is_read(device: Device, laid_out: Image) -> None:
    assert read_twice(device, laid_out, lambda c, buffer: c.release(buffer)) == [[READ]] * 4


def test_a_buffer_that_is_written_to_is_read_again(device: Device, laid_out: Image) -> None:
    """Its former contents are not needed, so no owner must release them."""

    def release_and_fill(commands: Any, buffer: Any) -> None:
        commands.release(buffer)
        commands.fill_buffer(buffer, 1)

    assert read_twice(device, laid_out, release_and_fill) == [[]] * 4


def test_a_buffer_whose_raw_handle_was_read_may_be_acquired_elsewhere(device: Device, laid_out: Image) -> None:
    def release_and_tell(commands: Any, buffer: Any) -> None:
        commands.release(buffer)
        assert buffer.raw

    assert read_twice(device, laid_out, release_and_tell)[1::2] == [[], []]
