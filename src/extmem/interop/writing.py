"""The bytes that `DeviceMemory.write` copies: checks that element type and shape of the data match the payload.

How this works. Data without an element type (bytes, bytearray, mmap, a memoryview of format "B") and `uint8` arrays of
one axis are copied as bytes. All other data is an array, which is compared with the array in the payload's descriptor:
the element types must be the same, unless a cast was requested, and the shapes must be the same, unless an `offset` was
given. So no value is silently changed into another one. Numbers of Python, and lists of them, have no element type;
they are converted to the payload's element type, as NumPy does for scalars (NEP 50), if they fit.

If the descriptor of the payload contains no array, there is nothing to compare with: the bytes of arrays are copied
unchanged.
"""

from __future__ import annotations

import sys
from math import prod
from typing import Any, NamedTuple

from extmem.arguments import a_type
from extmem.interop.numpy_views import numpy_module
from extmem.sharing.dtypes import NATIVE, itemsize
from extmem.sharing.layout import DescribedArray, contiguous_strides

__all__ = ["octets_to_write"]

_BYTES = frozenset("Bc")
_RANKS = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 3}
"""NumPy's kinds of numbers by rank. A kind can represent the values of the kinds with a lower rank."""
_KINDS = {
    "?": "bool",
    **dict.fromkeys("bhilqn", "int"),
    **dict.fromkeys("BHILQN", "uint"),
    **dict.fromkeys("efd", "float"),
}
"""The type of each format character of the standard library. Its width depends on the prefix."""


class _Data(NamedTuple):
    element: str
    """The name of the element type, for comparison and for error messages."""
    shape: tuple[int, ...]
    values: Any
    """A memoryview or NumPy array of the elements; None where NumPy has no such type."""
    octets: Any
    """The elements in row-major order, as an object with a buffer of bytes."""


def octets_to_write(data: object, described: DescribedArray | None, *, offset: int | None, cast: bool) -> memoryview:
    """Return the bytes to be copied.

    described: the array in the payload's descriptor; None if there is none.
    offset: where in the payload the bytes are copied to. None: to its beginning, and an array must have the shape of
        the payload's array.
    cast: convert elements by NumPy's rule "same_kind".
    Errors: TypeError for elements of another type, of a byte order that is not this machine's, or that are Python
    objects; ValueError for another shape, for an offset inside an element, and for numbers that do not fit.
    """
    octets = _plain_bytes(data)
    if octets is not None:
        return octets
    given = _read_data(data, described)
    if described is None:
        if given.values is not None and not _is_native(given.values) and cast:
            given = _converted(given, given.values.dtype.newbyteorder("="))
        _refuse_foreign_byte_order(given)
        return _bytes_of(given)
    if described.strides != contiguous_strides(described.shape, itemsize(described.dtype)):
        raise ValueError(
            f"the payload's elements are not in row-major order (strides {described.strides} for shape "
            f"{described.shape}); write through memory.numpy(), or pass bytes"
        )
    if given.element != described.dtype:
        if not cast:
            _refuse_foreign_byte_order(given)
            raise TypeError(
                f"data is {given.element} and the payload holds {described.dtype}: its bytes would be other values in "
                "the payload. Pass cast=True to convert the values, or data.tobytes() to copy the bytes as "
                "they are"
            )
        given = _converted(given, numpy_module().dtype(described.dtype))
    _check_part(given, described, offset)
    return _bytes_of(given)


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
            return _Data(element, tuple(view.shape or ()), view, view)
    numpy = numpy_module()
    if view is None and not _is_array(data, numpy):
        return _from_numbers(numpy, data, described)
    array = numpy.asarray(data)
    if array.dtype.hasobject:
        raise TypeError(
            f"the elements of this {type(data).__name__} are Python objects ({array.dtype}), and their bytes are "
            "addresses in this process; convert them first: data.astype('float32'), or the type that they have"
        )
    return _from_array(numpy, array)


def _is_array(data: object, numpy: Any) -> bool:
    return isinstance(data, numpy.generic) or any(
        hasattr(data, protocol) for protocol in ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")
    )


def _element_type(view: memoryview) -> str | None:
    """Return the element type of a memoryview of native numbers, which does not need NumPy; None for other elements."""
    code = view.format
    prefix, code = (code[0], code[1:]) if code[:1] in "@=<>!" else ("@", code)
    kind = _KINDS.get(code)
    if kind is None or (prefix in "<>!" and view.itemsize > 1 and ("<" if prefix == "<" else ">") != NATIVE):
        return None
    return kind if kind == "bool" else f"{kind}{view.itemsize * 8}"


