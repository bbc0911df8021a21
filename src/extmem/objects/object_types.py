"""Types of objects: the name, the rights and the generic mapping of each kind (B16, B17, B23, B25).

`OBJECT_TYPES` is the one table of what differs between the kinds of shareable objects. Another kind is another row.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from extmem.objects.access import (
    GENERIC,
    GENERIC_ALL,
    GENERIC_EXECUTE,
    GENERIC_READ,
    GENERIC_WRITE,
    MAXIMUM_ALLOWED,
    READ_CONTROL,
    STANDARD_NAMES,
    SYNCHRONIZE,
)
from extmem.objects.status import Refused, Status
from extmem.sharing.kinds import ObjectKind

__all__ = [
    "MEMORY",
    "OBJECT_TYPES",
    "OPENED_BY",
    "RESOURCE_WRITE",
    "SYNC_SIGNAL",
    "SYNC_WAIT",
    "ObjectType",
    "foreign_type",
    "known_kind",
]

RESOURCE_WRITE: Final = 0x0000_0001
"""The only specific right of memory: a writable mapping (B17)."""
SYNC_WAIT: Final = 0x0000_0001
"""The specific right of semaphores and fences to wait."""
SYNC_SIGNAL: Final = 0x0000_0002
"""The specific right of semaphores and fences to signal, and to reset a fence."""


class ObjectType(msgspec.Struct, frozen=True):
    """A type of objects."""

    name: str
    """The type name, as NtQueryObject reports it (B25)."""
    noun: str
    """The words for an object of this type in messages."""
    valid: int
    """The bits that a handle can carry."""
    read: int
    """The rights that GENERIC_READ maps to."""
    write: int
    """The rights that GENERIC_WRITE maps to."""
    execute: int
    """The rights that GENERIC_EXECUTE maps to."""
    all: int
    """The rights that GENERIC_ALL maps to."""
    modify: int
    """The specific right to change the payload. An import without it is read-only."""
    specific: tuple[tuple[int, str], ...]
    """The specific rights and their names."""

    def map_generic(self, mask: int) -> int:
        """Return the mask with each generic bit replaced by its rights (RtlMapGenericMask, B16)."""
        if not mask & GENERIC:
            return mask
        mapped = mask & ~GENERIC
        for bit, rights in (
            (GENERIC_READ, self.read),
            (GENERIC_WRITE, self.write),
            (GENERIC_EXECUTE, self.execute),
            (GENERIC_ALL, self.all),
        ):
            if mask & bit:
                mapped |= rights
        return mapped

    def requested(self, mask: int) -> int:
        """Return the mapped form of a mask that a program requests. MAXIMUM_ALLOWED stays in it, and 0 stays 0.

        Raises Refused: ACCESS_DENIED for bits that the type does not have (B23), INVALID_PARAMETER for a number that is
        not a 32-bit mask.
        """
        if not 0 <= mask <= 0xFFFF_FFFF:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"An access mask has 32 bits, this one is {mask:#x}. Pass a mask such as 0x80000001 (read and write).",
            )
        unknown = mask & ~(self.valid | GENERIC | MAXIMUM_ALLOWED)
        if unknown:
            specific = ", ".join(f"{name} ({bit:#x})" for bit, name in self.specific)
            raise Refused(
                Status.ACCESS_DENIED,
                f"The access mask 0x{mask:08X} contains bits that {self.noun} does not have (0x{unknown:08X}). Request "
                f"GENERIC_READ (0x80000000) and {specific}, or MAXIMUM_ALLOWED (0x02000000).",
            )
        return self.map_generic(mask)

    def describe(self, mask: int) -> str:
        """Return the mask in words for messages: `READ_CONTROL | RESOURCE_WRITE (0x00020001)`."""
        words = [name for bit, name in (*STANDARD_NAMES, *self.specific) if mask & bit]
        rest = mask & ~sum(bit for bit, _ in (*STANDARD_NAMES, *self.specific))
        if rest:
            words.append(f"0x{rest:X}")
        return f"{' | '.join(words) if words else 'no rights'} (0x{mask:08X})"


def _sync_type(noun: str) -> ObjectType:
    """Return the type of semaphores and fences, which have one type name and the same rights."""
    return ObjectType(
        name="DxgkSharedSyncObject",
        noun=noun,
        valid=0x001F_0003,
        read=READ_CONTROL | SYNC_WAIT,
        write=READ_CONTROL | SYNC_SIGNAL,
        execute=READ_CONTROL | SYNCHRONIZE,
        all=0x001F_0003,
        modify=SYNC_SIGNAL,
        specific=((SYNC_WAIT, "SYNC_OBJECT_WAIT"), (SYNC_SIGNAL, "SYNC_OBJECT_SIGNAL")),
    )


def _memory_type(noun: str) -> ObjectType:
    """Return the type of memory, and of the page of a channel, which have one type name and the same rights."""
    return ObjectType(
        name="DxgkSharedResource",
        noun=noun,
        valid=0x001F_0001,
        read=READ_CONTROL,
        write=READ_CONTROL | RESOURCE_WRITE,
        execute=READ_CONTROL,
        all=0x000F_0001,
        modify=RESOURCE_WRITE,
        specific=((RESOURCE_WRITE, "RESOURCE_WRITE"),),
    )


_TYPES: Final = {
    ObjectKind.MEMORY: _memory_type("shared memory"),
    ObjectKind.SEMAPHORE: _sync_type("a shared semaphore"),
    ObjectKind.FENCE: _sync_type("a shared fence"),
    ObjectKind.CHANNEL: _memory_type("a channel"),
}
OBJECT_TYPES: Final[Mapping[ObjectKind, ObjectType]] = MappingProxyType(_TYPES)
"""The type of each kind of shareable object."""
OPENED_BY: Final[Mapping[ObjectKind, str]] = MappingProxyType(
    {
        ObjectKind.MEMORY: "extmem.open",
        ObjectKind.SEMAPHORE: "extmem.open_timeline, if it is a timeline",
        ObjectKind.FENCE: "Device.import_fence_win32_handle",
        ObjectKind.CHANNEL: "extmem.open_channel",
    }
)
"""The calls of the public API that import an object of each kind by its name, for messages."""
MEMORY: Final = OBJECT_TYPES[ObjectKind.MEMORY]
"""The type of memory."""


def known_kind(kind: int) -> ObjectKind:
    """Return the kind that has this number. Raises Refused INVALID_PARAMETER where the table has no row for it."""
    for known in OBJECT_TYPES:
        if known == kind:
            return known
    raise Refused(
        Status.INVALID_PARAMETER,
        f"The object kind {kind} is unknown to this object manager: it knows "
        f"{', '.join(f'{known} ({found.noun})' for known, found in OBJECT_TYPES.items())}. Pass one of these.",
    )


def foreign_type(name: str) -> ObjectType:
    """Return a type for objects that extmem does not share, such as events: they have a name and no rights of memory's.

    On Windows they are in the same directory and in the same handle tables (B2).
    """
    return msgspec.structs.replace(MEMORY, name=name, noun=f"an object of type {name}")
