"""Handle types of semaphores and of fences: their texts, groups and rows, for the tables that both have in common."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from operator import attrgetter
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._engine import Demand
from extmem.vk.handle_types import (
    DEFINED_FENCE_TYPES,
    DEFINED_SEMAPHORE_TYPES,
    FENCE_FD_TYPES,
    FENCE_OPAQUE_TYPES,
    FENCE_OPAQUE_WIN32,
    FENCE_SYNC_FD,
    FENCE_WIN32_TYPES,
    KNOWN_FENCE_TYPE_BITS,
    KNOWN_SEMAPHORE_TYPE_BITS,
    SEMAPHORE_FD_TYPES,
    SEMAPHORE_NT_TYPES,
    SEMAPHORE_OPAQUE_TYPES,
    SEMAPHORE_SYNC_FD,
    SEMAPHORE_WIN32_TYPES,
    SyncHandleType,
)
from extmem.vk.value_text import bits_of

__all__ = ["FENCE", "SEMAPHORE", "SyncKind", "defined_sync_types", "one_sync_type", "sync_type_in"]


class SyncKind(msgspec.Struct, frozen=True):
    """What distinguishes the rules of semaphores from those of fences. Groups of handle types are masks."""

    word: str
    """`semaphore` or `fence`."""
    enum: str
    """Name of the enum of handle types."""
    names: Mapping[int, str]
    defined: frozenset[int]
    known: int
    """All defined bits."""
    fd_types: int
    win32_types: int
    nt_types: SyncHandleType | int
    """Types that are NT handles, which alone have names."""
    opaque_types: int
    copied: SyncHandleType
    """The type with copy transference, SYNC_FD; all others have reference transference."""

    def text(self, mask: int) -> str:
        """Return the names of handle types: `OPAQUE_FD | 0x80000000`; `0` for none."""
        return " | ".join(self.names.get(bit) or hex(bit) for bit in bits_of(int(mask))) or "0"


def _names(enum: type[IntFlag]) -> dict[int, str]:
    return {int(bit): (bit.name or "").removesuffix("_FUCHSIA") for bit in enum}


SEMAPHORE = SyncKind(
    "semaphore",
    "ExternalSemaphoreHandleTypeFlagBits",
    _names(vk.ExternalSemaphoreHandleTypeFlagBits),
    frozenset(DEFINED_SEMAPHORE_TYPES),
    KNOWN_SEMAPHORE_TYPE_BITS,
    SEMAPHORE_FD_TYPES,
    SEMAPHORE_WIN32_TYPES,
    SEMAPHORE_NT_TYPES,
    SEMAPHORE_OPAQUE_TYPES,
    SEMAPHORE_SYNC_FD,
)
FENCE = SyncKind(
    "fence",
    "ExternalFenceHandleTypeFlagBits",
    _names(vk.ExternalFenceHandleTypeFlagBits),
    frozenset(DEFINED_FENCE_TYPES),
    KNOWN_FENCE_TYPE_BITS,
    FENCE_FD_TYPES,
    FENCE_WIN32_TYPES,
    FENCE_OPAQUE_WIN32,
    FENCE_OPAQUE_TYPES,
    FENCE_SYNC_FD,
)


def one_sync_type(kind: SyncKind, vuids: str | tuple[str, ...], where: str = "{call.where}.handle_type") -> Demand:
    """Return the row that the call's `handle_type` is exactly one bit that the registry defines."""

    def broken(call: Any) -> tuple[str, str] | None:
        handle_type = call.handle_type
        if handle_type in kind.defined:
            return None
        if not handle_type:
            return "it is 0", "Give one handle type."
        if not handle_type & ~kind.known:
            return f"{kind.text(handle_type)} are several handle types at once", "Give one handle type."
        return f"{int(handle_type):#x} is not a handle type of a {kind.word}", f"Give one of {kind.enum}."

    return Demand(vuids, broken, where, "{found[0]}", "{found[1]}")


def sync_type_in(kind: SyncKind, vuid: str, types: int, what: str, remedy: str, *, defined: bool = True) -> Demand:
    """Return the row that the call's `handle_type` is one of `types`.

    defined: whether values that are not a handle type at all break another rule, `-parameter`.
    """

    def broken(call: Any) -> str:
        handle_type = call.handle_type
        if handle_type & types and handle_type in kind.defined:
            return ""
        return kind.text(handle_type) if handle_type in kind.defined or not defined else ""

    return Demand(vuid, broken, "{call.where}.handle_type", f"{{found}} is not {what}", remedy)


def defined_sync_types(kind: SyncKind, vuid: str, field: str, where: str) -> Demand:
    """Return the row that the field, a mask of handle types, has defined bits only."""
    value = attrgetter(field)

    def broken(call: Any) -> int:
        return int(value(call)) & ~kind.known

    problem = f"the bits {{found:#x}} are not handle types of a {kind.word}"
    return Demand(vuid, broken, where, problem, f"Give bits of {kind.enum} only.")
