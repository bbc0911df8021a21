"""Values that no message can carry, refused before one is made, with the object manager's own statuses."""

from __future__ import annotations

from typing import Final

from extmem.errors import DescriptorError
from extmem.objects import Refused, Status, Token, error_for, parse_sddl, resolve_name
from extmem.wire import MAX_DESCRIPTOR

__all__ = ["fit_descriptor", "fit_handle", "fit_mask", "fit_name", "fit_number", "fit_sddl", "fit_ticket"]

_MAX_NAME: Final = 600
_MAX_SDDL: Final = 4_200
_I64: Final = (1 << 63) - 1


def fit_handle(value: int) -> int:
    """A handle value as the table knows it (B48: the low two bits are ignored).

    InvalidHandleError for what can be none.
    """
    if not 0 <= value <= _I64:
        raise error_for(Status.INVALID_HANDLE, f"{value:#x} is no handle. Pass the value that the object manager gave.")
    return value & ~3


def fit_number(number: int) -> int:
    """A KMT number. InvalidHandleError (INVALID_PARAMETER) for what can be none."""
    if not 0 <= number <= 0xFFFF_FFFF:
        raise error_for(
            Status.INVALID_PARAMETER, f"{number:#x} is no KMT number: those have 32 bits. Pass the exporter's number."
        )
    return number


def fit_mask(mask: int) -> int:
    """An access mask. InvalidHandleError (INVALID_PARAMETER) for what is no 32-bit mask."""
    if not 0 <= mask <= 0xFFFF_FFFF:
        raise error_for(
            Status.INVALID_PARAMETER,
            f"An access mask has 32 bits, this one is {mask:#x}. Pass a mask such as 0x80000001 (read and write).",
        )
    return mask


def fit_name(name: str) -> str:
    """A name.

    NameInvalidError for one that no object can have and no message can carry; all else is the broker's to judge.
    """
    if len(name) <= _MAX_NAME and (name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)):
        return name
    try:
        resolve_name(name, 1)
    except Refused as refused:
        raise error_for(refused.status, refused.detail) from None
    return name


def fit_sddl(sddl: str | None) -> str | None:
    """A security descriptor as text. SecurityDescriptorError for what no message can carry."""
    if sddl is None or (len(sddl) <= _MAX_SDDL and sddl.isascii()):
        return sddl
    try:
        parse_sddl(sddl, Token(0, 0, frozenset()))
    except Refused as refused:
        raise error_for(refused.status, refused.detail) from None
    raise error_for(
        Status.INVALID_SECURITY_DESCR, "The security descriptor holds characters beyond ASCII. Take them out."
    )


def fit_descriptor(descriptor: bytes) -> bytes:
    """A payload's self-description. DescriptorError if it is too long."""
    if len(descriptor) > MAX_DESCRIPTOR:
        raise DescriptorError(f"the descriptor has {len(descriptor)} bytes, at most {MAX_DESCRIPTOR} are allowed")
    return descriptor


def fit_ticket(ticket: bytes) -> bytes:
    """A ticket. InvalidHandleError for what can be none."""
    if len(ticket) != 16:
        raise error_for(
            Status.INVALID_HANDLE, f"A ticket has 16 bytes, this has {len(ticket)}. Pass the sender's ticket."
        )
    return ticket
