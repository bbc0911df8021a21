"""Element types of arrays: a registry of names, and `ElementType`, what each of them is. Pure; no framework is needed.

How this works. An element type has one canonical text, which travels in descriptors and tables:

- a plain name, as NumPy and ml_dtypes have it: "float32", "bfloat16", "float8_e4m3fn", "complex32";
- types of fewer than 8 bits that take a whole byte each, as in ml_dtypes: "int4", "float6_e2m3fn"; and the same types
  packed without gaps, the first element in the lowest bits: "int4_packed", "float6_e2m3fn_packed";
- "float4_e2m1fn_x2", PyTorch's type: a byte of two numbers is one element;
- dates and durations with NumPy's units: "datetime64[ns]", "timedelta64[25us]", "datetime64" without a unit;
- fixed text: "bytes16" (bytes), "str8" (characters of 4 bytes each), and uninterpreted bytes: "void16";
- structures: `{"x":float32@0,"m":(3,4)int16@4}28`, that is for each field its name as JSON in ASCII, its extents if it
  is an array, its type, the "@" and its offset in bytes, and at the end the size of the whole in bytes;
- before a type with a byte order that is not this machine's, "<" or ">": ">float32", ">str8", ">datetime64[ns]".

`element_type` accepts canonical texts only, so two texts are equal if and only if the types are. The text may come from
another process: it is bounded, and every number in it is checked. What programs write for a type (`numpy.float32`,
"<f4", `torch.bfloat16`) is `sharing.dtypes`' subject.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import Final, NamedTuple

import msgspec

from extmem.owning import late_imports

__all__ = [
    "ELEMENT_NAMES",
    "FOREIGN",
    "ITEMSIZE_LIMIT",
    "NAMED_ELEMENTS",
    "NATIVE",
    "TEXT_LIMIT",
    "ElementType",
    "Field",
    "element_type",
    "known_types",
    "nbytes_of",
    "structure",
]

NATIVE: Final = "<" if sys.byteorder == "little" else ">"
"""This machine's byte order in a code of the array interface."""

FOREIGN: Final = ">" if NATIVE == "<" else "<"
"""The other byte order; the first character of the text of an element type that has it."""

TEXT_LIMIT: Final = 1024
"""Most characters of the text of an element type. A descriptor has at most 4 KiB."""

ITEMSIZE_LIMIT: Final = (1 << 31) - 1
"""Most bytes of an element."""

_DEPTH_LIMIT = 16
_COUNT_LIMIT = (1 << 31) - 1
_TIME_UNITS = frozenset(("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"))


class Field(NamedTuple):
    """A field of a structure."""

    name: str
    element: ElementType
    shape: tuple[int, ...]
    """Extents of a field that is an array; () otherwise. Such an array is in row-major order."""
    offset: int
    """Bytes from the beginning of the structure."""

    @property
    def size(self) -> int:
        """Bytes that the field takes."""
        return prod(self.shape) * (self.element.itemsize or 0)


