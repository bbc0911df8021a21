"""Commands on the host device: the `Recorder` whose commands the processor does when they are recorded.

Images on the host device have no texels to copy: nothing renders there, and the layout is defined only for LINEAR ones.
So the image commands are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extmem.devices.host import transfers
from extmem.devices.placed_resources import place_of
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import ImageRegion

__all__ = ["HostRecorder"]


class HostRecorder:
    """The `Recorder` of the host device."""

    def fill_buffer(self, buffer: NativeResource, offset: int, size: int, word: int) -> None:
        allocation, start = place_of(buffer)
        transfers.write(allocation, start + offset, memoryview(word.to_bytes(4, "little") * (size // 4)))

    def copy_buffer(self, source: NativeResource, start: int, target: NativeResource, at: int, size: int) -> None:
        first, second = place_of(source), place_of(target)
        copied = memoryview(bytearray(size))
        transfers.read(first[0], first[1] + start, copied)
        transfers.write(second[0], second[1] + at, copied)

    def copy_buffer_to_image(
        self, buffer: NativeResource, image: NativeResource, layout: int, region: ImageRegion
    ) -> None:
        raise _no_images()

    def copy_image_to_buffer(
        self, image: NativeResource, layout: int, buffer: NativeResource, region: ImageRegion
    ) -> None:
        raise _no_images()

    def clear_color_image(self, image: NativeResource, layout: int, color: Sequence[float]) -> None:
        raise _no_images()

    def pipeline_barrier(
        self,
        src_stage_mask: int,
        dst_stage_mask: int,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
    ) -> None:
        """Do nothing: each command is done before the next begins, and all see the same bytes."""


def _no_images() -> UnsupportedError:
    return UnsupportedError(
        "the host device does not copy or clear images; use a Vulkan device, or a buffer",
        requires_one_of=["a Vulkan device"],
    )
