"""Structs of `extmem.vk` → C memory.

How this works: each struct in the chain becomes one `ffi.new` block. Each field is converted to the value that cffi
needs for the C member, and cffi writes all values of a block at once; structs inside the struct are parts of that
value. What a conversion needs is prepared once for each struct class, from the generated table: `_Member`. cffi frees
a block with the last Python reference to it, and pointers inside C memory are not references. So every block is put
into one list that the resulting `CStruct` owns.

This module checks only whether a value fits its C type, not what it means. A value that does not fit raises ValueError,
and a value of the wrong type raises TypeError; the message has the field and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn

import msgspec

from extmem.vk._base import ChainStruct, SecurityAttributes, Struct
from extmem.vk._fields import FieldSpec
from extmem.vk._generated._abi import ffi
from extmem.vk._generated.marshal import FIELDS

__all__ = ["CStruct", "to_c"]

POINTER_BITS = 8 * ffi.sizeof("void *")


class CStruct:
    """A struct in C memory. This object, not `cdata`, keeps the struct and everything it points to alive.

    cdata: cffi pointer to the struct, to pass to a C function. struct: the struct that it was built from.
    """

    __slots__ = ("__weakref__", "_keep", "cdata", "struct")

    def __init__(self, struct: Struct, cdata: Any, keep: list[Any]) -> None:
        self.struct = struct
        self.cdata = cdata
        self._keep = keep

    @property
    def address(self) -> int:
        """Address of the struct."""
        return int(ffi.cast("uintptr_t", self.cdata))

    def __repr__(self) -> str:
        return f"<CStruct {self.struct.C_NAME} at {self.address:#x}, {len(self._keep)} blocks>"


def to_c(struct: Struct) -> CStruct:
    """Build `struct` and everything that it refers to in C memory.

    Raises:
        ValueError: a value does not fit its C type; a name holds a NUL or half a surrogate pair; sequences that share a
            count differ in length; a fixed array has another length; the pNext chain leads back into itself; security
            attributes contain SDDL text, which the platform's manager must convert to a security descriptor first.
        TypeError: a field has a value of another type, or `struct` is not a struct of `extmem.vk`.
    """
    if not isinstance(struct, Struct):
        raise TypeError(f"{struct!r} is not a struct of extmem.vk")
    keep: list[Any] = []
    build = _security_attributes if isinstance(struct, SecurityAttributes) else _chain
    return CStruct(struct, build(struct, keep), keep)


class _Member:
    """A member of a struct, or an element of that member, with what the conversion of its values needs.

    name: the name of the field. where: the names of the struct and the member, for messages. convert: the function that
    returns the C value for a value of the field. lowest, highest: the range of its C type, if that is an integer.
    element: the elements, of an array or a sequence.
    """

    __slots__ = ("c_name", "c_type", "convert", "counter", "element", "highest", "lowest", "name", "spec", "where")
    element: _Member

    def __init__(self, where: str, spec: FieldSpec, kind: str, c_type: Any) -> None:
        self.where = where
        self.spec = spec
        self.c_name, self.name, self.counter = spec.c_name, spec.name, spec.counter
        self.convert = _CONVERTERS[kind]
        self.c_type = c_type
        if kind in ("array", "sequence", "inline_sequence"):
            self.element = _Member(where, spec, spec.element, c_type.item)
        signed = c_type.kind == "primitive" and int(ffi.cast(c_type, -1)) < 0
        bits = 8 * ffi.sizeof(c_type) - signed
        self.lowest, self.highest = -(1 << bits) if signed else 0, (1 << bits) - 1


class _Layout(msgspec.Struct, frozen=True):
    """The C type of a pointer to a struct, and the members that are filled from fields."""

    pointer: Any
    members: tuple[_Member, ...]


@cache  # one entry for each struct of the registry
def _layout(c_name: str) -> _Layout:
    fields = dict(ffi.typeof(c_name).fields)
    return _Layout(
        ffi.typeof(f"{c_name} *"),
        tuple(_Member(f"{c_name}.{spec.c_name}", spec, spec.kind, fields[spec.c_name].type) for spec in FIELDS[c_name]),
    )


def _chain(first: Struct, keep: list[Any]) -> Any:
    """Build the whole chain from `first` on, each link in its own block."""
    head = previous = None
    seen: set[int] = set()
    link: Struct | None = first
    while link is not None:
        layout = _layout(link.C_NAME)
        block = ffi.new(layout.pointer, _values(link, layout.members, keep))
        keep.append(block)
        if previous is None:
            head = block
        else:
            previous.pNext = block
        if not isinstance(link, ChainStruct):
            break
        seen.add(id(link))
        following: object = link.p_next
        if following is not None and not isinstance(following, ChainStruct):
            raise TypeError(
                f"{link.C_NAME}.pNext: {following!r} cannot be chained, "
                "only structs of extmem.vk that have an s_type can; pass one, or None to end the chain"
            )
        if id(following) in seen:
            raise ValueError(f"{link.C_NAME}.pNext: the chain leads back into itself; end it with p_next=None")
        previous, link = block, following
    return head


def _values(struct: Struct, members: tuple[_Member, ...], keep: list[Any]) -> dict[str, Any]:
    """Return the values of the C members of one struct, without pNext."""
    values: dict[str, Any] = {"sType": struct.S_TYPE} if isinstance(struct, ChainStruct) else {}
    for member in members:
        value = getattr(struct, member.name)
        values[member.c_name] = member.convert(value, member, keep, member.where)
        counter = member.counter
        if counter and values.setdefault(counter, len(value)) != len(value):
            other = next(sequence.name for sequence in members if sequence.counter == counter)
            raise ValueError(
                f"{member.where}: has {len(value)} elements, but {other} has {values[counter]}, "
                f"and {counter} counts both; give both the same length"
            )
    return values


def _wrong(where: str, value: object, wanted: str) -> NoReturn:
    raise TypeError(f"{where}: {value!r} is not {wanted}")


def _integer(value: object, where: str) -> int:
    """Return `value` if it is a number, or the number that it represents; see the module `extmem.vk.abi`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value is None:
        return 0
    if isinstance(value, (bool, str, bytes, bytearray, float, complex)):
        _wrong(where, value, "an int or an object that represents a handle")
    raw = getattr(value, "raw", None)
    if isinstance(raw, int):
        return int(raw)
    if not hasattr(value, "__int__") and not hasattr(value, "__index__"):
        _wrong(where, value, "an int or an object that represents a handle: it has neither raw nor __int__")
    return int(value)  # type: ignore[call-overload,no-any-return]  # the condition above ensures that int() works


