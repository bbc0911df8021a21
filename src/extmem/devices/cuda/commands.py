"""Commands on the CUDA device: the `Recorder` that gives each one to CUDA's default stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extmem.devices.cuda.capabilities import no_images
from extmem.devices.cuda.memory import native_allocation
from extmem.devices.placed_resources import place_of

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import ImageRegion

__all__ = ["CudaRecorder"]


class CudaRecorder:
    """The `Recorder` of the CUDA device. Each command is given to the default stream when it is recorded."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device

    def fill_buffer(self, buffer: NativeResource, offset: int, size: int, word: int) -> None:
        device = self._device
        device.check(
            device.module.cuMemsetD32Async(_pointer(buffer) + offset, word, size // 4, 0)[0], "cuMemsetD32Async"
        )

    def copy_buffer(self, source: NativeResource, start: int, target: NativeResource, at: int, size: int) -> None:
        device = self._device
        result = device.module.cuMemcpyDtoDAsync(_pointer(target) + at, _pointer(source) + start, size, 0)
        device.check(result[0], "cuMemcpyDtoDAsync", f"{size} bytes")

    def copy_buffer_to_image(
        self, buffer: NativeResource, image: NativeResource, layout: int, region: ImageRegion
    ) -> None:
        raise no_images(self._device.name)

    def copy_image_to_buffer(
        self, image: NativeResource, layout: int, buffer: NativeResource, region: ImageRegion
    ) -> None:
        raise no_images(self._device.name)

    def clear_color_image(self, image: NativeResource, layout: int, color: Sequence[float]) -> None:
        raise no_images(self._device.name)

    def pipeline_barrier(
        self,
        src_stage_mask: int,
        dst_stage_mask: int,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
    ) -> None:
        """Do nothing: the default stream executes its commands in order."""


def _pointer(buffer: NativeResource) -> int:
    """The device pointer to a buffer's first byte. Errors: HandleStateError for a buffer that is not bound."""
    allocation, offset = place_of(buffer)
    return native_allocation(allocation).live + offset
