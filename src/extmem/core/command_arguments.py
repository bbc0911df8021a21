"""What a command takes out of its arguments: everything is read once, before anything is checked.

A struct or sequence is the caller's, and may hold something else the next time. So what is checked is a copy, and that
copy is what is recorded.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex, TypeVar

from extmem import rules, vk
from extmem.devices.types import ImageRegion
from extmem.vk.struct_copies import copy_struct

__all__ = ["check_structs", "each", "number", "own_structs", "region", "rest"]

S = TypeVar("S", bound=vk.ChainStruct)


def number(value: SupportsIndex, name: str) -> int:
    """An integer. TypeError for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, and it takes an integer") from None


def own_structs(given: Sequence[S]) -> Sequence[S]:
    """Copies of the structs of a sequence. What the rules refuse, another class or no sequence, stays as it is."""
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        return given
    return tuple(copy_struct(one) for one in tuple(given))


def each(given: Sequence[S]) -> Sequence[S]:
    """The structs that `own_structs` returned; none for what is not a sequence."""
    return given if isinstance(given, tuple) else ()


def check_structs(given: object, kind: type[vk.ChainStruct]) -> None:
    """TypeError for what `own_structs` left as it was: where the rules are not asked, nobody else refuses it."""
    if not isinstance(given, tuple) or any(type(one) is not kind for one in given):
        raise TypeError(f"{given!r} is not a sequence of vk.{kind.__name__}; pass one")


def region(
    info: vk.ImageCreateInfo,
    buffer_offset: SupportsIndex,
    mip_level: SupportsIndex,
    array_layer: SupportsIndex,
    aspect: SupportsIndex | None,
) -> ImageRegion:
    """One whole level of one layer in one aspect of an image; without an extent where the image lacks them."""
    level = number(mip_level, "mip_level")
    chosen = rules.default_aspect(info) if aspect is None else number(aspect, "aspect")
    extent = rules.copied_extent(info, level, chosen)
    layer = number(array_layer, "array_layer")
    return ImageRegion(number(buffer_offset, "buffer_offset"), level, layer, chosen, extent=extent)


def rest(*parts: tuple[int, int], whole: int = 1) -> int:
    """How many bytes buffers of these sizes have from these offsets on, all of them; a multiple of `whole`.

    `whole` where an offset is outside: then that is at fault, and not a size that nobody gave.
    """
    if all(0 <= offset < size for size, offset in parts):
        return min(size - offset for size, offset in parts) // whole * whole
    return whole
