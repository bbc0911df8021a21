"""Values converted to the element type of a payload: casts that a program requested, and numbers of Python.

How this works. A cast follows NumPy's rule "same_kind". NumPy does not apply it to the types of ml_dtypes, which are of
no kind to it, so for these the same rule is applied to the kinds in `ElementType`. A number of Python is converted if
the type has a value for it, rounded where it is a float: not if it would become infinite, not a number, another
integer, or the largest value of a type that has no infinity.
"""

from __future__ import annotations

from typing import Any

from extmem import optional
from extmem.arguments import a_type
from extmem.interop.element_types import numpy_dtype, numpy_module
from extmem.sharing.elements import ElementType

__all__ = ["converted", "numbers_as"]

_RANKS = {"bool": 0, "uint": 1, "int": 2, "float": 3, "complex": 4}
"""Kinds of numbers. "same_kind" allows a conversion to the same kind or one of a higher rank."""
_PYTHON_RANKS = {"b": 0, "i": 2, "u": 2, "f": 3, "c": 4}
"""What NumPy makes of numbers of Python. Its "i" and "u" are both Python's int."""


def converted(values: Any, given: ElementType, target: ElementType) -> Any:
    """Return a NumPy array of the values in the target's type, in its byte order.

    values: None if NumPy lacks their type. Errors: TypeError if the kinds differ; UnsupportedError if NumPy lacks the
    target's type.
    """
    numpy = numpy_module()
    if values is not None and not target.packed:
        dtype = numpy_dtype(target)
        if _is_of_ml_dtypes(values.dtype) or _is_of_ml_dtypes(dtype):
            allowed = given.kind in _RANKS and target.kind in _RANKS and _RANKS[given.kind] <= _RANKS[target.kind]
        else:
            allowed = numpy.can_cast(values.dtype, dtype, "same_kind")
        if allowed:
            with numpy.errstate(over="ignore", invalid="ignore"):
                return values.astype(dtype)
    if given.kind in ("datetime", "timedelta"):
        advice = "use data.view('int64') for their numbers"
    else:
        advice = f"use data.astype({target.text!r}) if the conversion is intended"
    raise TypeError(
        f"a cast from {given.text} to {target.text} is not of the same kind (NumPy's rule); {advice}"
        if values is not None and not target.packed
        else f"NumPy cannot convert {given.text} to {target.text}; pass the bytes: data.view('uint8')"
    )


def numbers_as(numpy: Any, data: object, target: ElementType) -> Any:
    """Return numbers of Python, and nested lists of them, as an array of this type; also text for types of text.

    Errors: TypeError for other values, and for numbers of a kind that the type lacks; ValueError for numbers that do
    not fit; UnsupportedError if NumPy lacks the type.
    """
    what, dtype = f"{a_type(data)}", numpy_dtype(target)
    found = numpy.asarray(data)
    if found.dtype.kind == dtype.kind and target.kind in ("bytes", "str"):
        if found.dtype.itemsize > dtype.itemsize:
            raise ValueError(
                f"the longest text of this {type(data).__name__} ({found.dtype}) does not fit {target.text}"
            )
        return found.astype(dtype)
    if found.dtype.kind in "fO" and target.kind in ("int", "uint", "float"):
        # NumPy converts integers of more than 63 bits to floats or objects. Floats would lose digits.
        exact = numpy.asarray(data, object)
        found = exact if exact.size and all(isinstance(one, int) for one in exact.flat) else found
    if found.dtype.hasobject and target.kind in _RANKS and all(isinstance(one, int) for one in found.flat):
        return _integers(numpy, found, target, dtype)
    rank = _PYTHON_RANKS.get(found.dtype.kind)
    if rank is None or rank > max(_RANKS.get(target.kind, -1), 2 if target.kind == "uint" else -1):
        raise TypeError(
            f"{what} of {found.dtype} is not {target.text}, which the payload holds; convert it first "
            f"(numpy.asarray(data).astype({target.text!r}), or int() and round())"
        )
    with numpy.errstate(over="ignore", invalid="ignore"):
        values = found.astype(dtype)
        if target.kind in ("int", "uint", "bool"):
            lost = values.astype(found.dtype) != found if target.bits < 8 else values != found
        else:
            lost = _lost(numpy, found, values, dtype)
    if lost.any():
        raise ValueError(f"{found[lost].reshape(-1)[0]} does not fit {target.text}, which the payload holds")
    return values


def _integers(numpy: Any, found: Any, target: ElementType, dtype: Any) -> Any:
    """Return integers of more than 63 bits in this type. Errors: ValueError if they do not fit."""
    try:
        with numpy.errstate(over="ignore", invalid="ignore"):
            if _is_of_ml_dtypes(dtype):
                values = found.astype("float64").astype(dtype)
                fits = (
                    target.kind in ("float", "complex")
                    and not _lost(numpy, found.astype("float64"), values, dtype).any()
                )
            else:
                values = found.astype(dtype)
                fits = not (target.kind in ("float", "complex") and numpy.isinf(values).any())
        if fits:
            return values
    except OverflowError:
        pass
    raise ValueError(
        f"integers of {found.min()} to {found.max()} do not all fit {target.text}, which the payload holds"
    )


def _lost(numpy: Any, found: Any, values: Any, dtype: Any) -> Any:
    """Return which floats or complex numbers became others than the nearest value of the type."""
    became = values.astype("complex128" if dtype.kind in "cW" else "float64")
    lost = (~numpy.isfinite(became) & numpy.isfinite(found)) | (numpy.isnan(became) != numpy.isnan(found))
    if _is_of_ml_dtypes(dtype) and dtype.itemsize == 1:
        # These may have no infinity, and no sign: too large and negative numbers become their largest or smallest one.
        limits = _finfo(dtype)
        lost |= (found > float(limits.max)) & numpy.isfinite(became)
        lost |= (found < float(limits.min)) & numpy.isfinite(became)
        lost |= ~numpy.isfinite(found) & numpy.isfinite(became)
    return lost


def _finfo(dtype: Any) -> Any:
    module = optional.load("ml_dtypes", what="ml_dtypes", advice="reinstall it")  # it has made the dtype
    return module.finfo(dtype)


def _is_of_ml_dtypes(dtype: Any) -> bool:
    return bool(dtype.type.__module__ == "ml_dtypes")
