"""Rows: elements of a payload that lie in rows of equal distance, with gaps between the rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from extmem.sharing.elements import ElementType

__all__ = ["Rows", "rows_of"]


class Rows(msgspec.Struct, frozen=True):
    """Where the bytes of an array without gaps lie in a payload: row by row, from its beginning."""

    size: int
    """Bytes of a row."""
    pitch: int
    """Bytes from the beginning of a row to that of the next."""


def rows_of(shape: Sequence[int], strides: Sequence[int], element: ElementType) -> Rows | None:
    """Return the rows that the elements are in, the axis with the smallest stride innermost; None without gaps.

    Errors: ValueError if they are in no rows of equal distance, and for packed elements with gaps.
    """
    axes = sorted((stride, extent) for stride, extent in zip(strides, shape, strict=True) if extent > 1)
    size, index = element.step, 0
    while index < len(axes) and axes[index][0] == size:
        size *= axes[index][1]
        index += 1
    if index == len(axes):
        return None
    pitch = expected = axes[index][0]
    for stride, extent in axes[index:]:
        if stride != expected or pitch < size or element.packed:
            raise ValueError(
                f"the payload's elements have gaps between them, and are in no rows of equal distance (strides "
                f"{tuple(strides)} for shape {tuple(shape)}); write through memory.numpy(), or pass bytes"
            )
        expected *= extent
    return Rows(size, pitch)
