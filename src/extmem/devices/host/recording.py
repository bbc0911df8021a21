"""Commands on the host device: the processor does each one when it is recorded.

Images on the host device have no texels that anybody could copy: nobody renders there, and their layout is only
defined for LINEAR ones. So the image commands are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extmem.devices.resources import NativeResource
from extmem.errors import HandleStateError, UnsupportedError

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.backend import Allocation, ImageRegion
    from extmem.devices.host.backend import HostBackend

__all__ = ["HostRecorder", "HostResource"]


class HostResource(NativeResource):
    """A buffer or image, and where it is."""

    allocation: Allocation | None = None
    offset: int = 0


class HostRecorder:
    """See `Recorder`."""

    def __init__(self, backend: HostBackend) -> None:
        self._backend = backend

    def fill_buffer(self, buffer: NativeResource, offset: int, size: int, word: int) -> None:
        """See `Recorder`."""
        allocation, start = _place(buffer)
        self._backend.write(allocation, start + offset, memoryview(word.to_bytes(4, "little") * (size // 4)))

    def copy_buffer(self, source: NativeResource, start: int, target: NativeResource, at: int, size: int) -> None:
        """See `Recorder`."""
        first, second = _place(source), _place(target)
        copied = memoryview(bytearray(size))
        self._backend.read(first[0], first[1] + start, copied)
        self._backend.write(second[0], second[1] + at, copied)

    def copy_buffer_to_image(
        self, buffer: NativeResource, image: NativeResource, layout: int, region: ImageRegion
    ) -> None:
        """UnsupportedError."""
        raise _no_images()

    def copy_image_to_buffer(
        self, image: NativeResource, layout: int, buffer: NativeResource, region: ImageRegion
    ) -> None:
        """UnsupportedError."""
        raise _no_images()

    def clear_color_image(self, image: NativeResource, layout: int, color: Sequence[float]) -> None:
        """UnsupportedError."""
        raise _no_images()

    def pipeline_barrier(
        self,
        src_stage_mask: int,
        dst_stage_mask: int,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
    ) -> None:
        """Nothing to do: each command is done before the next begins, and all see the same bytes."""


def _place(resource: NativeResource) -> tuple[Allocation, int]:
    if not isinstance(resource, HostResource) or resource.allocation is None:
        raise HandleStateError(f"this {resource.kind} is bound to no memory; bind it first")
    return resource.allocation, resource.offset


def _no_images() -> UnsupportedError:
    return UnsupportedError(
        "the host device does not copy or clear images; use a Vulkan device, or a buffer",
        requires_one_of=["a Vulkan device"],
    )
