"""Reads of a file from several threads at once, each from a place of its own. This module selects the system's calls.

Linux reads at an offset, into many buffers by one call. Windows has one position for each open file, so each read opens
the file again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["BUFFERS", "OPENING", "give_back_cache", "read", "read_into"]

BUFFERS: Final = 1024
"""Most buffers of a call: IOV_MAX of Linux."""

if sys.platform == "win32":
    OPENING: Final = os.O_BINARY | os.O_NOINHERIT
    """Flags of os.open for reading a file that may turn out to be none."""

    def read(fd: int, path: str, size: int, offset: int) -> bytes:
        """Return at most `size` bytes from `offset`; none at the end of the file. Errors: OSError."""
        with open(path, "rb", buffering=0) as own:
            own.seek(offset)
            return own.read(size)

    def read_into(fd: int, path: str, views: Sequence[memoryview], offset: int) -> int:
        """Fill buffers, one after the other, from `offset`. Return how many bytes were read; 0 at the end of the file.

        Errors: OSError.
        """
        done = 0
        with open(path, "rb", buffering=0) as own:
            own.seek(offset)
            for view in views:
                got = own.readinto(view)
                done += got
                if got < view.nbytes:
                    break
        return done

    def give_back_cache(fd: int, offset: int, size: int) -> None:
        """Do nothing: Windows takes pages of its cache back when it needs memory."""

else:
    # Without O_NONBLOCK the opening of a FIFO waits for a writer.
    OPENING: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

    def read(fd: int, path: str, size: int, offset: int) -> bytes:
        """Return at most `size` bytes from `offset`; none at the end of the file. Errors: OSError."""
        return os.pread(fd, size, offset)

    def read_into(fd: int, path: str, views: Sequence[memoryview], offset: int) -> int:
        """Fill buffers, one after the other, from `offset`. Return how many bytes were read; 0 at the end of the file.

        views: at most `BUFFERS`. Errors: OSError.
        """
        return os.preadv(fd, views, offset)

    def give_back_cache(fd: int, offset: int, size: int) -> None:
        """Let the kernel drop the pages of a range of the file from its cache; 0, 0: all of them.

        Pages that are in the range in part are kept, as are those that others have mapped or written. Not done where
        the file system has no such cache.
        """
        try:
            os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
        except OSError:
            return
