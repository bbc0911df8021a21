"""Element types by NumPy's names, and what a program may write for them. No framework is imported.

How this works. A name does not have the byte order, so a NumPy type is looked at as a whole. Only the types of Python
and NumPy are taken by their names: the text of another object may mean another type (PyArrow's 32-bit "float").
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["ITEMSIZES", "NATIVE", "dtype_name", "itemsize", "typestr"]

ITEMSIZES = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}
"""Bytes per element. Native byte order; structured types, strings and objects cannot be shared."""

NATIVE = "<" if sys.byteorder == "little" else ">"
"""This machine's byte order in a code."""

_FOREIGN = ">" if NATIVE == "<" else "<"
_NAMES = {name: name for name in ITEMSIZES}
_KIND_WORDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_ALIASES = {"bool_": "bool", "int": "int64", "float": "float64", "complex": "complex128", "half": "float16",
            "single": "float32", "double": "float64"}  # fmt: skip
_BYTE_CODES = {"bool": "|b1", "int8": "|i1", "uint8": "|u1"}
_PYTHONS = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}


def dtype_name(dtype: object) -> str:
    """The name of an element type given as a name ("float32"), a code ("<f4"), a NumPy dtype or type, or a Python type.

    Errors: ValueError with the names that can be shared; also for a byte order that is not this machine's.
    """
    name = None
    if isinstance(dtype, str):
        name = _NAMES.get(_ALIASES.get(dtype, dtype)) or _from_code(dtype)
        swapped = f"{NATIVE}{dtype[1:]}"
        if name is None and dtype[:1] == _FOREIGN and (native := _from_code(swapped)):
            if ITEMSIZES[native] > 1:
                raise _foreign(dtype, native, dtype)
            name = native  # one byte has no order
    elif isinstance(dtype, type) and dtype in _PYTHONS:
        name = _PYTHONS[dtype]
    else:
        found = _numpy_dtype(dtype)
        if found is not None:
            if not found.isnative:
                raise _foreign(found, found.newbyteorder("=").name, found.str)
            name = _NAMES.get(found.name)
    if name is None:
        raise ValueError(
            f"{dtype!r} is not an element type that can be shared; use one of {', '.join(ITEMSIZES)}, the code of one "
            f"with its size ('{NATIVE}f4', 'f4'), its NumPy type, or Python's bool, int, float or complex"
        )
    return name


def itemsize(name: str) -> int:
    """Bytes per element of a name from `dtype_name`."""
    return ITEMSIZES[name]


def typestr(name: str) -> str:
    """The array interface's code of a name from `dtype_name`."""
    return _BYTE_CODES.get(name) or f"{NATIVE}{name[0]}{itemsize(name)}"


def _numpy_dtype(dtype: object) -> Any:
    """The NumPy dtype that an object is, stands for (`numpy.float32`), or has (`jax.numpy.float32`); else None."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None  # then it is nothing of NumPy's
    if isinstance(dtype, numpy.dtype):
        return dtype
    if isinstance(dtype, type) and issubclass(dtype, numpy.generic):
        # The abstract types (numpy.generic, numpy.floating) are the bases of several element types.
        return numpy.dtype(dtype) if dtype.__name__ in numpy.sctypeDict else None
    had = getattr(dtype, "dtype", None)
    return had if isinstance(had, numpy.dtype) else None


def _foreign(dtype: object, native: str, code: str) -> ValueError:
    return ValueError(
        f"{dtype!r} has a byte order that is not this machine's, and memory is shared in its own: use "
        f"{native!r} and convert the values (array.astype), or look at the bytes as they are: "
        f"memory.numpy('uint8').view({code!r})"
    )


def _from_code(code: str) -> str | None:
    """Array-interface codes: "<f4", "|u1", "f8"."""
    plain = code.lstrip(f"{NATIVE}=|")
    if len(plain) < 2 or plain[0] not in _KIND_WORDS or not (plain[1:].isascii() and plain[1:].isdigit()):
        return None
    if plain[0] == "b":
        return "bool" if plain == "b1" else None
    return _NAMES.get(f"{_KIND_WORDS[plain[0]]}{int(plain[1:]) * 8}")
