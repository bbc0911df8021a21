"""The bytes that `DeviceMemory.write` copies: checks that element type and shape of the data match the payload.

How this works. Data without an element type (bytes, bytearray, mmap, a memoryview of format "B") and `uint8` arrays of
one axis are copied as bytes, unless the payload is such an array with gaps between its bytes. All other data is an
array, which is compared with the array in the payload's descriptor: the element types must be the same, byte order
included, unless a cast was requested, and the shapes must be the same, unless an `offset` was given. So no value is
silently changed into another one. Numbers of Python, and lists of them, have no element type; they are converted to the
payload's element type, as NumPy does for scalars (NEP 50), if they fit.

If the descriptor of the payload contains no array, there is nothing to compare with: the bytes of arrays are copied
unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from typing import Any

import msgspec

from extmem.arguments import a_type
from extmem.errors import UnsupportedError
from extmem.interop.conversions import converted, numbers_as
from extmem.interop.element_types import element_of, in_numpy, numpy_dtype, numpy_module
from extmem.interop.pitched import Rows, rows_of
from extmem.sharing.elements import NATIVE, ElementType, element_type, nbytes_of
from extmem.sharing.layout import DescribedArray, is_dense

__all__ = ["contents_to_write", "octets_to_write"]

_BYTES = frozenset("Bc")
_KINDS = {
    "?": "bool",
    **dict.fromkeys("bhilqn", "int"),
    **dict.fromkeys("BHILQN", "uint"),
    **dict.fromkeys("efd", "float"),
}
"""The type of each format character of the standard library. Its width depends on the prefix."""


class _Data(msgspec.Struct, frozen=True):
    element: ElementType
    shape: tuple[int, ...]
    values: Callable[[], Any]
    """Returns a memoryview or NumPy array of the elements, for a conversion; None where NumPy has no such type."""
    octets: Any
    """The elements in row-major order, as an object with a buffer of bytes."""


def octets_to_write(data: object, described: DescribedArray | None, *, offset: int | None, cast: bool) -> memoryview:
    """Return the bytes to be copied, for a payload whose elements have no gaps between them.

    Arguments and errors: as `contents_to_write`; also ValueError for gaps.
    """
    octets, rows = contents_to_write(data, described, offset=offset, cast=cast)
    if rows is not None and described is not None:
        raise ValueError(
            f"the payload's elements have gaps between them (strides {described.strides} for shape {described.shape}); "
            "write through memory.numpy(), or pass bytes"
        )
    return octets


def contents_to_write(
    data: object, described: DescribedArray | None, *, offset: int | None, cast: bool
) -> tuple[memoryview, Rows | None]:
    """Return the bytes to be copied, and the rows of the payload that they are copied to; None for one range.

    described: the array in the payload's descriptor; None if there is none.
    offset: where in the payload the bytes are copied to. None: to its beginning, and an array must have the shape of
        the payload's array.
    cast: convert elements by NumPy's rule "same_kind", byte order included.
    Errors: TypeError for elements of another type or byte order, or that are Python objects; ValueError for another
    shape, for an offset inside an element, and for numbers that do not fit; UnsupportedError for a conversion that
    needs a type that NumPy lacks.
    """
    octets = _plain_bytes(data)
    if octets is not None and not _is_whole_with_gaps(data, described, offset):
        return octets, None
    given = _read_data(data, described)
    if described is None:
        if not given.element.native:
            if not cast:
                raise _foreign_byte_order(given.element)
            given = _converted(given, given.element.swapped())
        return _bytes_of(given), None
    target = element_type(described.dtype)
    rows = rows_of(described.shape, described.strides, target)
    order = _order_of(described, target)
    if given.element != target:
        if not cast:
            if given.element == target.swapped():
                raise _foreign_byte_order(given.element, target)
            raise TypeError(
                f"data is {given.element.text} and the payload holds {target.text}: its bytes would be other values in "
                "the payload. Pass cast=True to convert the values, or data.tobytes() to copy the bytes as "
                "they are"
            )
        given = _converted(given, target)
    _check_part(given, described, target, offset)
    if order is not None and 0 not in given.shape:
        if offset is not None:
            raise ValueError(
                f"the payload's elements are not in row-major order (strides {described.strides} for shape "
                f"{described.shape}), so an offset does not lead to a part of them; write the whole array, or through "
                "memory.numpy()"
            )
        numpy = numpy_module()
        octets = numpy.frombuffer(given.octets, "uint8").reshape(*given.shape, target.itemsize)
        given = msgspec.structs.replace(given, octets=numpy.ascontiguousarray(octets.transpose(*order, len(order))))
    return _bytes_of(given), rows


def _is_whole_with_gaps(data: object, described: DescribedArray | None, offset: int | None) -> bool:
    """Return whether bytes are an array like the payload's, whose bytes have gaps between them (`row_pitch=`)."""
    if offset is not None or described is None or described.dtype != "uint8" or not hasattr(data, "dtype"):
        return False
    shape = described.shape
    return len(shape) == 1 and shape[0] > 1 and described.strides != (1,) and tuple(getattr(data, "shape", ())) == shape


