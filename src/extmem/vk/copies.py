"""Deep copies of structs, so that a call uses the values that were checked even if the caller changes them later."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from extmem.vk._base import ChainStruct, SecurityAttributes, Struct
from extmem.vk._generated import enums, flags, structs

__all__ = ["copied"]

T = TypeVar("T")

_LONGEST_CHAIN = 4096
_DEPTH = 4
"""Maximum nesting of structs and sequences; the registry has less. Deeper values are not copied, and never valid."""
_OURS: Final = frozenset(
    kind for kind in vars(structs).values() if isinstance(kind, type) and issubclass(kind, Struct)
) | {SecurityAttributes}
_PLAIN: Final = frozenset({int, bool, str, bytes, float, type(None)}) | frozenset(
    kind for module in (enums, flags) for kind in vars(module).values() if isinstance(kind, type)
)
"""Types whose values cannot be changed."""
_FIELDS: Final = {kind: tuple(name for name in kind.__match_args__ if name != "p_next") for kind in _OURS}


def copied(value: T) -> T:
    """Return a copy of a struct of `extmem.vk`, with its chain, its nested structs, and its sequences (as tuples).

    Handles and memory in it stay the same objects. An object that is not a struct is returned unchanged, so that the
    rules report it. A chain that leads back into itself does so in the copy.
    Errors: ValueError for a chain of more than 4096 structs; errors that the elements of a sequence raise when read.
    """
    return _copied(value, _DEPTH)


def _copied(value: T, depth: int) -> T:
    if value.__class__ not in _OURS:
        return value
    first: Any = None
    previous: Any = None
    copies: dict[int, Any] = {}
    link: Any = value
    while (fields := _FIELDS.get(link.__class__)) is not None and id(link) not in copies:
        if len(copies) == _LONGEST_CHAIN:
            raise ValueError(f"the pNext chain has more than {_LONGEST_CHAIN} structs; end it with p_next=None")
        copy = copies[id(link)] = object.__new__(link.__class__)
        for name in fields:
            field = getattr(link, name)
            setattr(copy, name, field if field.__class__ in _PLAIN else _field(field, depth))
        if previous is None:
            first = copy
        else:
            previous.p_next = copy
        if not isinstance(link, ChainStruct):
            return first  # type: ignore[no-any-return]
        previous, link = copy, link.p_next
    previous.p_next = copies.get(id(link), link)
    return first  # type: ignore[no-any-return]


def _field(value: Any, depth: int) -> Any:
    """Return a copy of a field's value that does not change when the original is changed."""
    if value.__class__ is tuple and not value:
        return value
    if value.__class__ in _OURS:
        return _copied(value, depth - 1) if depth else value
    if isinstance(value, int):
        return value if isinstance(value, Enum) else int.__int__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if depth and isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(one if one.__class__ in _PLAIN else _field(one, depth - 1) for one in value)
    return value
