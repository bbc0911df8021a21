"""`CallerFd`: the fd that a program imports. The program owns it until the import has succeeded; then it is consumed.

How this works. An import uses the descriptor under a hold, so that no other thread closes it meanwhile. What the import
keeps is a copy, or a `PayloadFd` of `owned`. When everything else has succeeded, `arm` makes this object owe the
closing of a bare number, and `consume` releases it. `consume` is the last step of an operation: it only stores
attributes, so that no signal handler can raise between the consumption and the return of the operation.
"""

from __future__ import annotations

import os

from extmem.handles import FdHandle
from extmem.owning import OwnedFd, Uses

__all__ = ["CallerFd"]


class CallerFd:
    """An fd to import, as a handle or as a bare number; -1 for none."""

    __slots__ = ("handle", "owned")

    def __init__(self, source: FdHandle | int, uses: Uses) -> None:
        """uses: holds a handle's descriptor. Errors: HandleStateError for a handle that is not open."""
        self.handle = source if isinstance(source, FdHandle) else None
        self.owned = self.handle.use_in(uses) if self.handle is not None else OwnedFd()
        """The descriptor, open while the import lasts. What keeps it longer holds it."""
        if not isinstance(source, FdHandle):
            self.owned.fd = source

    def arm(self) -> None:
        """Owe the closing of a bare number: everything has succeeded except `consume`.

        After an exception nothing is owed, and the number stays the caller's.
        """
        if self.owned.fd >= 0:
            try:
                self.owned.owe([(os.close, self.owned.fd)])
            except BaseException:
                self.owned.disown()
                raise

    def consume(self) -> None:
        """Take it from the caller: it is closed, unless what was imported keeps it."""
        handle = self.handle
        if handle is not None:
            handle.consume()
        self.owned = _NOTHING


_NOTHING = OwnedFd()
