"""Structs of `extmem.vk` → C memory.

How this works: each struct in the chain becomes one `ffi.new` block. The generated table has the field from which each
member is filled, and `_WRITERS` has the function that fills it. cffi frees a block with the last Python reference to
it, and pointers inside C memory are not references. So every block is put into one list that the resulting `CStruct`
owns.

This module checks only whether a value fits its C type, not what it means. A value that does not fit raises ValueError,
and a value of the wrong type raises TypeError; the message has the field and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

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
    keep: list[Any] = []
    cdata = _chain(struct, keep)
    return CStruct(struct, cdata, keep)


def _chain(first: Struct, keep: list[Any]) -> Any:
    """Build the whole chain from `first` on, each link in its own block."""
    head = previous = None
    seen: set[int] = set()
    link: Struct | None = first
    while link is not None:
        block = _new(link, keep)
        _fill(block, link, keep)
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


def _new(struct: Struct, keep: list[Any]) -> Any:
    if not isinstance(struct, Struct):
        raise TypeError(f"{struct!r} is not a struct of extmem.vk")
    block = ffi.new(f"{struct.C_NAME} *")
    keep.append(block)
    return block


def _fill(block: Any, struct: Struct, keep: list[Any]) -> None:
    """Fill the members of one struct; the caller links the chain."""
    if isinstance(struct, SecurityAttributes):
        _fill_security(block, struct, keep)
        return
    if isinstance(struct, ChainStruct):
        block.sType = int(struct.S_TYPE)
    counts: dict[str, tuple[str, int]] = {}
    for spec in FIELDS[struct.C_NAME]:
        value = getattr(struct, spec.name)
        where = f"{struct.C_NAME}.{spec.c_name}"
        try:
            _WRITERS[spec.kind](block, spec, value, keep, where)
        except OverflowError:
            raise ValueError(f"{where}: {value!r} does not fit {_c_type(block, spec.c_name)}") from None
        if spec.counter:
            other, length = counts.setdefault(spec.counter, (spec.name, len(value)))
            if length != len(value):
                raise ValueError(
                    f"{where}: has {len(value)} elements, but {other} has {length}, and {spec.counter} counts both; "
                    "give both the same length"
                )
            setattr(block, spec.counter, length)


def _c_type(block: Any, member: str) -> str:
    fields = dict(ffi.typeof(block).item.fields)
    return str(fields[member].type.cname)


def _wrong(where: str, value: object, wanted: str) -> NoReturn:
    raise TypeError(f"{where}: {value!r} is not {wanted}")


def integer(value: object, where: str) -> int:
    """Return `value` if it is a number, or the number that it represents; see the module `extmem.vk.abi`."""
    if type(value) is int:
        return value
    if value is None:
        return 0
    if isinstance(value, (str, bytes, bytearray, float, complex)):
        _wrong(where, value, "an int or an object that represents a handle")
    raw = getattr(value, "raw", None)
    if isinstance(raw, int):
        return int(raw)
    if not hasattr(value, "__int__") and not hasattr(value, "__index__"):
        _wrong(where, value, "an int or an object that represents a handle: it has neither raw nor __int__")
    return int(value)  # type: ignore[call-overload,no-any-return]  # the condition above ensures that int() works


def _pointer(value: object, where: str) -> Any:
    number = integer(value, where)
    # cffi's cast would drop the upper bits silently. Negative numbers such as INVALID_HANDLE_VALUE (-1) are allowed.
    if not -(1 << (POINTER_BITS - 1)) <= number < 1 << POINTER_BITS:
        raise ValueError(f"{where}: {number:#x} does not fit a pointer of {POINTER_BITS} bits")
    return ffi.cast("void *", number)


def _write_int(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    setattr(block, spec.c_name, integer(value, where))


def _write_pointer(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    setattr(block, spec.c_name, _pointer(value, where))


def _write_float(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    setattr(block, spec.c_name, _float(value, where))


def _float(value: object, where: str) -> float:
    if not isinstance(value, (int, float)):
        _wrong(where, value, "a number")
    return float(value)


def _write_bool(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    if not isinstance(value, int):
        _wrong(where, value, "a bool")
    setattr(block, spec.c_name, 1 if value else 0)


def _write_wstr(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    if value is None:
        return
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
    setattr(block, spec.c_name, units)


def _write_chars(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    if not isinstance(value, str):
        _wrong(where, value, "a str")
    if "\0" in value:
        raise ValueError(f"{where}: {value!r} holds a NUL, where C would end the text")
    try:
        encoded = value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{where}: {value!r} holds half a surrogate pair, which UTF-8 cannot express") from None
    if len(encoded) >= spec.length:
        raise ValueError(f"{where}: {len(encoded)} bytes of UTF-8 and a NUL do not fit {spec.length} bytes")
    setattr(block, spec.c_name, encoded)


def _write_bytes(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        _wrong(where, value, "bytes")
    data = bytes(value)
    if len(data) != spec.length:
        raise ValueError(f"{where}: has {len(data)} bytes, must have {spec.length}")
    ffi.buffer(getattr(block, spec.c_name))[:] = data


def _write_struct(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    _fill_inner(getattr(block, spec.c_name), spec, value, keep, where)


def _fill_inner(target: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    """Fill a struct that is a member of another struct, with its chain if it has one."""
    if not isinstance(value, Struct) or value.C_NAME != f"Vk{spec.type_name}":
        _wrong(where, value, f"a {spec.type_name}")
    _fill(target, value, keep)
    if isinstance(value, ChainStruct) and value.p_next is not None:
        target.pNext = _chain(value.p_next, keep)


def _elements(target: Any, spec: FieldSpec, value: Sequence[object], keep: list[Any], where: str) -> None:
    for index, element in enumerate(value):
        at = f"{where}[{index}]"
        if spec.element == "struct":
            _fill_inner(target[index], spec, element, keep, at)
        elif spec.element == "float":
            target[index] = _float(element, at)
        else:
            try:
                target[index] = integer(element, at)
            except OverflowError:
                raise ValueError(f"{at}: {element!r} does not fit {ffi.typeof(target).item.cname}") from None


def _sequence(value: object, where: str) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        _wrong(where, value, "a sequence")
    return value


def _write_array(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    values = _sequence(value, where)
    if len(values) != spec.length:
        raise ValueError(f"{where}: has {len(values)} elements, must have {spec.length}")
    _elements(getattr(block, spec.c_name), spec, values, keep, where)


def _write_inline_sequence(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    values = _sequence(value, where)
    if len(values) > spec.length:
        raise ValueError(f"{where}: has {len(values)} elements, there is room for {spec.length}")
    _elements(getattr(block, spec.c_name), spec, values, keep, where)


def _write_sequence(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    values = _sequence(value, where)
    if not values:
        return
    target = ffi.new(f"{spec.c_type}[]", len(values))
    keep.append(target)
    _elements(target, spec, values, keep, where)
    setattr(block, spec.c_name, target)


def _write_security(block: Any, spec: FieldSpec, value: object, keep: list[Any], where: str) -> None:
    if value is None:
        return
    if not isinstance(value, SecurityAttributes):
        _wrong(where, value, "a SecurityAttributes or None")
    target = _new(value, keep)
    _fill_security(target, value, keep)
    setattr(block, spec.c_name, target)


def _fill_security(block: Any, value: SecurityAttributes, keep: list[Any]) -> None:
    where = "SECURITY_ATTRIBUTES.lpSecurityDescriptor"
    descriptor = value.security_descriptor
    block.nLength = ffi.sizeof("SECURITY_ATTRIBUTES")
    block.bInheritHandle = 1 if value.inherit_handle else 0
    if isinstance(descriptor, str):
        raise ValueError(
            f"{where}: {descriptor!r} is SDDL text, and C needs a security descriptor, which the platform's manager "
            "must build first; pass the security descriptor's bytes or its address"
        )
    if isinstance(descriptor, (bytes, bytearray, memoryview)):
        data = ffi.new("uint8_t[]", bytes(descriptor))
        keep.append(data)
        block.lpSecurityDescriptor = data
    else:
        block.lpSecurityDescriptor = _pointer(descriptor, where)


_WRITERS: dict[str, Callable[[Any, FieldSpec, Any, list[Any], str], None]] = {
    "int": _write_int,
    "enum": _write_int,
    "flags": _write_int,
    "handle": _write_int,
    "pointer_handle": _write_pointer,
    "address": _write_pointer,
    "bool": _write_bool,
    "float": _write_float,
    "wstr": _write_wstr,
    "chars": _write_chars,
    "bytes": _write_bytes,
    "struct": _write_struct,
    "security": _write_security,
    "array": _write_array,
    "sequence": _write_sequence,
    "inline_sequence": _write_inline_sequence,
}
