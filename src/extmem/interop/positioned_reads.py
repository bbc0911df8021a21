"""Reads of a file from several threads at once, each from a place of its own. This module selects the system's calls.

Linux reads at an offset. Windows has one position for each open file, so each read opens the file again.
"""

from __future__ import annotations

import sys

__all__ = ["give_back_cache", "read", "read_into"]

if sys.platform == "win32":

    def read(fd: int, path: str, size: int, offset: int) -> bytes:
        """Return at most `size` bytes from `offset`; none at the end of the file. Errors: OSError."""
        with open(path, "rb", buffering=0) as own:
            own.seek(offset)
            return own.read(size)

    def read_into(fd: int, path: str, view: memoryview, offset: int) -> int:
        """Fill a buffer from `offset`. Return how many bytes were read; 0 at the end of the file. Errors: OSError."""
        with open(path, "rb", buffering=0) as own:
            own.seek(offset)
            return own.readinto(view)

    def give_back_cache(fd: int, offset: int, size: int) -> None:
        """Do nothing: Windows takes pages of its cache back when it needs memory."""

else:
    import os

    def read(fd: int, path: str, size: int, offset: int) -> bytes:
        """Return at most `size` bytes from `offset`; none at the end of the file. Errors: OSError."""
        return os.pread(fd, size, offset)

    def read_into(fd: int, path: str, view: memoryview, offset: int) -> int:
        """Fill a buffer from `offset`. Return how many bytes were read; 0 at the end of the file. Errors: OSError."""
        return os.preadv(fd, [view], offset)

    def give_back_cache(fd: int, offset: int, size: int) -> None:
        """Let the kernel drop the pages of a range of the file from its cache; 0, 0: all of them.

        Not done where the file system has no such cache.
        """
        try:
            os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
        except OSError:
            return
