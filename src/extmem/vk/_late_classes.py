"""Generated classes that are made when their names are first used.

To make an enum takes Python some 10 µs for each member, and the registry has more than a thousand, besides a hundred
structs whose defaults are enums. So a generated module has tables or functions, and the `__getattr__` of a
`LateClasses`; a stub file has the classes for type checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, IntFlag
from types import new_class
from typing import Any, TypeAlias

from extmem.vk._bits import complement

__all__ = ["LateClasses", "enum_class", "struct_class"]

Row: TypeAlias = tuple[str, int, Mapping[str, int]]
"""An enum: its docstring, its width in bits, its members. An alias has the value of a member before it."""


class LateClasses:
    """The classes of one module, whose globals keep those that have been made."""

    def __init__(
        self, module: dict[str, Any], aliases: Mapping[str, str], make: Callable[[dict[str, Any], str], type]
    ) -> None:
        """module: its globals, with `__all__`; aliases: other name → name; make: makes the class with a name."""
        self._module = module
        self._aliases = aliases
        self._make = make

    def of_name(self, name: str) -> object:
        """Return the class with this name or alias. Threads get the same class. Errors: AttributeError."""
        module = self._module
        if name not in module["__all__"]:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        own = self._aliases.get(name, name)
        made = module.get(own) or module.setdefault(own, self._make(module, own))
        module[name] = made
        return made


def enum_class(module: dict[str, Any], name: str) -> type:
    """Return a new class of an enum or of flags, from `BASE` and the row in `CLASSES` of its module."""
    base: type[IntEnum] | type[IntFlag] = module["BASE"]
    row: Row = module["CLASSES"][name]
    doc, width, members = row

    def fill(body: dict[str, Any]) -> None:
        body["__module__"] = module["__name__"]
        body["__doc__"] = doc
        for member, value in members.items():
            body[member] = value
        if issubclass(base, IntFlag):
            body["__invert__"] = lambda value: complement(value, width)

    return new_class(name, (base,), {}, fill)


def struct_class(module: dict[str, Any], name: str) -> type:
    """Return a new class of a struct, from the function of its module that makes it."""
    made: Any = module[f"_{name}"]()
    made.__qualname__ = name
    made.__init__.__qualname__ = f"{name}.__init__"
    return made  # type: ignore[no-any-return]
