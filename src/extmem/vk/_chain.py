"""Walking pNext chains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from extmem.vk._base import ChainStruct

__all__ = ["chain", "find"]

T = TypeVar("T", bound=ChainStruct)


def chain(struct: ChainStruct) -> Iterator[ChainStruct]:
    """The structs chained to `struct` by `p_next`, in order, `struct` itself left out.

    A chain that leads back into itself raises ValueError when the struct met twice would be given again, and one that
    has something else than a struct TypeError.
    """
    seen = {id(struct)}
    link = struct.p_next
    while link is not None:
        if id(link) in seen:
            raise ValueError(
                f"the pNext chain of {struct.C_NAME} comes back to {link.C_NAME}: end it with p_next=None or a copy"
            )
        if not isinstance(link, ChainStruct):
            raise TypeError(f"the pNext chain of {struct.C_NAME} has {link!r}, which is not a struct of extmem.vk")
        seen.add(id(link))
        yield link
        link = link.p_next


def find(struct: ChainStruct, cls: type[T]) -> T | None:
    """The first struct of class `cls` chained to `struct`, or None."""
    for link in chain(struct):
        if isinstance(link, cls):
            return link
    return None
