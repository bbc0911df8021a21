"""Checks arguments before a message is created, and refuses those with the object manager's statuses."""

from __future__ import annotations

from typing import Final

from extmem import objects
from extmem.errors import DescriptorError
from extmem.objects import ObjectKind, Refused, Status, error_for
from extmem.wire import MAX_DESCRIPTOR, MAX_HANDLES, MAX_PAGES, PROTOCOL_VERSION

__all__ = [
    "check_handle",
    "check_mask",
    "check_name",
    "check_number",
    "check_payload",
    "check_sddl",
    "check_ticket",
    "stamped_ticket",
]

_MAX_NAME: Final = 600
_MAX_SDDL: Final = 4_200
_I64: Final = (1 << 63) - 1
_TICKET: Final = 16
"""Bytes of a ticket."""
_UNSTAMPED_VERSION: Final = 2
"""The last version whose tickets do not contain it."""


def check_handle(value: int) -> int:
    """Return a handle value without its two low bits, which are ignored (B48).

    InvalidHandleError for a number that cannot be a handle value.
    """
    if not 0 <= value <= _I64:
        raise error_for(
            Status.INVALID_HANDLE, f"{value:#x} is not a handle. Pass a value that the object manager returned."
        )
    return value & ~3


def check_number(number: int) -> int:
    """Return a KMT number. InvalidHandleError (INVALID_PARAMETER) for a number that cannot be one."""
    if not 0 <= number <= 0xFFFF_FFFF:
        raise error_for(
            Status.INVALID_PARAMETER, f"{number:#x} is not a KMT number, which has 32 bits. Pass the exporter's number."
        )
    return number


def check_mask(mask: int) -> int:
    """Return an access mask. InvalidHandleError (INVALID_PARAMETER) for one that does not have 32 bits."""
    if not 0 <= mask <= 0xFFFF_FFFF:
        raise error_for(
            Status.INVALID_PARAMETER,
            f"An access mask has 32 bits, this one is {mask:#x}. Pass a mask such as 0x80000001 (read and write).",
        )
    return mask


def check_name(name: str) -> str:
    """Return a name. The broker checks the rest.

    NameInvalidError for one that an object cannot have and a message cannot contain.
    """
    if len(name) <= _MAX_NAME and (name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)):
        return name
    try:
        objects.resolve_name(name, 1)
    except Refused as refused:
        raise error_for(refused.status, refused.detail) from None
    return name


def check_sddl(sddl: str | None, object_kind: ObjectKind = ObjectKind.MEMORY) -> str | None:
    """Return a security descriptor as text. SecurityDescriptorError for one that a message cannot contain."""
    if sddl is None or (len(sddl) <= _MAX_SDDL and sddl.isascii()):
        return sddl
    try:
        objects.parse_sddl(sddl, objects.Token(0, 0, frozenset()), objects.OBJECT_TYPES[object_kind])
    except Refused as refused:
        raise error_for(refused.status, refused.detail) from None
    raise error_for(
        Status.INVALID_SECURITY_DESCR, "The security descriptor contains characters beyond ASCII. Remove them."
    )


def check_payload(descriptor: bytes, handles: int, pages: int) -> None:
    """Check the length of a payload's description, and the number of its handles, companion pages included.

    DescriptorError for too long a description, InvalidHandleError for too many handles or none.
    """
    if len(descriptor) > MAX_DESCRIPTOR:
        raise DescriptorError(f"the descriptor has {len(descriptor)} bytes, at most {MAX_DESCRIPTOR} are allowed")
    if not pages < handles <= MAX_HANDLES or pages > MAX_PAGES:
        raise error_for(
            Status.INVALID_PARAMETER,
            f"A payload has 1 to {MAX_HANDLES} handles, at most {MAX_PAGES} of them companion pages and at least one "
            f"not; this one has {handles} with {pages} pages. Share it as several payloads.",
        )


def stamped_ticket(ticket: bytes) -> bytes:
    """Return a ticket as it is sent to other processes: with the version of the wire format before it."""
    return bytes((PROTOCOL_VERSION,)) + ticket


def check_ticket(ticket: bytes) -> bytes:
    """Return a ticket without its version. InvalidHandleError for what cannot be one, or is of another version."""
    version = _UNSTAMPED_VERSION if len(ticket) == _TICKET else ticket[0] if len(ticket) == _TICKET + 1 else 0
    if version == PROTOCOL_VERSION:
        return ticket[1:]
    if version:
        raise error_for(
            Status.INVALID_HANDLE,
            f"The ticket is of version {version} of the wire format, and this process uses version {PROTOCOL_VERSION}: "
            "its sender has another version of extmem. Use the same version of extmem in both processes.",
        )
    raise error_for(
        Status.INVALID_HANDLE, f"A ticket has {_TICKET + 1} bytes, this has {len(ticket)}. Pass the sender's ticket."
    )
