"""NumPy arrays and DLPack capsules over a memoryview. NumPy makes both, so its own keep-alive rules hold."""

from __future__ import annotations

import sys
from math import prod
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

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
"""What memoryview.cast knows of the element types."""

CPU_DEVICE = (1, 0)
"""kDLCPU, device 0."""


def numpy_module() -> Any:
    """NumPy. Errors: UnsupportedError, with the reason."""
    advice = "numpy(), read() and DLPack need it: pip install 'extmem[numpy]', or look at the bytes with map()"
    return optional.load("numpy", what="NumPy", advice=advice, package="numpy")


def numpy_view(buffer: memoryview, layout: ArrayLayout) -> numpy.ndarray[Any, Any]:
    """An array over the buffer; not writeable where the buffer is read-only. Keeps the buffer alive."""
    # By way of frombuffer, whose base is the memoryview itself. Given a memoryview, `ndarray` keeps what is behind it,
    # and that can be written: `flags.writeable = True` would be believed, and the first write a segmentation fault.
    octets = numpy_module().frombuffer(buffer, "uint8")
    array: numpy.ndarray[Any, Any] = numpy_module().ndarray(
        layout.shape, layout.dtype, buffer=octets, offset=layout.offset, strides=layout.strides
    )
    return array


def new_octets(size: int) -> memoryview:
    """Room for `size` bytes, not zeroed."""
    return memoryview(numpy_module().empty(size, "uint8"))


def array_interface(buffer: memoryview, described: DescribedArray | None, *, strides: bool) -> dict[str, Any]:
    """The array interface (version 3) of the array in a buffer of bytes, which its `data` keeps alive.

    strides: state them where the elements lie in row-major order, too.
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
    """The buffer (format "B") as a memoryview of the array that it holds; the buffer itself where it holds none.

    Plain row-major arrays need nothing but the standard library. Others, and complex numbers, come through NumPy;
    without it they stay bytes.
    """
    if described is None:
        return buffer
    code = _STRUCT_CODES.get(described.dtype)
    item = itemsize(described.dtype)
    if code is not None and described.strides == contiguous_strides(described.shape, item):
        return buffer[: prod(described.shape) * item].cast(code, described.shape)
    try:
        array: Any = numpy_view(buffer, ArrayLayout(described.shape, described.dtype, described.strides))
    except UnsupportedError:
        return buffer
    return memoryview(array)


def as_requested(array: numpy.ndarray[Any, Any], dtype: object, copy: bool | None) -> numpy.ndarray[Any, Any]:
    """What numpy.asarray(memory, dtype=…, copy=…) asks `__array__` for (NumPy 2 protocol)."""
    if copy:
        return array.astype(numpy_module().dtype(dtype) if dtype is not None else array.dtype, copy=True)
    if dtype is None or numpy_module().dtype(dtype) == array.dtype:
        return array
    if copy is False:
        raise ValueError(
            f"cannot view {array.dtype} memory as {dtype} without a copy; pass copy=None, or numpy(dtype=…)"
        )
    converted: numpy.ndarray[Any, Any] = array.astype(numpy_module().dtype(dtype))
    return converted


def dlpack_capsule(
    array: numpy.ndarray[Any, Any],
    *,
    stream: object,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> object:
    """A DLPack capsule made by NumPy; read-only arrays need a consumer that speaks DLPack 1.0 (BufferError else)."""
    if not array.flags.writeable and not copy:
        refuse_pytorch()
    if stream is not None:
        raise BufferError("host memory has no streams; call __dlpack__ with stream=None")
    if dl_device is not None and tuple(dl_device) != CPU_DEVICE:
        raise BufferError(f"this memory is on the CPU {CPU_DEVICE}, not on DLPack device {tuple(dl_device)}")
    return array.__dlpack__(max_version=max_version, copy=copy)


def refuse_pytorch() -> None:
    """Raise BufferError if PyTorch requests a capsule of read-only memory.

    Its request is the same as that of consumers that keep the capsule's read-only flag, and it drops the flag: the
    first write to the tensor would end the process. Only the calling module tells it apart.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("extmem."):
        frame = frame.f_back
    if frame is not None and str(frame.f_globals.get("__name__")).startswith("torch."):
        raise BufferError(
            "this memory is read-only, and PyTorch would write to it all the same; memory.torch() gives a tensor that "
            "keeps the rule, and torch.from_dlpack(memory, copy=True) one with bytes of its own"
        )
