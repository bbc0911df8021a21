"""What keeps what alive: the one table. The model counts references by it and the documentation prints it.

A payload exists while anything keeps it, and so does a shared object. A name exists while something keeps it, and does
not return once it has ended. A KMT number exists while a *reference* keeps it (B58), or with `strict_kmt` only while an
exporting one exists (G7).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = [
    "ANNOUNCEMENT",
    "DEMOTED_TICKET",
    "EXPORTER",
    "IMPORTED_KMT",
    "IMPORTED_NT",
    "KEEPS",
    "KEPT",
    "KMT_TICKET",
    "NT_HANDLE",
    "NT_TICKET",
    "ORPHANED_TICKET",
    "Holder",
    "Keeps",
]


class Keeps(NamedTuple):
    """What one holder keeps alive, each 0 or 1: the model adds these counts when the holder begins, and subtracts them
    when it ends.
    """

    payload: int
    object: int
    name: int
    kmt: int


class Holder(Enum):
    """Everything that may keep something alive, in the words of the documentation."""

    EXPORTER = "exporting memory object"
    NT_HANDLE = "open NT handle, in any process"
    IMPORTED_NT = "imported memory object, NT type"
    IMPORTED_KMT = "imported memory object, KMT type"
    FD_HANDLE = "fd handle"
    NAME = "a name"
    KMT_NUMBER = "a KMT number"
    NT_TICKET = "ticket for memory or a handle, in flight"
    KMT_TICKET = "ticket for KMT memory or a KMT number, in flight"
    ORPHANED_TICKET = "ticket in flight whose sender has ended"
    DEMOTED_TICKET = "demoted ticket"
    KEPT = "the object manager itself, by `keep=`"
    ANNOUNCEMENT = "announcement of a client that re-connects, until it is done"


KEEPS: Final[Mapping[Holder, Keeps]] = MappingProxyType(
    {
        Holder.EXPORTER: Keeps(payload=1, object=1, name=1, kmt=1),
        Holder.NT_HANDLE: Keeps(payload=1, object=1, name=1, kmt=0),  # B65
        Holder.IMPORTED_NT: Keeps(payload=1, object=1, name=1, kmt=0),  # B73, G9
        Holder.IMPORTED_KMT: Keeps(payload=1, object=0, name=0, kmt=1),  # B58
        Holder.FD_HANDLE: Keeps(payload=1, object=0, name=0, kmt=0),  # the kernel counts these
        Holder.NAME: Keeps(payload=0, object=0, name=0, kmt=0),  # B12
        Holder.KMT_NUMBER: Keeps(payload=0, object=0, name=0, kmt=0),  # B54
        Holder.NT_TICKET: Keeps(payload=1, object=1, name=1, kmt=0),
        Holder.KMT_TICKET: Keeps(payload=1, object=0, name=0, kmt=1),
        Holder.ORPHANED_TICKET: Keeps(payload=1, object=1, name=0, kmt=0),
        Holder.DEMOTED_TICKET: Keeps(payload=0, object=0, name=0, kmt=0),
        Holder.KEPT: Keeps(payload=1, object=1, name=1, kmt=0),
        Holder.ANNOUNCEMENT: Keeps(payload=1, object=1, name=1, kmt=1),
    }
)
"""The lifetime table. Whatever keeps a shared object also keeps its payload."""

# The rows by which the model counts.
EXPORTER: Final = KEEPS[Holder.EXPORTER]
NT_HANDLE: Final = KEEPS[Holder.NT_HANDLE]
IMPORTED_NT: Final = KEEPS[Holder.IMPORTED_NT]
IMPORTED_KMT: Final = KEEPS[Holder.IMPORTED_KMT]
NT_TICKET: Final = KEEPS[Holder.NT_TICKET]
KMT_TICKET: Final = KEEPS[Holder.KMT_TICKET]
ORPHANED_TICKET: Final = KEEPS[Holder.ORPHANED_TICKET]
DEMOTED_TICKET: Final = KEEPS[Holder.DEMOTED_TICKET]
KEPT: Final = KEEPS[Holder.KEPT]
ANNOUNCEMENT: Final = KEEPS[Holder.ANNOUNCEMENT]
