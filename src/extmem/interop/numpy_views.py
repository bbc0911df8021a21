"""NumPy arrays and DLPack capsules over a memoryview. NumPy makes both, so its own keep-alive rules hold."""

from __future__ import annotations

import sys
from math import prod
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

from extmem import optional
from extmem.errors import UnsupportedError
from extmem.sharing.dtypes import itemsize, typestr
from extmem.sharing.layout import ArrayLayout, DescribedArray, contiguous_strides

if TYPE_CHECKING:
    import numpy

__all__ = [
    "CPU_DEVICE",
    "array_interface",
    "as_requested",
    "dlpack_capsule",
    "new_octets",
    "numpy_module",
    "numpy_view",
    "refuse_pytorch",
    "typed_view",
]

_STRUCT_CODES: Final[dict[str, Any]] = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
"""The element types that `memoryview.cast` supports, with their format characters."""

CPU_DEVICE = (1, 0)
"""kDLCPU, device 0."""


def numpy_module() -> Any:
    """Return the module NumPy. Errors: UnsupportedError with the reason, where it cannot be imported."""
    return optional.load(
        "numpy",
        what="NumPy",
        advice="numpy(), read(), DLPack, and write() of values that are not bytes need it: pip install "
        "'extmem[numpy]', or use the bytes of map()",
        package="numpy",
    )


def numpy_view(buffer: memoryview, layout: ArrayLayout) -> numpy.ndarray[Any, Any]:
    """Return an array over the buffer, read-only where the buffer is. The array keeps the buffer alive."""
    # The base of an array of `frombuffer` is the memoryview itself. The base of an `ndarray` over a memoryview is the
    # object that exports the buffer, which may be writable: NumPy would then accept `flags.writeable = True`, and the
    # first write would be a segmentation fault.
    octets = numpy_module().frombuffer(buffer, "uint8")
    return cast(
        "numpy.ndarray[Any, Any]",
        numpy_module().ndarray(layout.shape, layout.dtype, buffer=octets, offset=layout.offset, strides=layout.strides),
    )


def new_octets(size: int) -> memoryview:
    """Return a writable buffer of `size` bytes that is not zeroed."""
    return memoryview(numpy_module().empty(size, "uint8"))


def array_interface(buffer: memoryview, described: DescribedArray | None, *, strides: bool) -> dict[str, Any]:
    """Return the array interface (version 3) of the array in a buffer of bytes. Its `data` keeps the buffer alive.

    strides: whether the interface contains the strides also for elements in row-major order.
    """
    shape, name = ((buffer.nbytes,), "uint8") if described is None else (described.shape, described.dtype)
    plain = contiguous_strides(shape, itemsize(name))
    steps = plain if described is None else described.strides
    return {
        "version": 3,
        "shape": shape,
        "typestr": typestr(name),
        "strides": steps if strides or steps != plain else None,
        "data": buffer,
    }


def typed_view(buffer: memoryview, described: DescribedArray | None) -> memoryview:
    """Return the buffer (format "B") as a memoryview of the array that it contains.

    Row-major arrays need only the standard library. Other layouts, float16 and complex numbers need NumPy.
    Return the buffer itself where no array is described, and where NumPy is needed and not installed.
    """
    if described is None:
        return buffer
    code = _STRUCT_CODES.get(described.dtype)
    item = itemsize(described.dtype)
    if code is not None and described.strides == contiguous_strides(described.shape, item):
        return buffer[: prod(described.shape) * item].cast(code, described.shape)
    try:
        return numpy_view(buffer, ArrayLayout(described.shape, described.dtype, described.strides)).data
    except UnsupportedError:
        return buffer


def as_requested(array: numpy.ndarray[Any, Any], dtype: object, copy: bool | None) -> numpy.ndarray[Any, Any]:
    """Return the result of `__array__` for numpy.asarray(memory, dtype=…, copy=…), by the protocol of NumPy 2."""
    if copy:
        return array.astype(numpy_module().dtype(dtype) if dtype is not None else array.dtype, copy=True)
    if dtype is None or numpy_module().dtype(dtype) == array.dtype:
        return array
    if copy is False:
        raise ValueError(
            f"cannot view {array.dtype} memory as {dtype} without a copy; pass copy=None, or numpy(dtype=…)"
        )
    return cast("numpy.ndarray[Any, Any]", array.astype(numpy_module().dtype(dtype)))


def dlpack_capsule(
    array: numpy.ndarray[Any, Any],
    *,
    stream: object,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> object:
    """Return a DLPack capsule made by NumPy. A read-only array raises BufferError if the consumer lacks DLPack 1.0."""
    if not array.flags.writeable and not copy:
        refuse_pytorch()
    if stream is not None:
        raise BufferError("host memory has no streams; call __dlpack__ with stream=None")
    if dl_device is not None and tuple(dl_device) != CPU_DEVICE:
        raise BufferError(f"this memory is on the CPU {CPU_DEVICE}, not on DLPack device {tuple(dl_device)}")
    return array.__dlpack__(max_version=max_version, copy=copy)


def refuse_pytorch() -> None:
    """Raise BufferError if PyTorch requests a capsule of read-only memory.

    PyTorch ignores the read-only flag of the capsule, so the first write to the tensor would end the process. Its
    request is the same as that of consumers that respect the flag, so it is recognized by the calling module.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("extmem."):
        frame = frame.f_back
    if frame is not None and str(frame.f_globals.get("__name__")).startswith("torch."):
        raise BufferError(
            "this memory is read-only, and PyTorch ignores the read-only flag of DLPack; use memory.torch(), which "
            "returns a tensor that refuses writes, or torch.from_dlpack(memory, copy=True), which copies the bytes"
        )
