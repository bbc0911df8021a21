"""What `write` copies: the bytes of data whose elements and shape are the payload's, or a refusal.

How this works. Bytes stay bytes: what has no element type of its own (bytes, bytearray, mmap, a memoryview of format
"B"), and a `uint8` array of one axis. Everything else is an array, and is held against the array that the payload's
descriptor describes: its element type has to be the same, unless a cast was asked for, and so has its shape, unless a
place was (`offset`). So no value arrives as another one in silence. Python's own numbers and lists of them have no
element type; they take the payload's as NumPy has it do for scalars (NEP 50), if they fit.

A payload that describes no array has nothing to hold data against: arrays are copied as they lie.
"""

from __future__ import annotations

import sys
from math import prod
from typing import Any, NamedTuple

from extmem.interop.numpy_views import numpy_module
from extmem.sharing.dtypes import NATIVE, itemsize
from extmem.sharing.layout import DescribedArray, contiguous_strides

__all__ = ["octets_to_write"]

_BYTES = frozenset("Bc")
_RANKS = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 3}
"""NumPy's kinds of numbers, each of which holds those before it."""
_KINDS = {
    "?": "bool",
    **dict.fromkeys("bhilqn", "int"),
    **dict.fromkeys("BHILQN", "uint"),
    **dict.fromkeys("efd", "float"),
}
"""What the standard library's format characters stand for; how wide they are depends on the prefix."""


class _Given(NamedTuple):
    element: str
    """The element type, for comparison and for the error."""
    shape: tuple[int, ...]
    values: Any
    """A memoryview or NumPy array of them; None where NumPy has no such type."""
    octets: Any
    """The elements in row-major order, as something with a buffer of bytes."""


def octets_to_write(data: object, described: DescribedArray | None, *, offset: int | None, cast: bool) -> memoryview:
    """The bytes to be copied to `offset` (None: the payload's beginning, and all of an array's shape is due).

    described: the array in the payload; None where it describes none. cast: convert elements under NumPy's rule
    "same_kind".
    Errors: TypeError for elements of another type, of a byte order that is not this machine's, or that are Python
    objects; ValueError for another shape, for an offset inside an element, and for numbers that do not fit.
    """
    octets = _plain_bytes(data)
    if octets is not None:
        return octets
    given = _given(data, described)
    if described is None:
        if given.values is not None and not _is_native(given.values) and cast:
            given = _converted(given, given.values.dtype.newbyteorder("="))
        _refuse_foreign(given)
        return _bytes_of(given)
    if described.strides != contiguous_strides(described.shape, itemsize(described.dtype)):
        raise ValueError(
            f"the payload's elements do not lie in row-major order (strides {described.strides} for shape "
            f"{described.shape}); write through memory.numpy(), or pass bytes"
        )
    if given.element != described.dtype:
        if not cast:
            _refuse_foreign(given)
            raise TypeError(
                f"data is {given.element} and the payload holds {described.dtype}: its bytes would be other values "
                "there. Pass cast=True to convert the values, or data.tobytes() to copy the bytes as they are"
            )
        given = _converted(given, numpy_module().dtype(described.dtype))
    _check_place(given, described, offset)
    return _bytes_of(given)


def _bytes_of(given: _Given) -> memoryview:
    return memoryview(given.octets).cast("B") if prod(given.shape) else memoryview(b"")


def _plain_bytes(data: object) -> memoryview | None:
    if isinstance(data, (bytes, bytearray)):
        return memoryview(data).cast("B")
    dtype = getattr(data, "dtype", None)
    if dtype is not None:
        if getattr(data, "ndim", 0) != 1 or str(dtype) not in ("uint8", "torch.uint8"):
            return None
        return _bytes_of(_given(data, None))
    view = _view_of(data)
    if view is None or view.format.lstrip("@=<>!") not in _BYTES:
        return None
    if not view.nbytes:
        return memoryview(b"")
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _view_of(data: object) -> memoryview | None:
    """None for what has no buffer, and for elements that a buffer has no format for (dates, bfloat16)."""
    try:
        return memoryview(data)  # type: ignore[arg-type]  # that is the question
    except (TypeError, ValueError, BufferError):
        return None


