"""The complement of a flag value, including the bits that have no name."""

from __future__ import annotations

from enum import IntFlag
from typing import TypeVar

__all__ = ["complement"]

F = TypeVar("F", bound=IntFlag)


def complement(value: F, width: int) -> F:
    """Return all other bits of a flag type `width` bits wide.

    `~` of IntFlag differs between Python versions, and some versions omit the bits that have no name: then
    `flags & ~known` would be 0 although an unknown bit is set. Every generated class has this function as its
    `__invert__` (Python defines a new `__invert__` in each IntFlag subclass, so it cannot be inherited).
    """
    return type(value)(~int(value) & ((1 << width) - 1))
