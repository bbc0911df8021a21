"""Arguments of calls, converted to the plain strings and integers of the layers below, or refused."""

from __future__ import annotations

from math import prod

import msgspec

from extmem.arguments import a_type, whole_number
from extmem.errors import HandleStateError, UnsupportedError
from extmem.sharing.dtypes import element_of
from extmem.sharing.elements import ElementType, nbytes_of
from extmem.sharing.layout import Axes, axes_of, contiguous_strides, overlapping_axis, reach_of
from extmem.sharing.limits import AXES_LIMIT, SIZE_LIMIT
from extmem.vk.handle_types import MemoryHandleType

__all__ = [
    "NewArray",
    "access_of",
    "array_of",
    "check_share",
    "name_of",
    "not_copied",
    "of_another_device",
    "single_type",
    "types_of",
    "whole_number",
]


class NewArray(msgspec.Struct, frozen=True):
    """An array to allocate memory for."""

    shape: tuple[int, ...]
    element: ElementType
    strides: tuple[int, ...]
    """In bytes; in bits for packed element types."""
    nbytes: int
    """Bytes of its payload, gaps included; at least 1, because no driver allocates nothing."""


def array_of(
    shape: Axes, dtype: object, order: str | None = None, strides: Axes = None, row_pitch: int | None = None
) -> NewArray:
    """Return the array to allocate. Its layout is of at most one of order, strides and row_pitch.

    Errors: TypeError; ValueError for more than 64 axes or 2**63 - 1 bytes, for strides with which elements would lie
    before the payload or on each other, and for an order other than "C" and "F".
    """
    extents, element = axes_of(shape, "shape"), element_of(dtype)
    if len(extents) > AXES_LIMIT:
        raise ValueError(f"the shape has {len(extents)} axes, and memory has at most {AXES_LIMIT}; join some of them")
    if extents and min(extents) < 0:
        raise ValueError(f"shape {extents} has a negative extent; give 0 or more")
    plain = order is None and strides is None and row_pitch is None
    if plain and element.itemsize is not None and 0 < (nbytes := prod(extents) * element.itemsize) <= SIZE_LIMIT:
        return NewArray(extents, element, contiguous_strides(extents, element.itemsize), nbytes)
    if (order is not None) + (strides is not None) + (row_pitch is not None) > 1:
        raise ValueError("order, strides and row_pitch each give the whole layout; give one of them")
    too_large = ValueError(f"shape {extents} of {element.text} has more than {SIZE_LIMIT} bytes; give a smaller one")
    # Empty axes count as one element, so that the strides beside them are of a size, too.
    if nbytes_of(element, (max(extent, 1) for extent in extents)) > SIZE_LIMIT:
        raise too_large
    if order not in (None, "C", "F"):
        raise ValueError(
            f"order is {order!r}; give 'C' for row-major order (the default) or 'F' for column-major order"
        )
    if strides is not None:
        steps, nbytes = _checked_strides(extents, axes_of(strides, "strides"), element)
    elif row_pitch is not None:
        steps, nbytes = _pitched(extents, whole_number(row_pitch, "row_pitch"), element)
    else:
        steps, nbytes = contiguous_strides(extents, element.step, order or "C"), nbytes_of(element, extents)
    if nbytes > SIZE_LIMIT:
        raise too_large
    return NewArray(extents, element, steps, max(nbytes, 1))


def _checked_strides(
    extents: tuple[int, ...], steps: tuple[int, ...], element: ElementType
) -> tuple[tuple[int, ...], int]:
    if len(steps) != len(extents):
        raise ValueError(f"{len(steps)} strides for {len(extents)} axes; give one per axis")
    unit = "bits" if element.packed else "bytes"
    if any(abs(step) > SIZE_LIMIT for step in steps):
        raise ValueError(f"strides {steps} are out of range; the limit is {SIZE_LIMIT} {unit}")
    if any(step < 0 for step, extent in zip(steps, extents, strict=True) if extent > 1):
        raise ValueError(
            f"strides {steps} are negative, and an array begins at the first byte of its payload; give positive ones, "
            "and flip the array in the process that uses it: memory.numpy()[::-1]"
        )
    overlap = overlapping_axis(extents, steps, element.step)
    if overlap is not None:
        raise ValueError(
            f"shape {extents} with strides {steps} overlaps: along one axis, parts of {overlap[1]} {unit} are "
            f"{overlap[0]} {unit} apart; give strides with which no two elements share {unit}"
        )
    return steps, reach_of(extents, steps, element)[1]


