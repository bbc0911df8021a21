"""How a payload is to be shared, and the results of an export and an import."""

# Annotations are evaluated when a class is created (msgspec reads them), so they are not postponed here.

from typing import Any

import msgspec

from extmem.sharing.keeping import NOT_KEPT, Keep
from extmem.sharing.kinds import Share
from extmem.sharing.payload import PayloadFd

__all__ = ["Exported", "Imported", "ShareTerms"]


class ShareTerms(msgspec.Struct, frozen=True):
    """How a new payload is to be shared, for devices that give it name and security when they create it (B13)."""

    share: Share
    name: str | None
    sddl: str | None
    """Its security as SDDL; None for the default of the process."""
    access: int = 0
    """dwAccess: the rights of its handles."""
    inherit: bool = False
    """Whether children inherit its handles."""
    stated: bool = False
    """Whether the program stated them (VkExportMemoryWin32HandleInfoKHR); else drivers use their defaults (B26)."""
    described: bool = False
    """Whether its description must be found from a bare handle of it, as for memory of the high-level API."""
    replace: bool = False
    """Whether it takes the name of the object that has it."""
    keep: Keep = NOT_KEPT
    """How long the object manager itself keeps it."""
    late: bool = False
    """Whether its description is complete only when it is exported. A name that exists before (Windows) cannot be
    opened until then."""


class Exported(msgspec.Struct, frozen=True):
    """A reference that shares its payload. `object` is 0 for KMT shares, `kmt` is 0 for NT shares."""

    number: int
    payload: int
    object: int
    kmt: int


class Imported(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A new reference to a shared payload.

    Ownership: `number` until `Manager.release`, `payload` until its `close`. `descriptor` is what the
    exporter stated, to be parsed as untrusted input. `name` is the full path, None if there is none; `object` or `kmt`
    is 0 where there is none. `backing` is what the payload's files are (`sharing.kinds.Backing`), `object_kind` what
    the object is (`sharing.kinds.ObjectKind`). `capacity` is the number of bytes of a host payload's sealed files, as
    the broker measured them, and 0 for others. `identity` is the number by which the exporter distinguishes the
    payload.
    """

    number: int
    payload: PayloadFd
    object: int
    granted: int
    descriptor: bytes
    kmt: int
    name: str | None
    backing: int = 1
    capacity: int = 0
    identity: int = 0
    object_kind: int = 1
    reference: Any = None
    """The owner of the reference (`manager.Reference`), where the caller passed one."""

    def give_back(self) -> None:
        """End both, for an import that is not needed after all."""
        self.payload.close()
        if self.reference is not None:
            self.reference.give_back()
