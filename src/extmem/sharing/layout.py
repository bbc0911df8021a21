"""Where an array's elements lie in a payload, checked before anyone looks: pure arithmetic."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Protocol, SupportsIndex, TypeAlias

import msgspec

from extmem.arguments import a_type, whole_number
from extmem.sharing.dtypes import element_of
from extmem.sharing.elements import ElementType, element_type, nbytes_of

__all__ = [
    "ArrayLayout",
    "Axes",
    "DescribedArray",
    "axes_of",
    "contiguous_strides",
    "is_dense",
    "layout_for",
    "overlapping_axis",
    "reach_of",
    "without_odd_strides",
]


Axes: TypeAlias = SupportsIndex | Iterable[SupportsIndex] | None
"""One whole number an axis, or that of the only one; None for the descriptor's."""


class DescribedArray(Protocol):
    """What a descriptor says of the array in its payload."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""

    @property
    def dtype(self) -> str:
        """The canonical text of the element type."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes between neighbours, per axis; bits for packed element types."""


class ArrayLayout(msgspec.Struct, frozen=True):
    """An array in a payload: shape in elements, strides and offset in bytes; the strides of packed types in bits."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def element(self) -> ElementType:
        """What the elements are."""
        return element_type(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without gaps between them."""
        return nbytes_of(self.element, self.shape)

    @property
    def row_major(self) -> bool:
        """Whether the elements are in row-major order, without gaps."""
        return is_dense(self.shape, self.strides, self.element.step, range(len(self.shape) - 1, -1, -1))


def without_odd_strides(layout: ArrayLayout) -> ArrayLayout:
    """Return the same elements with usual strides for axes of one element or none, which may have any."""
    element, shape = layout.element, layout.shape
    if layout.row_major:
        strides = contiguous_strides(shape, element.step)
    else:
        strides = tuple(s if n > 1 else element.step for n, s in zip(shape, layout.strides, strict=True))
    return layout if strides == layout.strides else ArrayLayout(shape, layout.dtype, strides, layout.offset)


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


def contiguous_strides(shape: Sequence[int], item: int, order: str = "C") -> tuple[int, ...]:
    """Strides without gaps. item: `ElementType.step`. order: "C" for row-major, "F" for column-major."""
    strides = []
    step = item
    for extent in reversed(shape) if order == "C" else shape:
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides) if order == "C" else strides)


def is_dense(shape: Sequence[int], strides: Sequence[int], item: int, fastest_first: Iterable[int]) -> bool:
    """Return whether elements have no gaps between them, in this order of the axes. Axes of one may have any stride."""
    if 0 in shape:
        return True
    for axis in fastest_first:
        if shape[axis] > 1:
            if strides[axis] != item:
                return False
            item *= shape[axis]
    return True


def reach_of(shape: Sequence[int], strides: Sequence[int], element: ElementType) -> tuple[int, int]:
    """Return the first byte of the elements and the byte after the last, from the array's offset; 0, 0 if empty."""
    if 0 in shape:
        return 0, 0
    item = element.itemsize
    first, last = 0, item or element.bits
    for extent, stride in zip(shape, strides, strict=True):
        if stride < 0:
            first += (extent - 1) * stride
        else:
            last += (extent - 1) * stride
    return (first // 8, (last + 7) // 8) if item is None else (first, last)


def overlapping_axis(shape: Sequence[int], strides: Sequence[int], item: int) -> tuple[int, int] | None:
    """Return the stride of an axis whose parts overlap, and the reach of a part; None if no two elements share bytes.

    Strides that interleave without overlapping count as overlapping. Axes of one element may have any stride.
    """
    if 0 in shape:
        return None
    reach = item
    for stride, extent in sorted((stride, extent) for extent, stride in zip(shape, strides, strict=True) if extent > 1):
        if stride < reach:
            return stride, reach
        reach = stride * (extent - 1) + reach
    return None


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
    if dtype is not None:
        element = element_of(dtype)
    else:
        element = element_type(described.dtype if described is not None else "uint8")
    if not 0 <= offset <= payload_size:
        raise ValueError(f"offset {offset} lies outside the payload of {payload_size} bytes")
    if shape is None and strides is not None and described is not None:
        shape = described.shape
    if shape is None:
        rest = (payload_size - offset) * 8
        if rest % element.storage_bits:
            raise ValueError(
                f"{payload_size - offset} bytes are not a whole number of {element.text} elements of "
                f"{_size_text(element)}; give a shape"
            )
        extents: tuple[int, ...] = (rest // element.storage_bits,)
    else:
        extents = axes_of(shape, "shape")
    if any(extent < 0 for extent in extents):
        raise ValueError(f"shape {extents} has a negative extent")
    steps = axes_of(strides, "strides") if strides is not None else contiguous_strides(extents, element.step)
    if len(steps) != len(extents):
        raise ValueError(f"{len(steps)} strides for {len(extents)} axes; give one per axis")
    first, last = reach_of(extents, steps, element)
    if offset + first < 0 or offset + last > payload_size:
        raise ValueError(
            f"shape {extents} with strides {steps} at offset {offset} reaches bytes {offset + first} to "
            f"{offset + last} of a payload of {payload_size} bytes; choose a smaller shape or allocate more"
        )
    return ArrayLayout(extents, element.text, steps, offset)


def _size_text(element: ElementType) -> str:
    return f"{element.bits} bits" if element.itemsize is None else f"{element.itemsize} bytes"
