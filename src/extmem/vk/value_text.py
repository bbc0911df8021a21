"""Texts of enum values and flags for messages: `OPAQUE_WIN32 | OPAQUE_FD`, `LINEAR`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import TypeVar

from extmem.vk._generated.flags import ExternalMemoryHandleTypeFlagBits

__all__ = ["bits_of", "enum_text", "flags_text", "types_text"]

_VENDORS = ("_KHR", "_EXT", "_NV", "_ANDROID", "_FUCHSIA", "_QNX", "_OHOS", "_ARM", "_VALVE")


def _plain_name(name: str) -> str:
    for vendor in _VENDORS:
        name = name.removesuffix(vendor)
    return name


_TYPE_NAMES = {int(t): _plain_name(name) for name, t in ExternalMemoryHandleTypeFlagBits.__members__.items()}


Mask = TypeVar("Mask", bound=int)


def bits_of(mask: Mask) -> Iterator[Mask]:
    """Yield the single bits of a mask, lowest first, as values of its type; none of a negative number."""
    rest = int(mask)
    while rest > 0:
        bit = rest & -rest
        yield bit  # type: ignore[misc]  # a mask and its bits have one type
        rest ^= bit


def types_text(mask: int) -> str:
    """Return the names of external handle types: `OPAQUE_WIN32 | 0x80000000`; `0` for none."""
    return " | ".join(_TYPE_NAMES.get(bit) or hex(bit) for bit in bits_of(int(mask))) or "0"


def flags_text(mask: int, enum: type[IntFlag]) -> str:
    """Return the names of the bits of a mask: `TRANSFER_SRC | 0x80000000`; `0` for none."""
    names = {int(member): member.name or "" for member in enum}
    return " | ".join(names.get(bit) or hex(bit) for bit in bits_of(int(mask))) or "0"


def enum_text(value: int, enum: type[IntEnum]) -> str:
    """Return the name of an enum value, or the number if it has none."""
    names = {int(m): name for name, m in enum.__members__.items()}
    return names.get(int(value)) or str(int(value))
