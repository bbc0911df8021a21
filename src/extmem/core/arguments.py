"""Arguments of the high-level calls, as the layers below take them: plain strings and integers, or an error."""

from __future__ import annotations

import operator

from extmem.errors import HandleStateError, UnsupportedError
from extmem.sharing.dtypes import dtype_name
from extmem.sharing.layout import Axes, axes_of
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


def array_of(shape: Axes, dtype: object) -> tuple[tuple[int, ...], str]:
    """Extents and element type of an array to be allocated. Errors: TypeError; ValueError for one without elements."""
    extents, element = axes_of(shape, "shape"), dtype_name(dtype)
    if not extents:
        raise ValueError("shape () has no axis; give at least one, such as (1,)")
    if min(extents) <= 0:
        raise ValueError(f"shape {extents} holds no element; give positive extents")
    return extents, element


def name_of(name: str | None) -> str | None:
    """A name as a plain str, of a subclass too (NumPy's strings). TypeError for anything else."""
    if name is None or type(name) is str:
        return name
    if isinstance(name, str):
        return str.__str__(name)
    raise TypeError(f"name is {name!r}, a {type(name).__name__}; give a str")


def access_of(access: int) -> int:
    """Rights as an access mask. TypeError for words and other types, ValueError beyond 32 bits."""
    mask = whole_number(
        access, "access", "give extmem.Access.READ, extmem.Access.READ_WRITE, or an access mask as an integer"
    )
    if not 0 <= mask < 1 << 32:
        raise ValueError(f"access is {mask}, and an access mask has 32 bits; give extmem.Access.READ or READ_WRITE")
    return mask


def types_of(handle_types: int) -> MemoryHandleType:
    """External types as bits. TypeError for words and other types, ValueError beyond 31 bits."""
    bits = whole_number(handle_types, "handle_types", "give bits of extmem.vk.ExternalMemoryHandleTypeFlagBits")
    if not 0 <= bits < 1 << 31:
        raise ValueError(
            f"handle_types is {bits}, and flags have 31 bits; give bits of extmem.vk.ExternalMemoryHandleTypeFlagBits"
        )
    return MemoryHandleType(bits)


def whole_number(value: object, what: str, advice: str = "give an integer") -> int:
    """Return the int of an integer of any type (`__index__`). TypeError for other types, floats and text included."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is what is found out here
    except TypeError:
        raise TypeError(f"{what} is {value!r}, a {type(value).__name__}; {advice}") from None


def single_type(handle_type: int, what: str = "handle_type") -> MemoryHandleType:
    """One external type. TypeError for words and other types, ValueError for what is not one bit of 32."""
    bit = whole_number(handle_type, what, "give one bit of extmem.vk.ExternalMemoryHandleTypeFlagBits")
    if not 0 < bit < 1 << 32 or bit.bit_count() != 1:
        raise ValueError(
            f"{what} is {bit:#x}, which is not one bit; give one of extmem.vk.ExternalMemoryHandleTypeFlagBits"
        )
    return MemoryHandleType(bit)


def check_share(name: str | None, access: int | None) -> None:
    """Refuse a name with no right behind it. Errors: ValueError."""
    if name is not None and access == 0:
        raise ValueError(
            f"access=0 grants nothing to others, and {name!r} is there for others to open; give extmem.Access.READ or "
            "extmem.Access.READ_WRITE, or no name"
        )


def of_another_device(memory: object, device: object) -> HandleStateError:
    """The error for memory that is given to a device which it is not of, though it may be on the same GPU."""
    return HandleStateError(
        f"{memory!r} belongs to {device!r}, which was opened apart from this one; pass memory of this device, or "
        "import it here (extmem.Device.open)"
    )


def not_copied(what: str) -> UnsupportedError:
    """The error for the copy module, which would make an alias of memory: one more object to be closed."""
    return UnsupportedError(
        f"memory is not copied by the copy module ({what}): read() copies its contents, device.allocate(shape, dtype) "
        "and write() make another payload of them, and open(name) another memory object on the same payload",
        requires_one_of=["read()", "write()", "open()"],
    )
