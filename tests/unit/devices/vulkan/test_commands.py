"""The barriers that are recorded: between transfers, and around what a program's barriers name."""

from __future__ import annotations

from typing import Any

import pytest

from extmem import vk
from extmem.devices.resources import NativeResource, Requirements
from extmem.devices.vulkan.commands import VulkanRecorder

STAGE, ACCESS, LAYOUT = vk.PipelineStageFlagBits, vk.AccessFlagBits, vk.ImageLayout
TRANSFER = int(STAGE.TRANSFER)
MOVES = int(ACCESS.TRANSFER_READ | ACCESS.TRANSFER_WRITE)
IGNORED = int(vk.QUEUE_FAMILY_IGNORED)


class Noting:
    """Functions of a driver that record their arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def vkCmdFillBuffer(self, buffer: Any, *given: int) -> None:
        self.calls.append(("fill",))

    def vkCmdPipelineBarrier(
        self,
        buffer: Any,
        before: int,
        after: int,
        flags: int,
        m: int,
        memories: Any,
        b: int,
        buffers: Any,
        i: int,
        images: Any,
    ) -> None:
        self.calls.append(
            (
                "barrier",
                before,
                after,
                [(one.srcAccessMask, one.dstAccessMask) for one in memories[0:m]],
                [(one.srcAccessMask, one.dstAccessMask) for one in images[0:i]],
            )
        )


@pytest.fixture
def noting() -> Noting:
    return Noting()


@pytest.fixture
def recorder(noting: Noting) -> VulkanRecorder:
    return VulkanRecorder(noting, 0)  # type: ignore[arg-type]


BUFFER = NativeResource("buffer", Requirements(64, 64, 1), 7, 64)
BETWEEN = ("barrier", TRANSFER, TRANSFER, [(MOVES, MOVES)], [])


def fill(recorder: VulkanRecorder) -> None:
    recorder.fill_buffer(BUFFER, 0, 64, 0)


def test_a_barrier_stands_between_two_transfers(recorder: VulkanRecorder, noting: Noting) -> None:
    for _ in range(3):
        fill(recorder)
    assert noting.calls == [("fill",), BETWEEN, ("fill",), BETWEEN, ("fill",)]


@pytest.mark.parametrize("stages", [(STAGE.TOP_OF_PIPE, STAGE.BOTTOM_OF_PIPE), (STAGE.HOST, STAGE.HOST)])
def test_a_programs_barrier_is_in_order_with_transfers(
    recorder: VulkanRecorder, noting: Noting, stages: tuple[vk.PipelineStageFlagBits, vk.PipelineStageFlagBits]
) -> None:
    """It contains no transfer, and changes a layout: before it and after it are transfers nevertheless."""
    host = int(ACCESS.HOST_READ)
    whole = vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1)
    mine = vk.ImageMemoryBarrier(ACCESS(host), ACCESS(0), LAYOUT.UNDEFINED, LAYOUT.GENERAL, IGNORED, IGNORED, 7, whole)
    fill(recorder)
    recorder.pipeline_barrier(*map(int, stages), [vk.MemoryBarrier(ACCESS(host), ACCESS(host))], [], [mine])
    fill(recorder)
    before, after = (int(stage) | TRANSFER for stage in stages)
    memories, images = [(host, host), (MOVES, MOVES)], [(host | MOVES, MOVES)]
    assert noting.calls == [("fill",), ("barrier", before, after, memories, images), ("fill",)]
    assert int(mine.src_access_mask) == host, "the caller's own is left as it is"


def test_what_the_library_records_itself_is_word_for_word(recorder: VulkanRecorder, noting: Noting) -> None:
    recorder.barrier(int(STAGE.TOP_OF_PIPE), int(STAGE.BOTTOM_OF_PIPE))
    assert noting.calls == [("barrier", int(STAGE.TOP_OF_PIPE), int(STAGE.BOTTOM_OF_PIPE), [], [])]
