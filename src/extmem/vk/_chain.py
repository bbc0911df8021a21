"""Walking pNext chains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from extmem.vk._base import ChainStruct

__all__ = ["chain", "find"]

T = TypeVar("T", bound=ChainStruct)


def chain(struct: ChainStruct) -> Iterator[ChainStruct]:
    """Yield the structs chained to `struct` by `p_next`, in order, without `struct` itself.

    Errors: ValueError before a struct is yielded twice, because the chain leads back into itself; TypeError for an
    object in the chain that is not a struct.
    """
    seen = {id(struct)}
    link = struct.p_next
    while link is not None:
        if id(link) in seen:
            raise ValueError(
                f"the pNext chain of {struct.C_NAME} leads back to {link.C_NAME}: end it with p_next=None or a copy"
            )
        if not isinstance(link, ChainStruct):
            raise TypeError(f"the pNext chain of {struct.C_NAME} contains {link!r}, which is not a struct of extmem.vk")
        seen.add(id(link))
        yield link
        link = link.p_next


def find(struct: ChainStruct, cls: type[T]) -> T | None:
    """Return the first struct of class `cls` chained to `struct`, or None."""
    for link in chain(struct):
        if isinstance(link, cls):
            return link
    return None
