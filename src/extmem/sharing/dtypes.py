"""What programs write for an element type, as an `ElementType`: names, codes, and types of the frameworks.

How this works. No framework is imported: an object can be a type of NumPy's, PyTorch's or PyArrow's only if that
module is in `sys.modules`. Types are mapped by what they mean. A NumPy type is looked at as a whole, since its name has
no byte order, and the kinds and codes of ml_dtypes' types are arbitrary ('V', '<V2'). The text of an object of another
package is never taken for a name: PyArrow's "float" has 32 bits, Python's has 64.

A code of the array interface ("<f4", "|S8") means what it means to NumPy: "f16" is an element of 16 bytes.
"""

from __future__ import annotations

import sys
from typing import Any

from extmem.owning import late_imports
from extmem.sharing.elements import (
    ELEMENT_NAMES,
    FOREIGN,
    NAMED_ELEMENTS,
    NATIVE,
    ElementType,
    Field,
    element_type,
    known_types,
    structure,
)

__all__ = ["descr", "element_of", "typestr"]

_ALIASES = {"bool_": "bool", "int": "int64", "float": "float64", "complex": "complex128", "half": "float16",
            "single": "float32", "double": "float64"}  # fmt: skip
_PYTHONS = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex", "M": "datetime64", "m": "timedelta64",
          "S": "bytes", "U": "str", "V": "void"}  # fmt: skip
"""NumPy's kinds of elements that are plain memory; the codes of the array interface begin with the same letters."""
_CODES = {
    element_type(f"{_KINDS[kind]}{size * 8}"): f"{kind}{size}"
    for kind, sizes in (("i", (1, 2, 4, 8)), ("u", (1, 2, 4, 8)), ("f", (2, 4, 8, 16)), ("c", (8, 16, 32)))
    for size in sizes
} | {element_type("bool"): "b1"}
_FROM_CODES = {code: element for element, code in _CODES.items()}
_OPAQUE_IN_TORCH = ("qint", "quint", "bits")
"""The beginnings of names of PyTorch's quantized types, whose values depend on the tensor, and of its untyped bits."""


def element_of(dtype: object) -> ElementType:
    """Return the element type that a program means.

    dtype: an `ElementType`; a name ("float32", "bfloat16", any canonical text of `sharing.elements`); a code with the
        size ("<f4", "M8[ns]", "S16"); Python's bool, int, float or complex; a type or dtype of NumPy, ml_dtypes, CuPy,
        JAX, PyTorch or PyArrow; DLPack's (code, bits, lanes), which means packed elements below 8 bits.
    Errors: ValueError with the element types that can be shared, or with the one to use instead.
    """
    if type(dtype) is str and (named := NAMED_ELEMENTS.get(dtype)) is not None:
        return named  # most programs pass a name
    if isinstance(dtype, ElementType):
        return dtype
    found: ElementType | None
    if isinstance(dtype, str):
        found = _of_text(str(dtype))
    elif isinstance(dtype, type) and dtype in _PYTHONS:
        found = element_type(_PYTHONS[dtype])
    elif isinstance(dtype, tuple):
        found = _of_dlpack(dtype)
    else:
        numpy_type = _numpy_dtype(dtype)
        found = _of_numpy(numpy_type, dtype) if numpy_type is not None else _of_torch(dtype) or _of_pyarrow(dtype)
    if found is None:
        raise ValueError(
            f"{dtype!r:.200} is not an element type that can be shared{_near(dtype)}; use one of {known_types()}; the "
            f"code of one "
            f"with its size ('{NATIVE}f4', 'f4'), its NumPy type, or Python's bool, int, float or complex"
        )
    return found


def _near(dtype: object) -> str:
    """Return a question that names similar element types, for an error."""
    with late_imports():
        from difflib import get_close_matches

    near = get_close_matches(dtype[:40].lower(), ELEMENT_NAMES) if isinstance(dtype, str) else []
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def typestr(element: ElementType) -> str | None:
    """Return the array interface's code; None for types that it lacks, as bfloat16 and all of fewer than 8 bits."""
    if element.kind in ("bytes", "void", "struct"):
        return f"|{'S' if element.kind == 'bytes' else 'V'}{element.itemsize}"
    order, plain = element.byte_order, element.swapped() if not element.native else element
    if plain.kind in ("datetime", "timedelta"):
        unit = plain.text.partition("[")[2]
        return f"{order}{'M' if plain.kind == 'datetime' else 'm'}8{'[' if unit else ''}{unit}"
    if plain.kind == "str":
        return f"{order}U{plain.bits // 32}"
    code = _CODES.get(plain)
    return None if code is None else f"{order}{code}"


def descr(element: ElementType) -> list[Any] | None:
    """Return the array interface's description of a structure. None for others, and for one that it cannot express.

    It lacks gaps, overlaps, and the types that `typestr` lacks.
    """
    rows: list[Any] = []
    end = 0
    for name, inner, shape, offset in element.fields:
        code = descr(inner) if inner.fields else typestr(inner)
        if code is None or offset != end or not name:
            return None
        rows.append((name, code, shape) if shape else (name, code))
        end = offset + Field(name, inner, shape, offset).size
    return rows if rows and end == element.itemsize else None


def _of_text(text: str) -> ElementType | None:
    try:
        return element_type(_ALIASES.get(text, text))
    except ValueError:
        pass
    # A code, or a name with a byte order that needs none: this machine's, or of a type of single bytes.
    order, body = (text[0], text[1:]) if text[:1] in ("<", ">", "=", "|") else ("=", text)
    found = _FROM_CODES.get(body) or _of_code(body)
    if found is None and text[:1] in ("<", ">", "="):
        try:
            found = element_type(body)
        except ValueError:
            return None
    return found.swapped() if found is not None and order == FOREIGN else found