def _from_array(numpy: Any, array: Any) -> _Data:
    element = array.dtype.name if array.dtype.isnative else array.dtype.str
    # `view` also supports element types that have no buffer format.
    return _Data(element, array.shape, array, numpy.ascontiguousarray(array).reshape(-1).view("uint8"))


def _from_tensor(torch: Any, tensor: Any) -> _Data:
    if tensor.device.type != "cpu":
        raise TypeError(
            f"the tensor is on {tensor.device}, and write() copies from the host: pass tensor.cpu(), or copy on the "
            "device: memory.torch().copy_(tensor)"
        )
    try:
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
        octets = plain.reshape(-1).view(torch.uint8).numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"the elements of this {type(tensor).__name__} cannot be copied in row-major order: {error}"
        ) from None
    element = str(tensor.dtype).removeprefix("torch.")
    try:
        values = plain.numpy()
    except TypeError:
        # NumPy does not have bfloat16 and others; float32 represents all of their values.
        values = plain.to(torch.float32).numpy() if tensor.dtype.is_floating_point else None
    return _Data(element, tuple(tensor.shape), values, octets)


def _from_numbers(numpy: Any, data: object, described: DescribedArray | None) -> _Data:
    """Convert numbers of Python, and lists of them, to the payload's element type. Refuse numbers that do not fit."""
    what = a_type(data)
    if described is None:
        raise TypeError(
            f"{what} has no element type, and this payload describes no array whose type could be used; pass an array "
            "or bytes"
        )
    found = numpy.asarray(data)
    target = numpy.dtype(described.dtype)
    if found.dtype.kind in "fO" and target.kind in "iuf":
        # NumPy converts integers of more than 63 bits to floats or objects. Floats would lose digits.
        exact = numpy.asarray(data, object)
        found = exact if exact.size and all(isinstance(one, int) for one in exact.flat) else found
    if found.dtype.hasobject and all(isinstance(one, int) for one in found.flat):
        try:
            with numpy.errstate(over="ignore"):
                values = found.astype(target)
            if not (target.kind in "fc" and numpy.isinf(values).any()):
                return _from_array(numpy, values)
        except OverflowError:
            pass
        raise ValueError(
            f"integers of {found.min()} to {found.max()} do not all fit {described.dtype}, which the payload holds"
        )
    if found.dtype.kind not in _RANKS or _RANKS[found.dtype.kind] > _RANKS[target.kind]:
        raise TypeError(
            f"{what} of {found.dtype} is not {described.dtype}, which the payload holds; convert it first "
            f"(numpy.asarray(data).astype({described.dtype!r}), or int() and round())"
        )
    with numpy.errstate(over="ignore", invalid="ignore"):
        values = found.astype(target)
    lost = values != found if target.kind in "iu" else numpy.isinf(values) & ~numpy.isinf(found)
    if lost.any():
        raise ValueError(f"{found[lost].reshape(-1)[0]} does not fit {described.dtype}, which the payload holds")
    return _from_array(numpy, values)


def _is_native(values: Any) -> bool:
    return isinstance(values, memoryview) or bool(values.dtype.isnative)


def _refuse_foreign_byte_order(given: _Data) -> None:
    if given.values is not None and not _is_native(given.values):
        raise TypeError(
            f"data is {given.element}, whose byte order is not this machine's; pass cast=True to convert it, or "
            "data.tobytes() to copy the bytes as they are"
        )


def _converted(given: _Data, target: Any) -> _Data:
    numpy = numpy_module()
    values = None if given.values is None else numpy.asarray(given.values)
    if values is None or not numpy.can_cast(values.dtype, target, "same_kind"):
        advice = (
            "use data.view('int64') for their numbers"
            if values is not None and values.dtype.kind in "mM"
            else f"use data.astype({target.name!r}) if the conversion is intended"
        )
        raise TypeError(
            f"a cast from {given.element} to {target.name} is not of the same kind (NumPy's rule); {advice}"
        )
    return _from_array(numpy, values.astype(target))


def _check_part(given: _Data, described: DescribedArray, offset: int | None) -> None:
    shape, whole = given.shape, described.shape
    if offset is None:
        if shape != whole:
            raise ValueError(
                f"data has shape {shape} and the payload {whole}; reshape it, or pass offset= to write a part"
            )
        return
    if offset % itemsize(described.dtype):
        raise ValueError(
            f"offset {offset} is inside an element: {described.dtype} has {itemsize(described.dtype)} bytes"
        )
    inner = shape[1:]
    if len(shape) > len(whole) or inner != whole[len(whole) - len(inner) :]:
        raise ValueError(
            f"data of shape {shape} is not a part of the payload's {whole}: its axes after the first must be the "
            "payload's last axes; reshape it (reshape(-1) gives it one axis)"
        )
