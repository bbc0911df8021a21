"""Deep copies of structs, so that a call uses the values that were checked even if the caller changes them later."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from extmem.vk._base import ChainStruct, SecurityAttributes, Struct

__all__ = ["copy_struct"]

T = TypeVar("T")

_LONGEST_CHAIN = 4096
_DEPTH = 4
"""Maximum nesting of structs and sequences; the registry has less. Deeper values are not copied, and never valid."""
_immutable: Final[set[type]] = {int, bool, str, bytes, float, type(None)}
"""Types whose values cannot be changed; those of enums are added when a value is met."""
_STRUCTS: Final = "extmem.vk._generated.structs"
_ENUMS: Final = ("extmem.vk._generated.enums", "extmem.vk._generated.flags")
_fields: Final[dict[type, tuple[str, ...]]] = {}
"""The structs that have been copied, and their fields without p_next."""


def _fields_of(cls: type[Any]) -> tuple[str, ...] | None:
    """Return the fields of a struct that is copied, None for a class derived from one."""
    known = _fields.get(cls)
    if known is None and (cls is SecurityAttributes or cls.__module__ == _STRUCTS):
        known = _fields[cls] = tuple(name for name in cls.__match_args__ if name != "p_next")
    return known


def copy_struct(value: T, depth: int = _DEPTH) -> T:
    """Return a copy of a struct of `extmem.vk`, with its chain, its nested structs, and its sequences (as tuples).

    Handles and memory in it stay the same objects. An object that is not a struct is returned unchanged, so that the
    rules report it. A chain that leads back into itself does so in the copy. depth: levels of nesting that are copied.
    Errors: ValueError for a chain of more than 4096 structs; errors that the elements of a sequence raise when read.
    """
    if value.__class__ not in _fields and (not isinstance(value, Struct) or _fields_of(value.__class__) is None):
        return value
    first: Any = None
    previous: Any = None
    copies: dict[int, Any] = {}
    link: Any = value
    while (
        isinstance(link, Struct)
        and (fields := _fields.get(link.__class__) or _fields_of(link.__class__)) is not None
        and id(link) not in copies
    ):
        if len(copies) == _LONGEST_CHAIN:
            raise ValueError(f"the pNext chain has more than {_LONGEST_CHAIN} structs; end it with p_next=None")
        copy = copies[id(link)] = object.__new__(link.__class__)
        for name in fields:
            field = getattr(link, name)
            setattr(copy, name, field if field.__class__ in _immutable else _copy_value(field, depth))
        if previous is None:
            first = copy
        else:
            previous.p_next = copy
        if not isinstance(link, ChainStruct):
            return first  # type: ignore[no-any-return]
        previous, link = copy, link.p_next
    previous.p_next = copies.get(id(link), link)
    return first  # type: ignore[no-any-return]


def _copy_value(value: Any, depth: int) -> Any:
    """Return a copy of a value that does not change when the original is changed."""
    if value.__class__ is tuple and not value:
        return value
    if isinstance(value, Struct) and _fields_of(value.__class__) is not None:
        return copy_struct(value, depth - 1) if depth else value
    if isinstance(value, int):
        if not isinstance(value, Enum):
            return int.__int__(value)
        if type(value).__module__ in _ENUMS:
            _immutable.add(type(value))
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if depth and isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(one if one.__class__ in _immutable else _copy_value(one, depth - 1) for one in value)
    return value
