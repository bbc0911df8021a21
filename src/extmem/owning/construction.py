"""`MadeByFunctions`: the base of public classes whose objects only functions and methods of the library make."""

from __future__ import annotations

from typing import Any, ClassVar, Self

__all__ = ["MadeByFunctions"]


class MadeByFunctions:
    """A class that programs do not call: its arguments are records of the library. Programs may subclass it."""

    __slots__ = ()

    _made_by: ClassVar[str]
    """The calls that make an object, for the message."""
    _made_of: ClassVar[type | tuple[type, ...]]
    """What the first argument is, in a call of the library."""

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Errors: TypeError for a call with anything but what the library gives. It names the call to use instead."""
        if not cls._is_from_library(given):
            raise TypeError(
                f"{cls.__name__}(…) is called by the library alone, and got {_listed(given, named)}; "
                f"call {cls._made_by} to get one"
            )
        return super().__new__(cls)

    @classmethod
    def _is_from_library(cls, given: tuple[Any, ...]) -> bool:
        """Return whether these can be arguments from the library."""
        return bool(given) and isinstance(given[0], cls._made_of)


def _listed(given: tuple[Any, ...], named: dict[str, Any]) -> str:
    kinds = [type(one).__name__ for one in given] + [f"{name}={type(one).__name__}" for name, one in named.items()]
    return f"({', '.join(kinds)})" if kinds else "no arguments"