def _order_of(described: DescribedArray, element: ElementType) -> tuple[int, ...] | None:
    """Return the order of the axes in the payload, the slowest first; None for row-major order without gaps."""
    shape, strides = described.shape, described.strides
    axes = range(len(shape))
    if is_dense(shape, strides, element.step, reversed(axes)):
        return None
    return tuple(reversed(sorted(axes, key=lambda axis: (strides[axis], shape[axis]))))


def _bytes_of(given: _Data) -> memoryview:
    return memoryview(given.octets).cast("B") if prod(given.shape) else memoryview(b"")


def _plain_bytes(data: object) -> memoryview | None:
    if isinstance(data, (bytes, bytearray)):
        return memoryview(data).cast("B")
    dtype = getattr(data, "dtype", None)
    if dtype is not None:
        if getattr(data, "ndim", 0) != 1 or str(dtype) not in ("uint8", "torch.uint8"):
            return None
        return _bytes_of(_read_data(data, None))
    view = _memoryview_of(data)
    if view is None or view.format.lstrip("@=<>!") not in _BYTES:
        return None
    if not view.nbytes:
        return memoryview(b"")
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _memoryview_of(data: object) -> memoryview | None:
    """Return None for objects without a buffer, and for elements without a buffer format (dates, bfloat16)."""
    try:
        return memoryview(data)  # type: ignore[arg-type]  # the object may be of any type
    except (TypeError, ValueError, BufferError):
        return None


def _read_data(data: object, described: DescribedArray | None) -> _Data:
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(data, torch.Tensor):
        return _from_tensor(torch, data)
    view = _memoryview_of(data)
    if view is not None:
        element = _element_type(view)
        if element is not None and view.c_contiguous:
            return _Data(element, tuple(view.shape or ()), lambda: view, view)
    numpy = numpy_module()
    if view is None and not _is_array(data, numpy):
        return _from_numbers(numpy, data, described)
    array = numpy.asarray(data)
    if array.dtype.hasobject:
        raise TypeError(
            f"the elements of this {type(data).__name__} are Python objects ({array.dtype}), and their bytes are "
            "addresses in this process; convert them first: data.astype('float32'), or the type that they have"
        )
    try:
        return _from_array(array, element_of(array.dtype))
    except ValueError as error:
        raise TypeError(f"the elements of this {type(data).__name__} cannot be copied: {error}") from None


def _is_array(data: object, numpy: Any) -> bool:
    return isinstance(data, numpy.generic) or any(
        hasattr(data, protocol) for protocol in ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")
    )


