"""Checks of arguments, the same for all calls: whole numbers, flags, calls of classes, and the texts of their errors.

Python takes True for 1 and False for 0. A program that passes one of them as a number has usually confused two
arguments, so only flags take them.
"""

from __future__ import annotations

import operator
from typing import Any, ClassVar, Self

__all__ = ["CheckedWhenMade", "MadeByFunctions", "a_type", "check_flag", "integer_of", "whole_number"]

_VOWELS = "aeiouAEIOU"


def a_type(value: object) -> str:
    """Return the name of the value's type with its article, for messages: `an int`, `a str`."""
    name = type(value).__name__
    return f"{'an' if name[:1] in _VOWELS else 'a'} {name}"


def check_flag(value: object, what: str) -> None:
    """Raise TypeError for a flag that is not a bool: other values are usually another argument by mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} is {value!r}, {a_type(value)}; give True or False")


def integer_of(value: object) -> int | None:
    """Return the int of an integer of any type, such as NumPy's; None for bools, floats, text and other values."""
    if type(value) is int:
        return value
    if value is True or value is False:
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # this is the check of the type
    except TypeError:
        return None


def whole_number(value: object, what: str, advice: str = "give a whole number") -> int:
    """Return the int of an integer of any type. what: the name of the value. advice: the end of the message.

    Errors: TypeError for what `integer_of` refuses.
    """
    if type(value) is int:
        return value
    number = integer_of(value)
    if number is None:
        raise TypeError(f"{what} is {value!r}, {a_type(value)}; {advice}")
    return number


class MadeByFunctions:
    """Base of public classes whose objects only functions and methods of the library make, from its own records."""

    __slots__ = ()

    _made_by: ClassVar[str]
    """The calls that make an object, for the message."""
    _made_of: ClassVar[type | tuple[type, ...]] = ()
    """What the first argument is, in a call of the library."""

    @classmethod
    def _refusal(cls, given: tuple[Any, ...], named: dict[str, Any]) -> TypeError:
        """Return the error for a call with anything but what the library gives. It names the call to use instead."""
        return TypeError(
            f"{cls.__name__}(…) is called by the library alone, and got {_listed(given, named)}; "
            f"call {cls._made_by} to get one"
        )


class CheckedWhenMade(MadeByFunctions):
    """`MadeByFunctions` that checks each call, before `__init__`. Memory, which is opened often, checks it there."""

    __slots__ = ()

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Errors: TypeError; see `_refusal`."""
        if not (given and isinstance(given[0], cls._made_of)) and not cls._is_from_library(given):
            raise cls._refusal(given, named)
        return super().__new__(cls)

    @classmethod
    def _is_from_library(cls, given: tuple[Any, ...]) -> bool:
        """Return whether these can be arguments from the library, although the first is not one of `_made_of`."""
        return False


def _listed(given: tuple[Any, ...], named: dict[str, Any]) -> str:
    kinds = [type(one).__name__ for one in given] + [f"{name}={type(one).__name__}" for name, one in named.items()]
    return f"({', '.join(kinds)})" if kinds else "no arguments"
