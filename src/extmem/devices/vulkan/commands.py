"""Commands on the Vulkan device: the `Recorder` of a VkCommandBuffer.

How this works. A memory barrier is recorded between two transfers, so that each sees what the ones before wrote:
programs that move payloads are short, and a missing barrier costs more than one too many. A barrier of the program may
write too, if it changes a layout. So it is extended to cover transfers on both sides, and replaces the library's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.vk.abi import ffi, to_c

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import ImageRegion
    from extmem.vk.loader import Commands

__all__ = ["VulkanRecorder"]

_Access = vk.AccessFlagBits
_TRANSFER = int(vk.PipelineStageFlagBits.TRANSFER)
_MOVES = int(_Access.TRANSFER_READ | _Access.TRANSFER_WRITE)
_COLOR = int(vk.ImageAspectFlagBits.COLOR)
_ALL = 0xFFFF_FFFF
"""VK_REMAINING_MIP_LEVELS, VK_REMAINING_ARRAY_LAYERS."""


class VulkanRecorder:
    """Records into a command buffer that has been begun."""

    def __init__(self, commands: Commands, buffer: Any) -> None:
        self._vulkan = commands
        self.buffer = buffer
        """VkCommandBuffer."""
        self._moved = False

    def fill_buffer(self, buffer: NativeResource, offset: int, size: int, word: int) -> None:
        self._in_order()
        self._vulkan.vkCmdFillBuffer(self.buffer, buffer.live, offset, size, word)

    def copy_buffer(self, source: NativeResource, start: int, target: NativeResource, at: int, size: int) -> None:
        self._in_order()
        region = ffi.new("VkBufferCopy *", (start, at, size))
        self._vulkan.vkCmdCopyBuffer(self.buffer, source.live, target.live, 1, region)

    def copy_buffer_to_image(
        self, buffer: NativeResource, image: NativeResource, layout: int, region: ImageRegion
    ) -> None:
        self._in_order()
        self._vulkan.vkCmdCopyBufferToImage(self.buffer, buffer.live, image.live, layout, 1, _region(region))

    def copy_image_to_buffer(
        self, image: NativeResource, layout: int, buffer: NativeResource, region: ImageRegion
    ) -> None:
        self._in_order()
        self._vulkan.vkCmdCopyImageToBuffer(self.buffer, image.live, layout, buffer.live, 1, _region(region))

    def clear_color_image(self, image: NativeResource, layout: int, color: Sequence[float]) -> None:
        self._in_order()
        value = ffi.new("VkClearColorValue *", {"float32": [float(part) for part in color]})
        area = ffi.new("VkImageSubresourceRange *", (_COLOR, 0, _ALL, 0, _ALL))
        self._vulkan.vkCmdClearColorImage(self.buffer, image.live, layout, value, 1, area)

    def pipeline_barrier(
        self,
        src_stage_mask: int,
        dst_stage_mask: int,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
    ) -> None:
        """See `Recorder`. The barrier is in order with the transfers around it."""
        moves = [vk.MemoryBarrier(_Access(_MOVES), _Access(_MOVES))]
        images = [_in_order_too(barrier) for barrier in image_memory_barriers]
        stages = src_stage_mask | _TRANSFER, dst_stage_mask | _TRANSFER
        self.barrier(*stages, [*memory_barriers, *moves], buffer_memory_barriers, images)
        self._moved = False

    def barrier(
        self,
        src_stage_mask: int,
        dst_stage_mask: int,
        memory_barriers: Sequence[vk.MemoryBarrier] = (),
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier] = (),
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier] = (),
    ) -> None:
        """vkCmdPipelineBarrier, with exactly these barriers."""
        keep: list[Any] = []
        arrays = []
        for name, barriers in (
            ("VkMemoryBarrier", memory_barriers),
            ("VkBufferMemoryBarrier", buffer_memory_barriers),
            ("VkImageMemoryBarrier", image_memory_barriers),
        ):
            array = ffi.new(f"{name}[]", max(1, len(barriers)))
            for index, barrier in enumerate(barriers):
                built = to_c(barrier)
                keep.append(built)
                array[index] = built.cdata[0]
            arrays += [len(barriers), array]
        self._vulkan.vkCmdPipelineBarrier(self.buffer, src_stage_mask, dst_stage_mask, 0, *arrays)

    def _in_order(self) -> None:
        if self._moved:
            self.barrier(_TRANSFER, _TRANSFER, [vk.MemoryBarrier(_Access(_MOVES), _Access(_MOVES))])
        self._moved = True


def _in_order_too(barrier: vk.ImageMemoryBarrier) -> vk.ImageMemoryBarrier:
    """Return an image barrier whose layout change is after the transfers before it, and before those after it."""
    made = copy.copy(barrier)
    made.src_access_mask = _Access(int(barrier.src_access_mask) | _MOVES)
    made.dst_access_mask = _Access(int(barrier.dst_access_mask) | _MOVES)
    return made


def _region(region: ImageRegion) -> Any:
    layers = region.aspect_mask, region.mip_level, region.array_layer, 1
    return ffi.new("VkBufferImageCopy *", (region.buffer_offset, 0, 0, layers, region.offset, region.extent))