def _given(data: object, described: DescribedArray | None) -> _Given:
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(data, torch.Tensor):
        return _of_tensor(torch, data)
    view = _view_of(data)
    if view is not None:
        element = _element_of(view)
        if element is not None and view.c_contiguous:
            return _Given(element, tuple(view.shape or ()), view, view)
    numpy = numpy_module()
    if view is None and not _is_array(data, numpy):
        return _of_numbers(numpy, data, described)
    array = numpy.asarray(data)
    if array.dtype.hasobject:
        raise TypeError(
            f"the elements of this {type(data).__name__} are Python objects ({array.dtype}), and their bytes are "
            "addresses in this process; convert them first: data.astype('float32'), or the type that they have"
        )
    return _of_array(numpy, array)


def _is_array(data: object, numpy: Any) -> bool:
    return isinstance(data, numpy.generic) or any(
        hasattr(data, way) for way in ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")
    )


def _element_of(view: memoryview) -> str | None:
    """The element type of a memoryview that needs no NumPy to be understood: native numbers."""
    code = view.format
    prefix, code = (code[0], code[1:]) if code[:1] in "@=<>!" else ("@", code)
    kind = _KINDS.get(code)
    if kind is None or (prefix in "<>!" and view.itemsize > 1 and ("<" if prefix == "<" else ">") != NATIVE):
        return None
    return kind if kind == "bool" else f"{kind}{view.itemsize * 8}"


def _of_array(numpy: Any, array: Any) -> _Given:
    element = array.dtype.name if array.dtype.isnative else array.dtype.str
    # By way of `view`, for element types that have no buffer format.
    return _Given(element, array.shape, array, numpy.ascontiguousarray(array).reshape(-1).view("uint8"))


def _of_tensor(torch: Any, tensor: Any) -> _Given:
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
            f"this {type(tensor).__name__} has no elements in a row that could be copied: {error}"
        ) from None
    element = str(tensor.dtype).removeprefix("torch.")
    try:
        values = plain.numpy()
    except TypeError:
        # bfloat16 and others that NumPy does not have; float32 holds all of their values.
        values = plain.to(torch.float32).numpy() if tensor.dtype.is_floating_point else None
    return _Given(element, tuple(tensor.shape), values, octets)


def _of_numbers(numpy: Any, data: object, described: DescribedArray | None) -> _Given:
    """Python's own numbers, and lists of them: as the payload's element type, where they fit."""
    what = f"a {type(data).__name__}"
    if described is None:
        raise TypeError(
            f"{what} has no element type, and this payload describes no array that could lend it one; pass an array or "
            "bytes"
        )
    found = numpy.asarray(data)
    target = numpy.dtype(described.dtype)
    if found.dtype.kind in "fO" and target.kind in "iuf":
        # Integers of more than 63 bits are floats or objects to NumPy, which would lose what they are.
        exact = numpy.asarray(data, object)
        found = exact if exact.size and all(isinstance(one, int) for one in exact.flat) else found
    if found.dtype.hasobject and all(isinstance(one, int) for one in found.flat):
        try:
            with numpy.errstate(over="ignore"):
                values = found.astype(target)
            if not (target.kind in "fc" and numpy.isinf(values).any()):
                return _of_array(numpy, values)
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
    return _of_array(numpy, values)


def _is_native(values: Any) -> bool:
    return isinstance(values, memoryview) or bool(values.dtype.isnative)


def _refuse_foreign(given: _Given) -> None:
    if given.values is not None and not _is_native(given.values):
        raise TypeError(
            f"data is {given.element}, whose byte order is not this machine's; pass cast=True to convert it, or "
            "data.tobytes() to copy the bytes as they are"
        )


def _converted(given: _Given, target: Any) -> _Given:
    numpy = numpy_module()
    values = None if given.values is None else numpy.asarray(given.values)
    if values is None or not numpy.can_cast(values.dtype, target, "same_kind"):
        advice = (
            "data.view('int64') has their numbers"
            if values is not None and values.dtype.kind in "mM"
            else (f"data.astype({target.name!r}) does, where that is meant")
        )
        raise TypeError(
            f"a cast from {given.element} to {target.name} is not of the same kind (NumPy's rule); {advice}"
        )
    return _of_array(numpy, values.astype(target))


def _check_place(given: _Given, described: DescribedArray, offset: int | None) -> None:
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
            f"data of shape {shape} is not a part of the payload's {whole}: its axes after the first have to be the "
            "payload's last ones; reshape it (reshape(-1) lays it out in a row)"
        )
