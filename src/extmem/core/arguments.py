"""Arguments of calls, converted to the plain strings and integers of the layers below, or refused."""

from __future__ import annotations

from extmem.arguments import a_type, whole_number
from extmem.errors import HandleStateError, UnsupportedError
from extmem.sharing.dtypes import dtype_name, itemsize
from extmem.sharing.layout import Axes, axes_of, contiguous_strides
from extmem.sharing.limits import AXES_LIMIT, SIZE_LIMIT
from extmem.vk.handle_types import MemoryHandleType

__all__ = [
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


def array_of(shape: Axes, dtype: object) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    """Return extents, element type and strides in bytes of an array to allocate.

    Errors: TypeError; ValueError for an array without axes or elements, with more than 64 axes or 2**63 - 1 bytes.
    """
    extents, element = axes_of(shape, "shape"), dtype_name(dtype)
    if not extents:
        raise ValueError("shape () has no axes; give at least one, such as (1,)")
    if len(extents) > AXES_LIMIT:
        raise ValueError(f"the shape has {len(extents)} axes, and memory has at most {AXES_LIMIT}; join some of them")
    if min(extents) <= 0:
        raise ValueError(f"shape {extents} has no elements; give positive extents")
    strides = contiguous_strides(extents, itemsize(element))
    if extents[0] * strides[0] > SIZE_LIMIT:
        raise ValueError(f"shape {extents} of {element} has more than {SIZE_LIMIT} bytes; give a smaller one")
    return extents, element, strides


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
