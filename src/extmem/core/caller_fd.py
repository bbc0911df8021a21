"""`CallersFd`: the fd that a program imports. It is the program's until the import has succeeded, and consumed then.

How this works. An import uses the descriptor under a hold, so that no other thread closes it meanwhile, and makes what
it keeps of it (a copy, or a `PayloadFd` of `owned`). When everything else has succeeded, `arm` makes this object owe
the closing of a bare number, and `consume` lets go of it. `consume` is the last thing that a verb does: it stores
attributes alone, so that no signal handler can raise between the consumption and the verb's return.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

from extmem import vk
from extmem.handles import FdHandle
from extmem.owning import OwnedFd, Uses

__all__ = ["CallersFd"]


class CallersFd:
    """An fd to import, as a handle or as a bare number; -1 for none."""

    __slots__ = ("handle", "owned")

    def __init__(self, source: FdHandle | int, uses: Uses) -> None:
        """uses: holds a handle's descriptor. Errors: HandleStateError for a handle that is not open."""
        self.handle = source if isinstance(source, FdHandle) else None
        self.owned: OwnedFd
        """The descriptor, open while the import lasts. What keeps it beyond that holds it."""
        if isinstance(source, FdHandle):
            self.owned = source.use_in(uses)
        else:
            self.owned = OwnedFd()
            self.owned.fd = source

    @classmethod
    def of_chain(cls, links: Sequence[vk.ChainStruct], uses: Uses) -> Self | None:
        """The fd that a VkMemoryAllocateInfo's chain imports; None if it imports no fd."""
        for link in links:
            if isinstance(link, vk.ImportMemoryFdInfoKHR):
                return cls(link.fd, uses) if isinstance(link.fd, (FdHandle, int)) else None
        return None

    def arm(self) -> None:
        """All has succeeded but for `consume`. After an exception: `disarm`."""
        if self.handle is None and self.owned.fd >= 0:
            self.owned.owe([(os.close, self.owned.fd)])

    def disarm(self) -> None:
        """The import failed: the fd stays the caller's."""
        if self.handle is None:
            self.owned.disown()

    def consume(self) -> None:
        """The caller has it no more: it is closed, unless what was imported keeps it."""
        handle = self.handle
        if handle is not None:
            handle.consume()
        self.owned = _NOTHING


_NOTHING = OwnedFd()
