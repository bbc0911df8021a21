"""Conditions under which a call breaks a rule, for the rows of tables (`_engine.Demand`).

Each function takes names of attributes of the call, with dots (`"info.size"`), and returns the condition. A condition
returns a true value if the call breaks the rule; the docstring names the value where reports contain it. A limit that
is None is unknown, and no call breaks a rule that depends on it.
"""

from __future__ import annotations

from collections.abc import Container
from operator import attrgetter
from typing import Any

from extmem.rules._engine import Condition

__all__ = [
    "above",
    "all_of",
    "always",
    "equals",
    "has_bits",
    "is_given",
    "is_true",
    "is_zero",
    "lacks_extension",
    "lacks_feature",
    "not_index",
    "not_multiple",
    "not_one_of",
    "not_positive",
    "reaches_past",
    "undefined_bits",
]


def all_of(*conditions: Condition) -> Condition:
    """All of the conditions. The value is that of the last one."""

    def broken(call: Any) -> object:
        value: object = None
        for condition in conditions:
            value = condition(call)
            if not value:
                return None
        return value

    return broken


def always(_call: Any) -> bool:
    """Return True: any call with the traits of the row breaks the rule."""
    return True


def is_zero(field: str) -> Condition:
    """The field is 0, None, False or empty."""
    value = attrgetter(field)

    def broken(call: Any) -> object:
        return not value(call)

    return broken


def is_true(field: str) -> Condition:
    """The field is not 0, None, False or empty. The value is the field's."""
    value = attrgetter(field)

    def broken(call: Any) -> object:
        return value(call)

    return broken


def is_given(field: str) -> Condition:
    """The field is not None."""
    value = attrgetter(field)

    def broken(call: Any) -> object:
        return value(call) is not None

    return broken


def not_positive(field: str) -> Condition:
    """The field is 0 or negative."""
    value = attrgetter(field)

    def broken(call: Any) -> object:
        return value(call) <= 0

    return broken


def not_one_of(field: str, values: Container[int]) -> Condition:
    """The field is not one of these values."""
    value = attrgetter(field)

    def broken(call: Any) -> object:
        return value(call) not in values

    return broken


def equals(field: str, number: int) -> Condition:
    """The field is this number."""
    value = attrgetter(field)

    def broken(call: Any) -> object:
        return value(call) == number

    return broken


def above(field: str, limit: str) -> Condition:
    """The field is greater than another one. The value is both."""
    values = attrgetter(field, limit)

    def broken(call: Any) -> object:
        value, most = values(call)
        return (value, most) if most is not None and value > most else None

    return broken


def not_index(field: str, count: str) -> Condition:
    """The field is not one of the numbers from 0 to `count` - 1."""
    values = attrgetter(field, count)

    def broken(call: Any) -> object:
        index, number = values(call)
        return number is not None and not 0 <= index < number

    return broken


def reaches_past(first: str, number: str, end: str) -> Condition:
    """The range begins before the end, and ends after it. The value is what remains from the first on."""
    values = attrgetter(first, number, end)

    def broken(call: Any) -> object:
        begin, length, limit = values(call)
        return limit - begin if 0 <= begin < limit < begin + length else None

    return broken


def not_multiple(field: str, unit: str | int) -> Condition:
    """The field is not a multiple of a number, or of another field, unless that is 0.

    The value is the multiples before and after it.
    """
    value = attrgetter(field)
    divisor = attrgetter(unit) if isinstance(unit, str) else None

    def broken(call: Any) -> object:
        number = unit if divisor is None else divisor(call)
        if not number or not value(call) % number:
            return None
        before = value(call) // number * number
        return before, before + number

    return broken


def has_bits(field: str, bits: int, *, without: int = 0) -> Condition:
    """The field has one of the bits, and none of those in `without`. The value is those of the bits that it has."""
    value = attrgetter(field)
    wanted = int(bits)
    others = int(without)

    def broken(call: Any) -> object:
        mask = int(value(call))
        return mask & wanted if not mask & others else None

    return broken


def undefined_bits(field: str, defined: int) -> Condition:
    """The field has other bits than the defined ones. The value is these bits."""
    value = attrgetter(field)
    others = ~int(defined)

    def broken(call: Any) -> object:
        return int(value(call)) & others

    return broken


def lacks_feature(name: str) -> Condition:
    """The device's features are known, and this one is not enabled."""

    def broken(call: Any) -> object:
        features = call.device.features if call.device is not None else None
        return features is not None and name not in features

    return broken


def lacks_extension(*names: str) -> Condition:
    """The device's extensions are known, and none of these is enabled."""

    def broken(call: Any) -> object:
        enabled = call.device.extensions
        return enabled is not None and enabled.isdisjoint(names)

    return broken
