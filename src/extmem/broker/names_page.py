"""The page that tells clients that a live name has begun to refer to another object.

How this works. A client that has opened a name need not ask again while nothing changes: a name refers to one object as
long as that exists. Only a replacement changes that. So the broker counts replacements in a page of memory, which
clients read: while the count is the same, what they know of names is true. The broker counts before it replies to the
replacement.

The count begins at a random number, so that counts of two brokers are never the same: what a client learned from a
broker that was replaced, it asks the next one for again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from typing import Final

from extmem.wire.limits import NAMES_PAGE

__all__ = ["NamesPage"]

_COUNT: Final = struct.Struct("=Q")
_SIZE: Final = 4_096
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class NamesPage:
    """The page. Ownership: `close` closes its fd. Raises OSError where the system refuses it."""

    def __init__(self) -> None:
        self._count = secrets.randbits(62)
        self._fd = os.memfd_create(NAMES_PAGE, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._fd, _SIZE)
        os.pwrite(self._fd, _COUNT.pack(self._count), 0)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        os.fchmod(self._fd, 0o400)

    def read_only_fd(self) -> int:
        """Return a new fd for a client, which the caller must close. Raises OSError where the system refuses it."""
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def add_one(self) -> None:
        """Count a name that begins to refer to another object."""
        self._count += 1
        os.pwrite(self._fd, _COUNT.pack(self._count), 0)

    def close(self) -> None:
        """Close the page; the fds of clients stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
