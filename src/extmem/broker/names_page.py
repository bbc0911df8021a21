"""The page that tells clients that a live name has begun to refer to another object.

How this works. A client that has opened a name need not ask again while nothing changes: a name refers to one object as
long as that exists. Only a replacement changes that. So the broker counts replacements in a page of memory, which
clients read: while the count is the same, what they know of names is true. The broker counts before it replies to the
replacement.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import Final

from extmem.wire.limits import NAMES_PAGE

__all__ = ["NamesPage"]

_COUNT: Final = struct.Struct("=Q")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class NamesPage:
    """The page. It is created at the first request for it. Ownership: `close` closes its fd and mapping."""

    def __init__(self) -> None:
        self.count = 0
        self._fd = -1
        self._mapping: mmap.mmap | None = None

    def read_only_fd(self) -> int:
        """Return the fd that clients get, borrowed. Raises OSError where the system refuses it."""
        if self._fd < 0:
            writable = os.memfd_create(NAMES_PAGE, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(writable, mmap.PAGESIZE)
                fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
                self._mapping = mmap.mmap(writable, mmap.PAGESIZE)
                self._fd = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
                os.fchmod(writable, 0o400)
            finally:
                os.close(writable)
            self._write()
        return self._fd

    def add_one(self) -> None:
        """Count a name that begins to refer to another object."""
        self.count += 1
        self._write()

    def close(self) -> None:
        """Close the page; the mappings of clients stay."""
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self) -> None:
        if self._mapping is not None:
            _COUNT.pack_into(self._mapping, 0, self.count)
