"""Rows on handle types, which the tables of many structs and commands have in common."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from extmem.rules._conditions import undefined_bits
from extmem.rules._engine import Condition, Demand
from extmem.rules._text import DEFINED_TYPES, KNOWN_TYPE_BITS, types_text

__all__ = ["defined_but_not", "defined_types", "single_type"]


def single_type(vuids: str | tuple[str, ...], field: str, where: str, *, zero: bool = True, needs: int = 0) -> Demand:
    """Return the row that the field is exactly one bit that the registry defines, or zero if `zero` allows it."""
    value = attrgetter(field)

    def broken(call: Any) -> tuple[str, str] | None:
        handle_type = value(call)
        if handle_type in DEFINED_TYPES or (zero and not handle_type):
            return None
        if not handle_type:
            return "it is 0", "Give one handle type."
        if not handle_type & ~KNOWN_TYPE_BITS:
            return f"{types_text(handle_type)} are several handle types at once", "Give one handle type."
        return f"{int(handle_type):#x} is not a handle type", "Give one of ExternalMemoryHandleTypeFlagBits."

    return Demand(vuids, broken, where, "{found[0]}", "{found[1]}", needs)


def defined_but_not(field: str, types: int) -> Condition:
    """The field is one defined handle type, and not one of `types`. The value is its text.

    Values that are not a handle type break the `-parameter` rule.
    """
    value = attrgetter(field)

    def broken(call: Any) -> str:
        handle_type = value(call)
        return types_text(handle_type) if handle_type in DEFINED_TYPES and not handle_type & types else ""

    return broken


def defined_types(vuids: str | tuple[str, ...], field: str, where: str, *, needs: int = 0) -> Demand:
    """Return the row that the field, a mask of handle types, has defined bits only."""
    return Demand(
        vuids,
        undefined_bits(field, KNOWN_TYPE_BITS),
        where,
        "the bits {found:#x} are not handle types",
        "Give bits of ExternalMemoryHandleTypeFlagBits only.",
        needs,
    )