def _of_code(code: str) -> ElementType | None:
    """Return the type of a code that ends with a size or unit: "M8[ns]", "S16"."""
    kind, rest = code[:1], code[1:]
    if kind in ("M", "m"):
        rest = rest[1:] if rest[:1] == "8" else "x"
    elif kind not in ("S", "U", "V"):
        return None
    try:
        return element_type(f"{_KINDS[kind]}{rest}")
    except ValueError:
        return None


def _of_dlpack(triple: tuple[object, ...]) -> ElementType | None:
    if len(triple) != 3 or not all(isinstance(one, int) for one in triple):
        return None
    alike = [one for one in map(element_type, ELEMENT_NAMES) if one.dlpack == triple]
    return next((one for one in alike if one.packed), alike[0] if alike else None)


def _numpy_dtype(dtype: object) -> Any:
    """Return the NumPy dtype that an object is, stands for (`numpy.float32`), or has (`jax.numpy.float32`); or None."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "dtype"):
        return None  # then it is nothing of NumPy's
    if isinstance(dtype, numpy.dtype):
        return dtype
    if isinstance(dtype, type):
        if issubclass(dtype, numpy.generic):
            # The abstract types (numpy.generic, numpy.floating) are the bases of several element types, and the
            # flexible ones (numpy.str_) and dates have no size or unit.
            concrete = dtype.__name__ in numpy.sctypeDict or dtype.__module__ == "ml_dtypes"
            found = numpy.dtype(dtype) if concrete else None
            return found if found is not None and found.itemsize else None
        if dtype.__module__ == "ml_dtypes":  # some of its types are not derived from numpy.generic
            return numpy.dtype(dtype)
    had = getattr(dtype, "dtype", None)
    return had if isinstance(had, numpy.dtype) else None


def _of_numpy(found: Any, given: object) -> ElementType | None:
    if found.hasobject:
        raise ValueError(
            f"{given!r} is not an element type that can be shared: its elements are Python objects, and their bytes "
            "are addresses in this process; convert them first: array.astype('float32'), or the type that they have"
        )
    if found.subdtype is not None:
        inner, extents = found.subdtype
        raise ValueError(
            f"{given!r} is not an element type that can be shared: each element is an array; use {inner.str!r}, and "
            f"add the extents {extents} to the end of the shape"
        )
    if found.names is not None:
        return _of_structured(found)
    module = found.type.__module__
    if module == "ml_dtypes":
        return _known(found.name)
    if not module.startswith("numpy") or found.kind not in _KINDS or not found.itemsize:
        return None
    kind = _KINDS[found.kind]
    if found.kind in "Mm":
        text = found.str[1:].partition("[")
        found_type = _known(f"{kind}{text[1]}{text[2]}")
    elif found.kind == "b":
        return element_type("bool")
    elif found.kind in "SUV":
        found_type = _known(f"{kind}{found.itemsize // (4 if found.kind == 'U' else 1)}")
    else:
        found_type = _known(f"{kind}{found.itemsize * 8}")
    return found_type if found_type is None or found.isnative else found_type.swapped()


def _of_structured(found: Any) -> ElementType:
    fields = []
    for name in found.names:
        described, offset = found.fields[name][:2]
        if len(found.fields[name]) > 2:
            raise ValueError(
                f"field {name!r} has the title {found.fields[name][2]!r}, which cannot be shared; remove it"
            )
        base, shape = described.subdtype if described.subdtype is not None else (described, ())
        try:
            element = element_of(base)
        except ValueError as error:
            raise ValueError(f"field {name!r}: {error}") from None
        fields.append(Field(name, element, tuple(shape), offset))
    return structure(fields, found.itemsize)


def _known(text: str) -> ElementType | None:
    try:
        return element_type(text)
    except ValueError:
        return None


def _of_torch(dtype: object) -> ElementType | None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(dtype, getattr(torch, "dtype", ())):
        return None
    name = str(dtype).removeprefix("torch.")
    if name.startswith(_OPAQUE_IN_TORCH):
        raise ValueError(
            f"{dtype!r} is not an element type that can be shared: the bytes alone are not its values; share the "
            "integers (tensor.int_repr(), tensor.view(torch.uint8)) and keep the scale beside them"
        )
    return _known(name)


def _of_pyarrow(dtype: object) -> ElementType | None:
    pyarrow: Any = sys.modules.get("pyarrow")
    if pyarrow is None or not isinstance(dtype, getattr(pyarrow, "DataType", ())):
        return None
    known = {"halffloat": "float16", "float": "float32", "double": "float64", "date64[ms]": "datetime64[ms]"}
    text, types = str(dtype), pyarrow.types
    if types.is_integer(dtype):
        return _known(text)
    if types.is_timestamp(dtype) and dtype.tz is None:  # type: ignore[attr-defined]
        return _known(f"datetime64[{dtype.unit}]")  # type: ignore[attr-defined]
    if types.is_duration(dtype):
        return _known(f"timedelta64[{dtype.unit}]")  # type: ignore[attr-defined]
    if types.is_fixed_size_binary(dtype):
        return _known(f"void{dtype.byte_width}")  # type: ignore[attr-defined]
    if types.is_floating(dtype) or types.is_date64(dtype):
        return _known(known.get(text, text))
    raise ValueError(
        f"PyArrow's {text} is not an element type that can be shared: its values are in several buffers, or smaller "
        "than a byte, or have a time zone; cast the column first (bool to uint8, date32 to int32), or share the Arrow "
        "IPC stream as bytes"
    )
