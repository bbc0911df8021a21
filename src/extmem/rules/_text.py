"""Texts of values in messages, and the groups of handle types that rules refer to."""

from __future__ import annotations

from extmem.vk.handle_types import (
    D3D11_TYPES,
    D3D12_HEAP,
    DEFINED_TYPES,
    DMA_BUF,
    FD_TYPES,
    HOST_ALLOCATION,
    HOST_MAPPED_FOREIGN_MEMORY,
    HOST_TYPES,
    KNOWN_TYPE_BITS,
    NT_TYPES,
    OPAQUE_FD,
    OPAQUE_WIN32,
    OPAQUE_WIN32_TYPES,
    SIZE_IGNORED_TYPES,
    WIN32_TYPES,
)
from extmem.vk.value_text import bits_of, enum_text, flags_text, types_text

__all__ = [
    "D3D11_TYPES",
    "D3D12_HEAP",
    "DEFINED_TYPES",
    "DMA_BUF",
    "FD_TYPES",
    "HOST_ALLOCATION",
    "HOST_MAPPED_FOREIGN_MEMORY",
    "HOST_TYPES",
    "KNOWN_TYPE_BITS",
    "NT_TYPES",
    "OPAQUE_FD",
    "OPAQUE_WIN32",
    "OPAQUE_WIN32_TYPES",
    "SINGLE_FD_TYPES",
    "SINGLE_HOST_TYPES",
    "SINGLE_WIN32_TYPES",
    "SIZE_IGNORED_TYPES",
    "WIN32_TYPES",
    "bits_of",
    "enum_text",
    "flags_text",
    "handle_text",
    "is_invalid_handle",
    "is_null",
    "size_text",
    "type_mask",
    "types_text",
    "uuid_text",
]

SINGLE_WIN32_TYPES = frozenset(t for t in DEFINED_TYPES if t & WIN32_TYPES)
SINGLE_FD_TYPES = frozenset((OPAQUE_FD, DMA_BUF))
SINGLE_HOST_TYPES = frozenset((HOST_ALLOCATION, HOST_MAPPED_FOREIGN_MEMORY))

INVALID_HANDLE_VALUES = (-1, 2**64 - 1, 2**32 - 1)


def type_mask(value: object) -> int:
    """Return a handle type, or a mask of handle types, as a plain int."""
    return int(value) if isinstance(value, int) else 0


def uuid_text(value: bytes) -> str:
    """Return a device or driver UUID in the 8-4-4-4-12 form, or in plain hexadecimal if it is not 16 bytes long."""
    digits = bytes(value).hex()
    if len(digits) != 32:
        return digits or "none"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def size_text(value: int) -> str:
    """Return the exact size in bytes."""
    return f"{int(value)} bytes"


def handle_text(value: object) -> str:
    """Return the text of a handle value: numbers in hexadecimal, handle objects of the library by their repr."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return "INVALID_HANDLE_VALUE" if value in INVALID_HANDLE_VALUES else hex(int(value))
    return repr(value)


def is_null(value: object) -> bool:
    """Return whether a handle field is NULL."""
    return value is None or (isinstance(value, int) and value == 0)


def is_invalid_handle(value: object) -> bool:
    """Return whether a HANDLE field is NULL or INVALID_HANDLE_VALUE."""
    return value is None or (isinstance(value, int) and (value == 0 or value in INVALID_HANDLE_VALUES))
