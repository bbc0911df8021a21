"""NumPy arrays and DLPack capsules over a memoryview. NumPy makes both, so its own keep-alive rules hold."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final

from extmem.arrays.dtypes import itemsize
from extmem.arrays.layout import ArrayLayout, DescribedArray, contiguous_strides
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy

__all__ = [
    "CPU_DEVICE",
    "as_requested",
    "dlpack_capsule",
    "new_octets",
    "numpy_view",
    "octets_of",
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


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise UnsupportedError(
            "NumPy is not installed, and numpy() and DLPack need it; "
            "pip install 'extmem[numpy]', or look at the bytes with map()",
            requires_one_of=["numpy"],
        ) from error
    return numpy


def numpy_view(buffer: memoryview, layout: ArrayLayout) -> numpy.ndarray[Any, Any]:
    """An array over the buffer; not writeable where the buffer is read-only. Keeps the buffer alive."""
    # By way of frombuffer, whose base is the memoryview itself. Given a memoryview, `ndarray` keeps what is behind it,
    # and that can be written: `flags.writeable = True` would be believed, and the first write a segmentation fault.
    octets = _numpy().frombuffer(buffer, "uint8")
    array: numpy.ndarray[Any, Any] = _numpy().ndarray(
        layout.shape, layout.dtype, buffer=octets, offset=layout.offset, strides=layout.strides
    )
    return array


def octets_of(data: object) -> memoryview:
    """The bytes of an array or bytes-like object in row-major order; copied only where they do not lie so."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # what has no buffer is NumPy's
    except TypeError:
        view = None
    if view is not None and view.c_contiguous and view.nbytes:
        return view.cast("B")
    array = _numpy().ascontiguousarray(data)
    return memoryview(array.reshape(-1).view("uint8"))


def new_octets(size: int) -> memoryview:
    """Room for `size` bytes, not zeroed."""
    return memoryview(_numpy().empty(size, "uint8"))


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
        return array.astype(_numpy().dtype(dtype) if dtype is not None else array.dtype, copy=True)
    if dtype is None or _numpy().dtype(dtype) == array.dtype:
        return array
    if copy is False:
        raise ValueError(
            f"cannot view {array.dtype} memory as {dtype} without a copy; pass copy=None, or numpy(dtype=…)"
        )
    converted: numpy.ndarray[Any, Any] = array.astype(_numpy().dtype(dtype))
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
    if stream is not None:
        raise BufferError("host memory has no streams; call __dlpack__ with stream=None")
    if dl_device is not None and tuple(dl_device) != CPU_DEVICE:
        raise BufferError(f"this memory is on the CPU {CPU_DEVICE}, not on DLPack device {tuple(dl_device)}")
    return array.__dlpack__(max_version=max_version, copy=copy)
