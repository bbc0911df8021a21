"""Arguments of commands: each is read once, before anything is checked.

The caller can change a struct or sequence at any time. Therefore a copy is checked, and the same copy is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex, TypeVar

from extmem import rules, vk
from extmem.arguments import whole_number
from extmem.devices.types import ImageRegion
from extmem.vk.struct_copies import copy_struct

__all__ = ["check_structs", "copied_structs", "region", "remaining_bytes", "structs_in"]

S = TypeVar("S", bound=vk.ChainStruct)


def copied_structs(given: Sequence[S]) -> Sequence[S]:
    """Return a tuple of copies of structs. What is not a sequence is returned unchanged, so that the rules report it.

    So are elements that are not structs of `extmem.vk`.
    """
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        return given
    return tuple(copy_struct(struct) for struct in tuple(given))


def structs_in(given: Sequence[S]) -> Sequence[S]:
    """Return the structs that `copied_structs` returned; an empty sequence if its argument was not a sequence."""
    return given if isinstance(given, tuple) else ()


def check_structs(given: object, struct: type[vk.ChainStruct]) -> None:
    """Raise TypeError for what `copied_structs` returned unchanged. The rules do not refuse it with check="off"."""
    if not isinstance(given, tuple) or any(type(element) is not struct for element in given):
        raise TypeError(f"{given!r} is not a sequence of vk.{struct.__name__}; pass one")


def region(
    info: vk.ImageCreateInfo,
    buffer_offset: SupportsIndex,
    mip_level: SupportsIndex,
    array_layer: SupportsIndex,
    aspect: SupportsIndex | None,
) -> ImageRegion:
    """Return one whole level of one layer in one aspect of an image; its extent is zero if the image lacks them."""
    level = whole_number(mip_level, "mip_level")
    chosen = rules.default_aspect(info) if aspect is None else whole_number(aspect, "aspect")
    extent = rules.copied_extent(info, level, chosen)
    layer = whole_number(array_layer, "array_layer")
    return ImageRegion(whole_number(buffer_offset, "buffer_offset"), level, layer, chosen, extent=extent)


def remaining_bytes(*buffers: tuple[int, int], multiple: int = 1) -> int:
    """Return the number of bytes after the offset in each of the buffers (size, offset), rounded down to `multiple`.

    If an offset is outside its buffer, return `multiple`: the rules then report the offset, and not a size that the
    caller did not pass.
    """
    if all(0 <= offset < size for size, offset in buffers):
        return min(size - offset for size, offset in buffers) // multiple * multiple
    return multiple