class ElementType(msgspec.Struct, frozen=True):
    """What an element of an array is."""

    text: str
    """The canonical text, which `element_type` accepts."""
    kind: str
    """One of bool, int, uint, float, complex, datetime, timedelta, bytes, str, void, struct."""
    bits: int
    """Bits of the value: 4 for "int4" and for "int4_packed"."""
    itemsize: int | None
    """Bytes from one element to the next without gaps; None for packed types."""
    alignment: int = 1
    """Bytes that an address of it is a multiple of in C. A structure whose fields are not aligned has less."""
    dlpack: tuple[int, int, int] | None = None
    """Code, bits and lanes in DLPack; None if DLPack lacks it. Types that are `padded` need its flag for that, too."""
    fields: tuple[Field, ...] = ()
    """The fields of a structure, in the order of their declaration."""

    @property
    def packed(self) -> bool:
        """Whether elements are of fewer than 8 bits, without gaps between them. The first is in the lowest bits."""
        return self.itemsize is None

    @property
    def padded(self) -> bool:
        """Whether elements are of fewer than 8 bits and take a byte each, its lowest bits."""
        return self.bits < 8 and self.itemsize == 1

    @property
    def storage_bits(self) -> int:
        """Bits from one element to the next without gaps."""
        return self.bits if self.itemsize is None else self.itemsize * 8

    @property
    def step(self) -> int:
        """The stride between neighbours without gaps. Strides are in bytes; those of packed types are in bits."""
        return self.bits if self.itemsize is None else self.itemsize

    @property
    def name(self) -> str:
        """The text without the byte order."""
        return self.text.lstrip(FOREIGN)

    @property
    def native(self) -> bool:
        """Whether its bytes, and those of all fields, are in this machine's order."""
        return all(one.element.native for one in self.fields) if self.fields else self.text[0] != FOREIGN

    @property
    def byte_order(self) -> str:
        """ "<" or ">"; "|" if it has none, as elements of one byte have none. A structure has that of its fields."""
        if self.fields or not self._ordered:
            return "|"
        return FOREIGN if self.text[0] == FOREIGN else NATIVE

    @property
    def unpacked(self) -> ElementType:
        """The type of the same values with a byte for each; itself if it is not packed."""
        return NAMED_ELEMENTS[self.text.removesuffix("_packed")] if self.packed else self

    def swapped(self) -> ElementType:
        """Return the same type with the other byte order; itself if it has none. Fields are swapped, too."""
        if self.fields:
            return structure((Field(n, e.swapped(), s, o) for n, e, s, o in self.fields), self.itemsize or 0)
        if not self._ordered:
            return self
        return element_type(self.name if self.text[0] == FOREIGN else FOREIGN + self.text)

    @property
    def _ordered(self) -> bool:
        return self.kind not in ("bytes", "void", "struct") and (self.itemsize or 0) > 1


