"""Classes of enums and flags that are made when their names are first used.

To make a class takes Python some 10 µs for each member, and the registry has more than a thousand. A module of
generated enums has a table, and `__getattr__` of a `LateEnums`; a stub file has the classes for type checkers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from types import new_class
from typing import Any

from extmem.vk._bits import complement

__all__ = ["LateEnums"]


class LateEnums:
    """The classes of one module, whose globals keep those that have been made."""

    def __init__(
        self,
        base: type[IntEnum] | type[IntFlag],
        module: dict[str, Any],
        classes: Mapping[str, tuple[str, int, Mapping[str, int]]],
        aliases: Mapping[str, str],
    ) -> None:
        """classes: name → docstring, width in bits, members; aliases: other name → name."""
        self._base = base
        self._module = module
        self._classes = classes
        self._aliases = aliases

    def of_name(self, name: str) -> object:
        """Return the class with this name or alias. Threads get the same class. Errors: AttributeError."""
        own = self._aliases.get(name, name)
        if own not in self._classes:
            raise AttributeError(f"module {self._module['__name__']!r} has no attribute {name!r}")
        made = self._module.get(own) or self._module.setdefault(own, self._make(own))
        self._module[name] = made
        return made

    def _make(self, name: str) -> object:
        doc, width, members = self._classes[name]

        def fill(body: dict[str, Any]) -> None:
            body["__module__"] = self._module["__name__"]
            body["__doc__"] = doc
            for member, value in members.items():
                body[member] = value
            if issubclass(self._base, IntFlag):
                body["__invert__"] = lambda value: complement(value, width)

        return new_class(name, (self._base,), {}, fill)
