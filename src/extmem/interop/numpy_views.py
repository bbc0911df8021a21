"""NumPy arrays and DLPack capsules over a memoryview. NumPy makes both, so its own keep-alive rules hold."""

from __future__ import annotations

import sys
from math import prod
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

from extmem.errors import UnsupportedError
from extmem.interop.element_types import carried, in_numpy, numpy_dtype, numpy_module
from extmem.owning import late_imports
from extmem.sharing.dtypes import descr, typestr
from extmem.sharing.elements import ElementType, element_type
from extmem.sharing.layout import ArrayLayout, DescribedArray, contiguous_strides

if TYPE_CHECKING:
    import numpy

__all__ = [
    "CPU_DEVICE",
    "array_capsule",
    "array_interface",
    "as_requested",
    "check_in_dlpack",
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


def numpy_view(buffer: memoryview, layout: ArrayLayout) -> numpy.ndarray[Any, Any]:
    """Return an array over the buffer, read-only where the buffer is. The array keeps the buffer alive.

    Errors: UnsupportedError for an element type that NumPy lacks.
    """
    dtype = numpy_dtype(layout.element)
    # The base of an array of `frombuffer` is the memoryview itself. The base of an `ndarray` over a memoryview is the
    # object that exports the buffer, which may be writable: NumPy would then accept `flags.writeable = True`, and the
    # first write would be a segmentation fault.
    octets = numpy_module().frombuffer(buffer, "uint8")
    return cast(
        "numpy.ndarray[Any, Any]",
        numpy_module().ndarray(layout.shape, dtype, buffer=octets, offset=layout.offset, strides=layout.strides),
    )


def new_octets(size: int) -> memoryview:
    """Return a writable buffer of `size` bytes that is not zeroed."""
    return memoryview(numpy_module().empty(size, "uint8"))


def array_interface(buffer: memoryview, described: DescribedArray | None, *, strides: bool) -> dict[str, Any]:
    """Return the array interface (version 3) of the array in a buffer of bytes. Its `data` keeps the buffer alive.

    strides: whether the interface contains the strides also for elements in row-major order.
    Errors: AttributeError for an element type that the interface lacks; consumers then use `__array__` or fail.
    """
    shape, name = ((buffer.nbytes,), "uint8") if described is None else (described.shape, described.dtype)
    element = element_type(name)
    code, fields = typestr(element), descr(element)
    if code is None or (element.fields and fields is None):
        raise AttributeError(f"the array interface has no element type {name}; use memory.numpy() or memory.map()")
    plain = contiguous_strides(shape, element.step)
    steps = plain if described is None else described.strides
    interface = {
        "version": 3,
        "shape": shape,
        "typestr": code,
        "strides": steps if strides or steps != plain else None,
        "data": buffer,
    }
    return interface if fields is None else {**interface, "descr": fields}


def typed_view(buffer: memoryview, described: DescribedArray | None) -> memoryview:
    """Return the buffer (format "B") as a memoryview of the array that it contains.

    Row-major arrays need only the standard library. Other layouts, float16 and complex numbers need NumPy.
    Return the buffer itself where no array is described, and where NumPy is needed and not installed.
    Errors: BufferError for an element type that has no buffer format (bfloat16, dates, plain bytes); consumers then use
    `__array__`.
    """
    if described is None:
        return buffer
    code = _STRUCT_CODES.get(described.dtype)
    element = element_type(described.dtype)
    if code is not None and described.strides == contiguous_strides(described.shape, element.step):
        return buffer[: prod(described.shape) * element.step].cast(code, described.shape)
    if _has_void(element):
        raise BufferError(f"{described.dtype} has no buffer format: x is padding; use memory.map(), its bytes")
    try:
        numpy_module()
    except UnsupportedError:
        return buffer
    try:
        return numpy_view(buffer, ArrayLayout(described.shape, described.dtype, described.strides)).data
    except (UnsupportedError, ValueError, BufferError) as error:
        raise BufferError(f"{described.dtype} has no buffer format ({error}); use memory.map(), its bytes") from error


def _has_void(element: ElementType) -> bool:
    """Return whether the element, or a field of it, is of plain bytes, which NumPy reads from a buffer as no field."""
    return element.kind == "void" or any(_has_void(field.element) for field in element.fields)


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
    buffer: memoryview,
    layout: ArrayLayout,
    *,
    stream: object,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> object:
    """Return a DLPack capsule of host memory. Read-only memory raises BufferError if the consumer lacks DLPack 1.0.

    Errors: also BufferError for an element type that DLPack lacks, or that this version of it cannot describe.
    """
    check_in_dlpack(layout.element, max_version)
    try:
        array = numpy_view(buffer, carried(layout))
    except ValueError as error:
        raise BufferError(str(error)) from None
    return array_capsule(
        array, layout.element, layout.shape, stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
    )


def array_capsule(
    array: numpy.ndarray[Any, Any],
    element: ElementType,
    shape: tuple[int, ...],
    *,
    stream: object,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> object:
    """Return the capsule of an array of NumPy's numbers, or of carriers for other elements. See `dlpack_capsule`."""
    if not array.flags.writeable and not copy:
        refuse_pytorch()
    if stream is not None:
        raise BufferError("host memory has no streams; call __dlpack__ with stream=None")
    if dl_device is not None and tuple(dl_device) != CPU_DEVICE:
        raise BufferError(f"this memory is on the CPU {CPU_DEVICE}, not on DLPack device {tuple(dl_device)}")
    check_in_dlpack(element, max_version)
    capsule: object = array.__dlpack__(max_version=max_version, copy=copy)
    if in_numpy(element):
        return capsule
    with late_imports():
        from extmem.interop.capsules import retyped

    return retyped(capsule, element, shape)


def check_in_dlpack(element: ElementType, max_version: tuple[int, int] | None) -> None:
    """Refuse an element type that DLPack lacks, or that the version that a consumer requested cannot describe.

    Errors: BufferError.
    """
    if element.dlpack is None:
        raise BufferError(f"DLPack has no element type {element.text}; view the bytes: memory.numpy('uint8')")
    if element.padded and (max_version is None or tuple(max_version) < (1, 1)):
        raise BufferError(
            f"elements of {element.text} take a byte each, and DLPack before 1.1 has no flag for that; view the bytes "
            "(memory.numpy('uint8', memory.shape)), or use a consumer that requests max_version=(1, 1)"
        )


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