def _plain() -> dict[str, ElementType]:
    rows: list[ElementType] = [ElementType("bool", "bool", 8, 1, 1, (6, 8, 1))]
    for code, kind in enumerate(("int", "uint")):
        rows += [ElementType(f"{kind}{n}", kind, n, 1, 1, (code, n, 1)) for n in range(1, 8)]
        rows += [ElementType(f"{kind}{n}", kind, n, n // 8, n // 8, (code, n, 1)) for n in (8, 16, 32, 64)]
    rows += [ElementType(f"float{n}", "float", n, n // 8, n // 8, (2, n, 1)) for n in (16, 32, 64)]
    rows.append(ElementType("float128", "float", 128, 16, 16))
    rows.append(ElementType("bfloat16", "float", 16, 2, 2, (4, 16, 1)))
    small = ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
    rows += [ElementType(f"float8_{n}", "float", 8, 1, 1, (code, 8, 1)) for code, n in enumerate(small, 7)]
    rows += [ElementType(f"float6_{n}", "float", 6, 1, 1, (code, 6, 1)) for code, n in ((15, "e2m3fn"), (16, "e3m2fn"))]
    rows.append(ElementType("float4_e2m1fn", "float", 4, 1, 1, (17, 4, 1)))
    rows.append(ElementType("float4_e2m1fn_x2", "float", 8, 1, 1, (17, 4, 2)))
    rows += [ElementType(f"complex{n}", "complex", n, n // 8, n // 16, (5, n, 1)) for n in (32, 64, 128)]
    rows += [ElementType("complex256", "complex", 256, 32, 16), ElementType("bcomplex32", "complex", 32, 4, 2)]
    rows += [ElementType(f"{e.text}_packed", e.kind, e.bits, None, 1, e.dlpack) for e in rows if e.bits < 8]
    return {one.text: one for one in rows}


NAMED_ELEMENTS: Final = _plain()
"""All types that are numbers, by name."""

ELEMENT_NAMES: Final = tuple(NAMED_ELEMENTS)


def known_types() -> str:
    """Return what can be shared, as the list in error messages."""
    names = ", ".join(name for name in ELEMENT_NAMES if not name.endswith("_packed"))
    return (
        f"{names}; those of fewer than 8 bits also with _packed at the end; datetime64 and timedelta64 with a unit "
        f"such as [ns]; bytesN, strN and voidN; structures of these; '{FOREIGN}' before a name for the other byte order"
    )


def element_type(text: str) -> ElementType:
    """Return the element type of a canonical text. Errors: ValueError with the texts that there are."""
    found = NAMED_ELEMENTS.get(text)
    if found is None:
        if len(text) > TEXT_LIMIT:
            raise ValueError(
                f"the text of an element type has {len(text)} characters, and at most {TEXT_LIMIT} are used"
            )
        found = _parsed(text)
    return found


def nbytes_of(element: ElementType, shape: Iterable[int]) -> int:
    """Return the bytes that an array takes without gaps between its elements; the last byte may be used in part."""
    count = prod(shape)
    return (count * element.bits + 7) // 8 if element.itemsize is None else count * element.itemsize


def structure(fields: Iterable[Field], itemsize: int) -> ElementType:
    """Return the type of structures with these fields. itemsize: bytes of the whole, gaps at the end included.

    Fields may overlap, as in a C union. Errors: ValueError for a field of a packed type, one that extends beyond the
    structure, two of the same name, no field at all, and more text or levels than the limits.
    """
    with late_imports():
        from json import dumps  # few programs have structures

    given, parts, names, alignment = tuple(fields), [], set(), 1
    if not given:
        raise ValueError("a structure without fields has no elements; give it a field, or use voidN for its bytes")
    if not 1 <= itemsize <= ITEMSIZE_LIMIT:
        raise ValueError(f"a structure has {itemsize} bytes; 1 to {ITEMSIZE_LIMIT} are possible")
    for name, element, shape, offset in given:
        if name in names:
            raise ValueError(f"the structure has two fields with the name {name!r}; rename one")
        names.add(name)
        if element.itemsize is None:
            raise ValueError(
                f"field {name!r} is {element.text}, and a field begins at a byte; use {element.unpacked.text}"
            )
        if any(not 0 <= extent <= ITEMSIZE_LIMIT for extent in shape):
            raise ValueError(f"field {name!r} has the shape {shape}; extents of 0 to {ITEMSIZE_LIMIT} are possible")
        if offset < 0 or offset + prod(shape) * element.itemsize > itemsize:
            raise ValueError(
                f"field {name!r} is at bytes {offset} to {offset + prod(shape) * element.itemsize} of a structure of "
                f"{itemsize} bytes; it must be inside"
            )
        extents = f"({','.join(map(str, shape))})" if shape else ""
        parts.append(f"{dumps(name)}:{extents}{element.text}@{offset}")
        alignment = max(alignment, element.alignment)
    while itemsize % alignment or any(offset % min(alignment, element.alignment) for _, element, _, offset in given):
        alignment //= 2  # a structure whose fields were packed without padding
    text = f"{{{','.join(parts)}}}{itemsize}"
    if len(text) > TEXT_LIMIT:
        raise ValueError(
            f"the fields of this structure take {len(text)} characters to describe, and a descriptor has room for "
            f"{TEXT_LIMIT}; use shorter names or fewer fields, or share the bytes as void{itemsize}"
        )
    if _depth(given) > _DEPTH_LIMIT:
        raise ValueError(f"structures are nested more than {_DEPTH_LIMIT} levels deep; flatten some of them")
    return ElementType(text, "struct", itemsize * 8, itemsize, alignment, None, given)


def _depth(fields: Sequence[Field]) -> int:
    return 1 + max((_depth(one.element.fields) for one in fields if one.element.fields), default=0)


@lru_cache(maxsize=512)
def _parsed(text: str) -> ElementType:
    try:
        found = _structured(text) if text.startswith("{") else _simple(text)
    except RecursionError:
        found = None
    if found is None or found.text != text:
        raise ValueError(
            f"{text[:80]!r} is not the text of an element type, such as 'float32', 'bfloat16', 'int4_packed', "
            f"'datetime64[ns]', '{FOREIGN}float32'; each has one spelling"
        )
    return found


def _simple(text: str) -> ElementType | None:
    """Return the type of a text that is not a structure. Its own text is canonical, and may differ."""
    foreign = text[:1] == FOREIGN
    body = text[1:] if foreign else text
    found = NAMED_ELEMENTS.get(body) or _timed(body) or _counted(body)
    if found is None or not foreign:
        return found
    if not found._ordered:
        return None
    return msgspec.structs.replace(found, text=text, dlpack=None)


def _timed(body: str) -> ElementType | None:
    """Return dates and durations: "datetime64[25us]"."""
    for prefix, kind in (("datetime64", "datetime"), ("timedelta64", "timedelta")):
        if body == prefix:
            return ElementType(body, kind, 64, 8, 8)
        if body.startswith(f"{prefix}[") and body.endswith("]"):
            inner = body[len(prefix) + 1 : -1]
            unit = inner.lstrip("0123456789")
            count = _number(inner[: len(inner) - len(unit)] or "1")
            if unit in _TIME_UNITS and count is not None and 1 <= count <= _COUNT_LIMIT:
                return ElementType(f"{prefix}[{count if count > 1 else ''}{unit}]", kind, 64, 8, 8)
    return None


def _counted(body: str) -> ElementType | None:
    """Return fixed text and bytes: "bytes16", "str8", "void4"."""
    for kind, width in (("bytes", 1), ("str", 4), ("void", 1)):
        count = _number(body.removeprefix(kind)) if body.startswith(kind) else None
        if count is not None and 1 <= count * width <= ITEMSIZE_LIMIT:
            return ElementType(f"{kind}{count}", kind, count * width * 8, count * width, width)
    return None


def _number(digits: str) -> int | None:
    """Return the number of a canonical text of up to 10 decimal digits."""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10) or (len(digits) > 1 and digits[0] == "0"):
        return None
    return int(digits)


def _structured(text: str) -> ElementType | None:
    found = _structure_at(text, 0, 0)
    return found[0] if found is not None and found[1] == len(text) else None


def _structure_at(text: str, place: int, depth: int) -> tuple[ElementType, int] | None:
    """Parse the structure at `place`; return it and the place after it."""
    with late_imports():
        from json import JSONDecodeError, JSONDecoder

    strings = JSONDecoder()
    fields: list[Field] = []
    if depth >= _DEPTH_LIMIT:
        return None
    while True:
        place += 1  # "{" or ","
        if text[place : place + 1] != '"':
            return None
        try:
            name, place = strings.raw_decode(text, place)
        except JSONDecodeError:
            return None
        if text[place : place + 1] != ":":
            return None
        place += 1
        shape: tuple[int, ...] = ()
        if text[place : place + 1] == "(":
            end = text.find(")", place)
            extents = [_number(one) for one in text[place + 1 : end].split(",")] if end > 0 else [None]
            shape = tuple(extent for extent in extents if extent is not None)
            if len(shape) != len(extents) or len(shape) > 64:
                return None
            place = end + 1
        if text[place : place + 1] == "{":
            nested = _structure_at(text, place, depth + 1)
            if nested is None:
                return None
            element, place = nested
        else:
            end = text.find("@", place)
            simple = _simple(text[place:end]) if end > 0 else None
            if simple is None:
                return None
            element, place = simple, end
        if text[place : place + 1] != "@":
            return None
        offset, place = _number_at(text, place + 1)
        if offset is None:
            return None
        fields.append(Field(name, element, shape, offset))
        if text[place : place + 1] == ",":
            continue
        if text[place : place + 1] != "}":
            return None
        itemsize, place = _number_at(text, place + 1)
        return None if itemsize is None else (structure(fields, itemsize), place)


def _number_at(text: str, place: int) -> tuple[int | None, int]:
    end = place
    while text[end : end + 1].isdigit():
        end += 1
    return _number(text[place:end]), end
