"""Where an array's elements lie in a payload, checked before anyone looks: pure arithmetic."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from math import prod
from typing import Protocol, SupportsIndex, TypeAlias

from extmem.arguments import a_type, whole_number
from extmem.sharing.dtypes import dtype_name, itemsize

__all__ = ["ArrayLayout", "Axes", "DescribedArray", "axes_of", "contiguous_strides", "layout_for"]


Axes: TypeAlias = SupportsIndex | Iterable[SupportsIndex] | None
"""One whole number an axis, or that of the only one; None for the descriptor's."""


class DescribedArray(Protocol):
    """What a descriptor says of the array in its payload."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""

    @property
    def dtype(self) -> str:
        """Element type name."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes between neighbours, per axis."""


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """An array in a payload: shape in elements, strides and offset in bytes."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    offset: int = 0


def axes_of(values: Axes, what: str) -> tuple[int, ...]:
    """One whole number an axis; a number alone is that of the only one. TypeError for anything else."""
    if not isinstance(values, (str, bytes, bytearray, bool)):
        try:
            return (operator.index(values),)  # type: ignore[arg-type]
        except TypeError:
            pass
        try:
            return tuple(map(whole_number, values, map(f"{what}[{{}}]".format, count())))  # type: ignore[arg-type]
        except TypeError as error:
            if isinstance(values, Iterable):
                raise error from None
    raise TypeError(f"{what} is {values!r}, {a_type(values)}; give a whole number or a sequence of them")


def contiguous_strides(shape: Sequence[int], item: int) -> tuple[int, ...]:
    """Row-major (C order) strides in bytes."""
    strides = []
    step = item
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def layout_for(
    payload_size: int,
    described: DescribedArray | None,
    *,
    dtype: object = None,
    shape: Axes = None,
    strides: Axes = None,
    offset: SupportsIndex = 0,
) -> ArrayLayout:
    """The described layout, or the caller's, checked to lie inside `payload_size` bytes.

    With a dtype and no shape the rest of the payload is one axis; with strides the shape is the described one, unless
    it is given. Errors: ValueError with the sizes; TypeError for what are not whole numbers.
    """
    offset = whole_number(offset, "offset")
    if described is not None and dtype is None and shape is None and strides is None and offset == 0:
        return ArrayLayout(described.shape, described.dtype, described.strides)
    name = dtype_name(dtype) if dtype is not None else described.dtype if described is not None else "uint8"
    item = itemsize(name)
    if not 0 <= offset <= payload_size:
        raise ValueError(f"offset {offset} lies outside the payload of {payload_size} bytes")
    if shape is None and strides is not None and described is not None:
        shape = described.shape
    if shape is None:
        if (payload_size - offset) % item:
            raise ValueError(
                f"{payload_size - offset} bytes are not a whole number of {name} elements of {item} bytes; give a shape"
            )
        extents: tuple[int, ...] = ((payload_size - offset) // item,)
    else:
        extents = axes_of(shape, "shape")
    if any(extent < 0 for extent in extents):
        raise ValueError(f"shape {extents} has a negative extent")
    steps = axes_of(strides, "strides") if strides is not None else contiguous_strides(extents, item)
    if len(steps) != len(extents):
        raise ValueError(f"{len(steps)} strides for {len(extents)} axes; give one per axis")
    _check_inside(payload_size, extents, steps, item, offset)
    return ArrayLayout(extents, name, steps, offset)


def _check_inside(size: int, shape: tuple[int, ...], strides: tuple[int, ...], item: int, offset: int) -> None:
    if prod(shape) == 0:
        return
    reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    first = offset + sum(step for step in reach if step < 0)
    last = offset + sum(step for step in reach if step > 0) + item
    if first < 0 or last > size:
        raise ValueError(
            f"shape {shape} with strides {strides} at offset {offset} reaches bytes {first} to {last} "
            f"of a payload of {size} bytes; choose a smaller shape or allocate more"
        )
