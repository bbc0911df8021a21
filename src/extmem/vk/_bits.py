"""The complement of a flag value that reaches bits without a name."""

from __future__ import annotations

from enum import IntFlag
from typing import TypeVar

__all__ = ["complement"]

F = TypeVar("F", bound=IntFlag)


def complement(value: F, width: int) -> F:
    """All other bits of a flag type `width` bits wide.

    IntFlag's own `~` differs between Python versions, and in some leaves out the bits that have no name: then
    `flags & ~known` would say that nothing unknown is set. Every generated class has this as its `__invert__` (Python
    gives each IntFlag subclass a fresh one of its own, so it cannot be inherited).
    """
    return type(value)(~int(value) & ((1 << width) - 1))
