"""Files of the companion pages of memory on Linux: sealed memory files, as payloads are.

How this works. A page whose contents are final is sealed against writing too, so that also its creator, and another
process of the same user, cannot change it. The size of a page is that of its file, which is sealed, without the page at
its end.
"""

from __future__ import annotations

import os
import sys

from extmem.devices.host import memfd
from extmem.owning import OwnedFd

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

__all__ = ["create_page_file", "page_file_size", "read_page_file"]


def create_page_file(contents: bytes | memoryview, *, final: bool, sddl: str | None = None) -> OwnedFd:
    """Create a page with these contents, and return its fd, which the caller owns.

    final: nobody may write to it from now on. sddl: unused: the broker gives the page to importers of its payload.
    Errors: OutOfMemoryError.
    """
    return memfd.create(len(contents), b"", contents=contents, final=final, freezable=not final)


def page_file_size(fd: int) -> int:
    """Return the bytes of a page; 0 for a file that is too small to be one."""
    return max(0, os.fstat(fd).st_size - memfd.PAGE)


def read_page_file(fd: int, size: int) -> bytes:
    """Return a private copy of the first `size` bytes, of fewer if the file is shorter. Errors: OutOfMemoryError."""
    parts: list[bytes] = []
    done = 0
    try:
        while done < size and (part := os.pread(fd, size - done, done)):
            parts.append(part)
            done += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    except MemoryError as error:
        raise memfd.out_of_memory(error, "open", f"a copy of a companion page of {size} bytes") from None
