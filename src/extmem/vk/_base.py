"""Base classes of the generated structs and commands, and the one Win32 struct that the registry does not describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec

from extmem.forks import no_fork
from extmem.vk._generated import enums

if TYPE_CHECKING:
    from extmem.vk._generated.enums import StructureType

__all__ = ["ChainStruct", "Command", "Handle", "Param", "SecurityAttributes", "Struct"]

Handle: TypeAlias = object | None
"""A Vulkan or Win32 handle: an int, an object of this library that represents one, or None for the null handle."""

_LONGEST_CHAIN = 64
_DEEPEST = 8
"""Number of levels of nested structs that a repr shows."""


class _DataclassFields:
    """`__dataclass_fields__` of a struct, by which the standard library's `dataclasses` knows it: made at first use."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[type, dict[str, Any]] = {}

    def __get__(self, instance: object, owner: type | None = None) -> dict[str, Any]:
        cls = owner or type(instance)
        found = self._made.get(cls)
        if found is None:
            found = self._made.setdefault(cls, _dataclass_fields(cls))
        return found


def _dataclass_fields(cls: type[Any]) -> dict[str, Any]:
    with no_fork():
        from dataclasses import field, make_dataclass

    # Each field of a struct has a default, which never changes: a number, an enum, bytes, an empty tuple or None.
    defaults = zip(cls.__match_args__, cls.__init__.__defaults__ or (), strict=True)
    fields = [(name, Any, field(default=default)) for name, default in defaults]
    made: Any = make_dataclass("_", fields, init=False, repr=False, eq=False)
    return made.__dataclass_fields__  # type: ignore[no-any-return]


class Struct:
    """A Vulkan struct. Fields are compared by value. Creating it checks nothing; `extmem.rules` has the checks."""

    __slots__ = ()
    C_NAME: ClassVar[str]
    __match_args__: ClassVar[tuple[str, ...]] = ()
    if not TYPE_CHECKING:  # type checkers see generated dataclasses
        __dataclass_fields__ = _DataclassFields()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        # Without recursion: a chain may be of any length, and lead back into itself.
        pairs: list[tuple[Any, Any]] = [(self, other)]
        seen: set[tuple[int, int]] = set()
        while pairs:
            one, another = pairs.pop()
            if (id(one), id(another)) in seen:
                continue
            seen.add((id(one), id(another)))
            for name in one.__match_args__:
                mine, theirs = getattr(one, name), getattr(another, name)
                if isinstance(mine, Struct) and type(mine) is type(theirs):
                    pairs.append((mine, theirs))
                elif mine != theirs:
                    return False
        return True

    __hash__ = None  # type: ignore[assignment]  # mutable; mypy expects this only in dataclasses that define it themselves

    def __repr__(self) -> str:
        return _shown(self, _DEEPEST)


def _shown(struct: Struct, depth: int) -> str:
    """Return a struct and its chain as text, with dots for a repeated struct, and after 64 structs of a chain."""
    parts: list[str] = []
    seen: set[int] = set()
    node: object = struct
    while isinstance(node, Struct) and id(node) not in seen and len(seen) < _LONGEST_CHAIN:
        seen.add(id(node))
        fields = []
        for name in node.__match_args__:
            value = getattr(node, name) if name != "p_next" else None
            if isinstance(value, Struct):
                fields.append(f"{name}={_shown(value, depth - 1) if depth else '...'}")
            else:
                fields.append(f"{name}={value!r}")
        following = node.p_next if isinstance(node, ChainStruct) else None
        text = f"{type(node).__name__}({', '.join(fields)})"
        if following is None:
            return "".join(parts) + text + ")" * len(parts)
        parts.append(text.removesuffix("None)"))
        node = following
    return "".join(parts) + ("..." if isinstance(node, Struct) else repr(node)) + ")" * len(parts)


class ChainStruct(Struct):
    """A Vulkan struct with sType and pNext, which can be part of a chain."""

    __slots__ = ("p_next",)
    S_TYPE: ClassVar[StructureType]
    p_next: ChainStruct | None

    @property
    def s_type(self) -> StructureType:
        """`sType`, fixed by the class."""
        return self.S_TYPE


class SecurityAttributes(Struct):
    """`SECURITY_ATTRIBUTES` of Win32: who may open the exported object, and whether children inherit the handle.

    security_descriptor: SDDL text, which the platform's manager converts to a security descriptor; or a self-relative
    security descriptor as bytes; or the address of one, which must outlive the call; or None for the default of the
    process.
    """

    __slots__ = ("inherit_handle", "security_descriptor")
    __match_args__ = ("security_descriptor", "inherit_handle")
    C_NAME: ClassVar[str] = "SECURITY_ATTRIBUTES"

    def __init__(self, security_descriptor: str | bytes | int | None = None, inherit_handle: bool = False) -> None:
        self.security_descriptor = security_descriptor
        self.inherit_handle = inherit_handle


class Param(msgspec.Struct, frozen=True):
    """One parameter of a command. `length`: the parameter or expression with the number of a pointer's elements."""

    c_name: str
    name: str
    c_type: str
    optional: bool
    length: str


class Command(msgspec.Struct, frozen=True):
    """One command with its parameters and result codes. `level`: what its first parameter belongs to."""

    c_name: str
    return_type: str
    params: tuple[Param, ...]
    success_codes: tuple[enums.Result, ...]
    error_codes: tuple[enums.Result, ...]
    level: str
    origin: str
    aliases: tuple[str, ...]