def _element_type(view: memoryview) -> ElementType | None:
    """Return the element type of a memoryview of native numbers, which does not need NumPy; None for other elements."""
    code = view.format
    prefix, code = (code[0], code[1:]) if code[:1] in "@=<>!" else ("@", code)
    kind = _KINDS.get(code)
    if kind is None or (prefix in "<>!" and view.itemsize > 1 and ("<" if prefix == "<" else ">") != NATIVE):
        return None
    return element_type(kind if kind == "bool" else f"{kind}{view.itemsize * 8}")


def _from_array(array: Any, element: ElementType) -> _Data:
    # `view` also supports element types that have no buffer format.
    return _Data(element, array.shape, lambda: array, numpy_module().ascontiguousarray(array).reshape(-1).view("uint8"))


def _from_tensor(torch: Any, tensor: Any) -> _Data:
    if tensor.device.type != "cpu":
        raise TypeError(
            f"the tensor is on {tensor.device}, and write() copies from the host: pass tensor.cpu(), or copy on the "
            "device: memory.torch().copy_(tensor)"
        )
    try:
        element = element_of(tensor.dtype)
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
        octets = plain.reshape(-1).view(torch.uint8).numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"the elements of this {type(tensor).__name__} cannot be copied in row-major order: {error}"
        ) from None
    return _Data(element, tuple(tensor.shape), lambda: _values_of(torch, plain, octets, element), octets)


def _values_of(torch: Any, plain: Any, octets: Any, element: ElementType) -> Any:
    """Return the values of a tensor as a NumPy array, for a conversion; None if neither package can convert them."""
    if in_numpy(element):
        return plain.numpy()
    try:
        return octets.view(numpy_dtype(element)).reshape(plain.shape)
    except UnsupportedError:
        # Without ml_dtypes NumPy lacks these types; float32 and complex64 represent all of their values.
        wider = torch.complex64 if element.text == "complex32" else torch.float32
        known = element.text.startswith(("bfloat16", "float8_", "complex32"))
        return plain.to(wider).numpy() if known else None


def _from_numbers(numpy: Any, data: object, described: DescribedArray | None) -> _Data:
    """Convert numbers of Python, and lists of them, to the payload's element type. Refuse numbers that do not fit."""
    if described is None:
        raise TypeError(
            f"{a_type(data)} has no element type, and this payload describes no array whose type could be "
            "used; pass an array or bytes"
        )
    element = element_type(described.dtype)
    return _from_array(numbers_as(numpy, data, element), element)


def _foreign_byte_order(given: ElementType, target: ElementType | None = None) -> TypeError:
    payload = "this machine's" if target is None or target.native else f"that of the payload, {target.text}"
    return TypeError(
        f"data is {given.text}, whose byte order is not {payload}; pass cast=True to convert it, or data.tobytes() to "
        "copy the bytes as they are"
    )


def _converted(given: _Data, target: ElementType) -> _Data:
    values = given.values()
    if values is not None:
        values = numpy_module().asarray(values)
    return _from_array(converted(values, given.element, target), target)


def _check_part(given: _Data, described: DescribedArray, element: ElementType, offset: int | None) -> None:
    shape, whole = given.shape, described.shape
    if offset is None:
        if shape != whole:
            raise ValueError(
                f"data has shape {shape} and the payload {whole}; reshape it, or pass offset= to write a part"
            )
        return
    size = element.itemsize or 1
    if offset % size or (element.packed and (offset * 8) % element.bits):
        raise ValueError(f"offset {offset} is inside an element: {described.dtype} has {size} bytes")
    if element.packed and nbytes_of(element, shape) * 8 != prod(shape) * element.bits:
        raise ValueError(f"data of shape {shape} ends inside a byte, which other elements share; write whole bytes")
    inner = shape[1:]
    if len(shape) > len(whole) or inner != whole[len(whole) - len(inner) :]:
        raise ValueError(
            f"data of shape {shape} is not a part of the payload's {whole}: its axes after the first must be the "
            "payload's last axes; reshape it (reshape(-1) gives it one axis)"
        )
