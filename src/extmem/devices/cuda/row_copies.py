"""Copies of rows with gaps between them, as CUDA takes them."""

from __future__ import annotations

from typing import Any

__all__ = ["rows_copy"]


def rows_copy(module: Any, target: int, source: int, width: int, pitch: int, count: int) -> Any:
    """Return a CUDA_MEMCPY2D: `count` rows of `width` bytes, from the host without gaps to addresses `pitch` apart."""
    copy = module.CUDA_MEMCPY2D()
    copy.srcMemoryType = module.CUmemorytype.CU_MEMORYTYPE_HOST
    copy.srcHost, copy.srcPitch = source, width
    copy.dstMemoryType = module.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.dstDevice, copy.dstPitch = module.CUdeviceptr(target), pitch
    copy.WidthInBytes, copy.Height = width, count
    return copy