def _pitched(extents: tuple[int, ...], pitch: int, element: ElementType) -> tuple[tuple[int, ...], int]:
    """Return the strides of rows that begin every `pitch` bytes, and the bytes of all rows."""
    if not extents:
        raise ValueError("an array without axes has no rows; omit row_pitch")
    row = nbytes_of(element, extents[1:])
    if pitch < row:
        raise ValueError(
            f"row_pitch is {pitch}, and a row of {extents[1:]} {element.text} takes {row} bytes; give more"
        )
    unit = 8 if element.packed else 1
    if pitch % element.alignment:
        raise ValueError(
            f"row_pitch is {pitch}, which is not a multiple of {element.alignment}, the alignment of {element.text}"
        )
    return (pitch * unit, *contiguous_strides(extents[1:], element.step)), pitch * extents[0]


def name_of(name: str | None) -> str | None:
    """Return a name as a plain str, also if it is of a subclass (NumPy's strings). Errors: TypeError."""
    if name is None or type(name) is str:
        return name
    if isinstance(name, str):
        return str.__str__(name)
    raise TypeError(f"name is {name!r}, {a_type(name)}; give a str")


def access_of(access: int) -> int:
    """Return rights as an access mask. Errors: TypeError for text and other types; ValueError beyond 32 bits."""
    mask = whole_number(
        access, "access", "give extmem.Access.READ, extmem.Access.READ_WRITE, or an access mask as an integer"
    )
    if not 0 <= mask < 1 << 32:
        raise ValueError(f"access is {mask}, and an access mask has 32 bits; give extmem.Access.READ or READ_WRITE")
    return mask


def types_of(handle_types: int) -> MemoryHandleType:
    """Return external types as bits. Errors: TypeError for text and other types; ValueError beyond 31 bits."""
    bits = whole_number(handle_types, "handle_types", "give bits of extmem.vk.ExternalMemoryHandleTypeFlagBits")
    if not 0 <= bits < 1 << 31:
        raise ValueError(
            f"handle_types is {bits}, and flags have 31 bits; give bits of extmem.vk.ExternalMemoryHandleTypeFlagBits"
        )
    return MemoryHandleType(bits)


def single_type(handle_type: int, what: str = "handle_type") -> MemoryHandleType:
    """Return one external type. Errors: TypeError for text and other types; ValueError if it is not one of 32 bits."""
    bit = whole_number(handle_type, what, "give one bit of extmem.vk.ExternalMemoryHandleTypeFlagBits")
    if not 0 < bit < 1 << 32 or bit.bit_count() != 1:
        raise ValueError(
            f"{what} is {bit:#x}, which is not one bit; give one of extmem.vk.ExternalMemoryHandleTypeFlagBits"
        )
    return MemoryHandleType(bit)


def check_share(name: str | None, access: int | None) -> None:
    """Refuse a name together with rights that grant no access. Errors: ValueError."""
    if name is not None and access == 0:
        raise ValueError(
            f"access=0 grants nothing to others, so they could not open {name!r}; give extmem.Access.READ or "
            "extmem.Access.READ_WRITE, or omit the name"
        )


def of_another_device(memory: object, device: object) -> HandleStateError:
    """Return the error for memory of another device, which may be on the same GPU."""
    return HandleStateError(
        f"{memory!r} belongs to {device!r}, which was opened separately from this one; pass memory of this device, or "
        "import it into this device (extmem.Device.open)"
    )


def not_copied(what: str) -> UnsupportedError:
    """Return the error for the copy module. A copy would be another object for the same memory, to close separately."""
    return UnsupportedError(
        f"the copy module does not copy memory ({what}): read() copies its contents, device.allocate(shape, dtype) "
        "and write() create another payload, and open(name) creates another memory object for the same payload",
        requires_one_of=["read()", "write()", "open()"],
    )