def _int(value: object, member: _Member, keep: list[Any], where: str) -> int:
    number = value if type(value) is int else _integer(value, where)
    if not member.lowest <= number <= member.highest:
        raise ValueError(f"{where}: {value!r} does not fit {member.c_type.cname}")
    return number


def _pointer(value: object, member: _Member | None, keep: list[Any], where: str) -> Any:
    number = _integer(value, where)
    # cffi's cast would drop the upper bits silently. Negative numbers such as INVALID_HANDLE_VALUE (-1) are allowed.
    if not -(1 << (POINTER_BITS - 1)) <= number < 1 << POINTER_BITS:
        raise ValueError(f"{where}: {number:#x} does not fit a pointer of {POINTER_BITS} bits")
    return ffi.cast("void *", number)


def _float(value: object, member: _Member, keep: list[Any], where: str) -> float:
    if not isinstance(value, (int, float)):
        _wrong(where, value, "a number")
    return float(value)


def _bool(value: object, member: _Member, keep: list[Any], where: str) -> int:
    if not isinstance(value, int):
        _wrong(where, value, "a bool")
    return 1 if value else 0


def _wstr(value: object, member: _Member, keep: list[Any], where: str) -> Any:
    if value is None:
        return ffi.NULL
    if not isinstance(value, str):
        _wrong(where, value, "a str or None")
    if "\0" in value:
        raise ValueError(f"{where}: {value!r} holds a NUL at index {value.index(chr(0))}, where C would end the name")
    try:
        encoded = value.encode("utf-16-le")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: {value!r} holds half a surrogate pair (U+{ord(value[error.start]):04X}) at index {error.start}, "
            "which no UTF-16 name can; use the whole character"
        ) from None
    units = ffi.new("uint16_t[]", len(encoded) // 2 + 1)
    ffi.buffer(units)[: len(encoded)] = encoded
    keep.append(units)
    return units


def _chars(value: object, member: _Member, keep: list[Any], where: str) -> bytes:
    if not isinstance(value, str):
        _wrong(where, value, "a str")
    if "\0" in value:
        raise ValueError(f"{where}: {value!r} holds a NUL, where C would end the text")
    try:
        encoded = value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{where}: {value!r} holds half a surrogate pair, which UTF-8 cannot express") from None
    if len(encoded) >= member.spec.length:
        raise ValueError(f"{where}: {len(encoded)} bytes of UTF-8 and a NUL do not fit {member.spec.length} bytes")
    return encoded


def _bytes(value: object, member: _Member, keep: list[Any], where: str) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        _wrong(where, value, "bytes")
    data = bytes(value)
    if len(data) != member.spec.length:
        raise ValueError(f"{where}: has {len(data)} bytes, must have {member.spec.length}")
    return data


def _struct(value: object, member: _Member, keep: list[Any], where: str) -> dict[str, Any]:
    """Return the values of a struct that is a part of another struct, with its chain if it has one."""
    if not isinstance(value, Struct) or value.C_NAME != f"Vk{member.spec.type_name}":
        _wrong(where, value, f"a {member.spec.type_name}")
    values = _values(value, _layout(value.C_NAME).members, keep)
    if isinstance(value, ChainStruct) and value.p_next is not None:
        values["pNext"] = _chain(value.p_next, keep)
    return values


def _elements(value: object, member: _Member, keep: list[Any], where: str) -> list[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (tuple, Sequence)):  # Sequence alone takes 0.2 µs
        _wrong(where, value, "a sequence")
    element = member.element
    return [element.convert(one, element, keep, f"{where}[{index}]") for index, one in enumerate(value)]


def _array(value: object, member: _Member, keep: list[Any], where: str) -> list[Any]:
    elements = _elements(value, member, keep, where)
    if len(elements) != member.spec.length:
        raise ValueError(f"{where}: has {len(elements)} elements, must have {member.spec.length}")
    return elements


def _inline_sequence(value: object, member: _Member, keep: list[Any], where: str) -> list[Any]:
    elements = _elements(value, member, keep, where)
    if len(elements) > member.spec.length:
        raise ValueError(f"{where}: has {len(elements)} elements, there is room for {member.spec.length}")
    return elements


def _sequence(value: object, member: _Member, keep: list[Any], where: str) -> Any:
    elements = _elements(value, member, keep, where)
    if not elements:
        return ffi.NULL
    target = ffi.new(f"{member.spec.c_type}[]", elements)
    keep.append(target)
    return target


def _security(value: object, member: _Member, keep: list[Any], where: str) -> Any:
    if value is None:
        return ffi.NULL
    if not isinstance(value, SecurityAttributes):
        _wrong(where, value, "a SecurityAttributes or None")
    return _security_attributes(value, keep)


def _security_attributes(value: Any, keep: list[Any]) -> Any:
    where = "SECURITY_ATTRIBUTES.lpSecurityDescriptor"
    descriptor = value.security_descriptor
    if isinstance(descriptor, str):
        raise ValueError(
            f"{where}: {descriptor!r} is SDDL text, and C needs a security descriptor, which the platform's manager "
            "must build first; pass the security descriptor's bytes or its address"
        )
    if isinstance(descriptor, (bytes, bytearray, memoryview)):
        address = ffi.new("uint8_t[]", bytes(descriptor))
        keep.append(address)
    else:
        address = _pointer(descriptor, None, keep, where)
    length = ffi.sizeof("SECURITY_ATTRIBUTES")
    block = ffi.new("SECURITY_ATTRIBUTES *", (length, address, 1 if value.inherit_handle else 0))
    keep.append(block)
    return block


_CONVERTERS: dict[str, Callable[[Any, _Member, list[Any], str], Any]] = {
    "int": _int,
    "enum": _int,
    "flags": _int,
    "handle": _int,
    "pointer_handle": _pointer,
    "address": _pointer,
    "bool": _bool,
    "float": _float,
    "wstr": _wstr,
    "chars": _chars,
    "bytes": _bytes,
    "struct": _struct,
    "security": _security,
    "array": _array,
    "sequence": _sequence,
    "inline_sequence": _inline_sequence,
}
