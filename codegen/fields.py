"""The Python field of each C member: its kind, type and default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codegen import names, scope

if TYPE_CHECKING:
    from codegen.registry import CommandModel, StructModel

__all__ = ["Field", "Kinds", "of_c_struct", "of_struct", "types_used"]

INTS = ("uint32_t", "uint64_t", "int32_t", "int", "size_t", "DWORD", "VkDeviceSize")


@dataclass(frozen=True)
class Kinds:
    """The C types of each kind."""

    enums: frozenset[str]
    bitmasks: frozenset[str]
    flags: Mapping[str, tuple[str, int]]
    handles: Mapping[str, bool]
    structs: frozenset[str]
    constants: Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One C member.

    kind: s_type, p_next, count (derived from a sequence, not in Python), int, bool, float, enum, flags, handle (a
    64-bit number), pointer_handle (dispatchable, or HANDLE), address, wstr, security, struct, bytes, chars, array
    (fixed length), sequence (pointer and count), inline_sequence (fixed length and count), c (only used in C).
    """

    c_name: str
    c_declaration: str
    c_type: str
    kind: str
    py_name: str = ""
    py_type: str = ""
    default: str = ""
    element: str = ""
    """Kind of an element of an array or sequence."""
    length: int = 0
    """Number of elements of a fixed array."""
    count_field: str = ""
    enum: str = ""
    """Python name of the enum or flag type of a value."""


def of_struct(raw: Any, kinds: Kinds) -> tuple[Field, ...]:
    """Return all members of one registry struct, in C order."""
    counts = {m.length for m in raw.members if m.length and m.length in {x.name for x in raw.members}}
    return tuple(_field(raw.name, m, counts, kinds) for m in raw.members)


def of_c_struct(raw: Any) -> tuple[Field, ...]:
    """Return all members of a struct that is only used in C."""
    return tuple(Field(m.name, " ".join(str(m.cDeclaration).split()), str(m.type), "c") for m in raw.members)


def _field(struct: str, m: Any, counts: set[str], kinds: Kinds) -> Field:
    declaration = " ".join(str(m.cDeclaration).split())
    c_type = str(m.type)
    if m.name == "sType":
        return Field(m.name, declaration, c_type, "s_type")
    if m.name == "pNext":
        return Field(m.name, declaration, c_type, "p_next", "p_next", "ChainStruct | None", "None")
    if m.name in counts:
        return Field(m.name, declaration, c_type, "count")
    py_name = names.snake(names.strip_pointer(m.name) if m.pointer else m.name)
    if m.fixedSizeArray:
        if len(m.fixedSizeArray) != 1:
            raise ValueError(f"{struct}.{m.name}: arrays of arrays are not supported")
        room = m.fixedSizeArray[0]
        length = int(room) if room.isdigit() else int(kinds.constants[room])
        if c_type == "char":
            return Field(m.name, declaration, c_type, "chars", py_name, "str", '""', length=length)
        if c_type == "uint8_t":
            return Field(m.name, declaration, c_type, "bytes", py_name, "bytes", f"bytes({length})", length=length)
        kind, py_type, default, enum = _scalar(struct, m, kinds)
        if m.length in counts:
            return Field(
                m.name, declaration, c_type, "inline_sequence", py_name, f"Sequence[{py_type}]", "()", kind, length,
                m.length, enum,
            )  # fmt: skip
        default = "(" + ", ".join([default] * length) + ")"
        return Field(
            m.name, declaration, c_type, "array", py_name, f"Sequence[{py_type}]", default, kind, length, "", enum
        )
    if m.pointer:
        if c_type == "SECURITY_ATTRIBUTES":
            return Field(m.name, declaration, c_type, "security", py_name, "SecurityAttributes | None", "None")
        if m.length in counts:
            kind, py_type, _, enum = _scalar(struct, m, kinds)
            return Field(
                m.name, declaration, c_type, "sequence", py_name, f"Sequence[{py_type}]", "()", kind, 0, m.length, enum
            )
        if m.fullType == "void*":
            return Field(m.name, declaration, c_type, "address", py_name, "int", "0")
        raise ValueError(f"{struct}.{m.name}: the generator cannot express {declaration}")
    kind, py_type, default, enum = _scalar(struct, m, kinds)
    rule = scope.FIELD_RULES.get((struct, m.name))
    if rule is not None:
        py_name, py_type, default = rule.py_name, rule.py_type, rule.default
    return Field(m.name, declaration, c_type, kind, py_name, py_type, default, enum=enum)


def _scalar(struct: str, m: Any, kinds: Kinds) -> tuple[str, str, str, str]:
    """Return kind, Python type, default and enum of one value of the member's base type."""
    c_type = str(m.type)
    if c_type in kinds.enums or c_type in kinds.bitmasks:
        name = names.py_type_name(c_type)
        return "flags" if c_type in kinds.bitmasks else "enum", f"{name} | int", f"{name}(0)", name
    if c_type in kinds.flags:
        bits, _ = kinds.flags[c_type]
        if not bits:
            return "int", "int", "0", ""
        name = names.py_type_name(bits)
        return "flags", f"{name} | int", f"{name}(0)", name
    if c_type in kinds.handles or c_type == "HANDLE":
        pointer = c_type == "HANDLE" or kinds.handles[c_type]
        return "pointer_handle" if pointer else "handle", "Handle", "None", ""
    if c_type in kinds.structs:
        name = names.py_type_name(c_type)
        return "struct", name, f"field(default_factory={name})", ""
    if c_type in INTS:
        return "int", "int", "0", ""
    simple = {
        "VkBool32": ("bool", "bool", "False"),
        "float": ("float", "float", "0.0"),
        "LPCWSTR": ("wstr", "str | None", "None"),
    }
    if c_type in simple:
        return (*simple[c_type], "")
    raise ValueError(f"{struct}.{m.name}: {c_type} is neither in scope nor a type that the generator supports")


def types_used(structs: Iterable[StructModel], commands: Iterable[CommandModel]) -> frozenset[str]:
    """Return the C names of all types that a struct member, parameter or result mentions."""
    used = {f.c_type for s in structs for f in s.fields}
    for command in commands:
        used.add(command.return_type)
        for param in command.params:
            used.add(param.c_type.replace("const", "").replace("*", "").strip())
    return frozenset(used)
