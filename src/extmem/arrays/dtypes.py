"""Element types by NumPy's names, and what a program may write for them. No framework is imported."""

from __future__ import annotations

__all__ = ["ITEMSIZES", "dtype_name", "itemsize"]

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

_KIND_WORDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_ALIASES = {"bool_": "bool", "int": "int64", "float": "float64", "complex": "complex128", "half": "float16",
            "single": "float32", "double": "float64"}  # fmt: skip


def dtype_name(dtype: object) -> str:
    """The name of an element type given as a name ("float32"), a code ("<f4"), a NumPy dtype or type, or a Python type.

    Errors: ValueError with the names that can be shared.
    """
    if isinstance(dtype, str):
        name = dtype
    else:
        name = getattr(dtype, "name", None) or getattr(dtype, "__name__", "") or str(dtype)
    name = _ALIASES.get(name, name)
    if name not in ITEMSIZES:
        name = _from_code(name) or name
    if name not in ITEMSIZES:
        raise ValueError(f"{dtype!r} is no element type that can be shared; use one of {', '.join(ITEMSIZES)}")
    return name


def itemsize(name: str) -> int:
    """Bytes per element of a name from `dtype_name`."""
    return ITEMSIZES[name]


def _from_code(code: str) -> str | None:
    """Array-interface codes: "<f4", "|u1", "f8"."""
    plain = code.lstrip("<=|")
    if len(plain) < 2 or plain[0] not in _KIND_WORDS or not plain[1:].isdigit():
        return None
    if plain[0] == "b":
        return "bool" if plain == "b1" else None
    return f"{_KIND_WORDS[plain[0]]}{int(plain[1:]) * 8}"
