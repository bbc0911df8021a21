"""Buffers and commands on the CUDA device. A buffer is a part of the memory that it is bound to, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extmem.devices.cuda.capabilities import no_images
from extmem.devices.resources import NativeResource
from extmem.errors import HandleStateError

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.backend import ImageRegion
    from extmem.devices.cuda.backend import CudaBackend
    from extmem.devices.cuda.memory import CudaAllocation

__all__ = ["CudaRecorder", "CudaResource"]


class CudaResource(NativeResource):
    """A buffer, and where it is."""

    allocation: CudaAllocation | None = None
    offset: int = 0


class CudaRecorder:
    """See `Recorder`. Each command goes to CUDA's default stream when it is recorded; so they are done in order."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend

    def fill_buffer(self, buffer: NativeResource, offset: int, size: int, word: int) -> None:
        """See `Recorder`."""
        at = _place(buffer) + offset
        backend = self._backend
        backend.check(backend.module.cuMemsetD32(at, word, size // 4)[0], "cuMemsetD32")

    def copy_buffer(self, source: NativeResource, start: int, target: NativeResource, at: int, size: int) -> None:
        """See `Recorder`."""
        backend = self._backend
        result = backend.module.cuMemcpyDtoD(_place(target) + at, _place(source) + start, size)
        backend.check(result[0], "cuMemcpyDtoD", f"{size} bytes")

    def copy_buffer_to_image(
        self, buffer: NativeResource, image: NativeResource, layout: int, region: ImageRegion
    ) -> None:
        """UnsupportedError."""
        raise no_images(self._backend.name)

    def copy_image_to_buffer(
        self, image: NativeResource, layout: int, buffer: NativeResource, region: ImageRegion
    ) -> None:
        """UnsupportedError."""
        raise no_images(self._backend.name)

    def clear_color_image(self, image: NativeResource, layout: int, color: Sequence[float]) -> None:
        """UnsupportedError."""
        raise no_images(self._backend.name)

    def pipeline_barrier(
        self,
        src_stage_mask: int,
        dst_stage_mask: int,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
    ) -> None:
        """Nothing to do: each command is done before the next begins."""


def _place(resource: NativeResource) -> int:
    if not isinstance(resource, CudaResource) or resource.allocation is None:
        raise HandleStateError(f"this {resource.kind} is bound to no memory; bind it first")
    return resource.allocation.live + resource.offset
