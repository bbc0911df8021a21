"""What an import gives: a new memory object, and the descriptor of its payload."""

# Annotations are evaluated when a class is made (msgspec reads them), so they are not postponed here.

from typing import Any

import msgspec

from extmem.broker.descriptors import PayloadFd

__all__ = ["Imported"]


class Imported(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A new memory object on a shared payload.

    Ownership: `memory` until `Manager.free`, `payload` until its `close`. `descriptor` is the exporter's word, to be
    parsed as a stranger's. `name` is the full path, None if there is none; `object` or `kmt` is 0 where there is none.
    `kind` is what the payload's descriptor is (`broker.kinds.Kind`); `capacity` the bytes of a host payload's sealed
    file, as the broker found them, and 0 for others. `identity` is what the
    exporter told it apart by.
    """

    memory: int
    payload: PayloadFd
    object: int
    granted: int
    descriptor: bytes
    kmt: int
    name: str | None
    kind: int = 1
    capacity: int = 0
    identity: int = 0
    reference: Any = None
    """What owns the memory object (`manager.Reference`), where the caller gave one."""

    def give_back(self) -> None:
        """Let go of both, where the import is not needed after all."""
        self.payload.close()
        if self.reference is not None:
            self.reference.give_back()
