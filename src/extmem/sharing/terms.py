"""How a payload is to be shared, and what an export and an import give."""

# Annotations are evaluated when a class is made (msgspec reads them), so they are not postponed here.

from typing import Any, NamedTuple

import msgspec

from extmem.sharing.kinds import Share
from extmem.sharing.payload import PayloadFd

__all__ = ["Exported", "Imported", "ShareTerms"]


class ShareTerms(NamedTuple):
    """How a new payload is to be shared, for devices that give it name and security when they make it (B13)."""

    share: Share
    name: str | None
    sddl: str | None
    """Who may open it, as SDDL; None for the default of the process."""
    access: int = 0
    """dwAccess: the rights that its handles get."""
    inherit: bool = False
    """Whether children inherit its handles."""
    stated: bool = False
    """Whether the program stated them (VkExportMemoryWin32HandleInfoKHR); else drivers take their defaults (B26)."""
    described: bool = False
    """Whether a bare handle of it is to lead to its description, whatever that takes: what everyday memory does."""


class Exported(NamedTuple):
    """A memory object that shares its payload. `object` is 0 for KMT shares, `kmt` is 0 for NT shares."""

    memory: int
    payload: int
    object: int
    kmt: int


class Imported(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A new memory object on a shared payload.

    Ownership: `memory` until `Manager.free`, `payload` until its `close`. `descriptor` is what the exporter stated, to
    be parsed as untrusted input. `name` is the full path, None if there is none; `object` or `kmt` is 0 where there is
    none. `backing` is what the payload's file is (`sharing.kinds.Backing`). `capacity` is the number of bytes of a host
    payload's sealed file, as the broker measured it, and 0 for others. `identity` is the number by which the exporter
    distinguishes it.
    """

    memory: int
    payload: PayloadFd
    object: int
    granted: int
    descriptor: bytes
    kmt: int
    name: str | None
    backing: int = 1
    capacity: int = 0
    identity: int = 0
    reference: Any = None
    """What owns the memory object (`manager.Reference`), where the caller gave one."""

    def give_back(self) -> None:
        """Let go of both, where the import is not needed after all."""
        self.payload.close()
        if self.reference is not None:
            self.reference.give_back()
