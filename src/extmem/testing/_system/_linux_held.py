"""What this process holds, read from /proc: fds, mapped memory files, and the bytes that both keep alive."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is Linux's; extmem.testing._system picks what the system has")

import contextlib
import os
from collections import Counter
from pathlib import Path

from extmem.wire.limits import NAMES_PAGE

__all__ = ["descriptors", "mappings", "memory_file_bytes", "memory_files"]

_SELF = Path("/proc/self")
_MEMFD = "/memfd:"
_ANONYMOUS = "anon_inode:"
"""An eventfd, an io_uring, a pidfd: the text names the kind."""


def descriptors() -> dict[int, str]:
    """Return the open fds of this process, each with a text of what it leads to."""
    found = {}
    for entry in os.listdir(_SELF / "fd"):
        # The fd that the directory was listed with is closed by now.
        with contextlib.suppress(OSError):
            found[int(entry)] = _target(int(entry))
    return found


def _target(fd: int) -> str:
    target = os.readlink(_SELF / "fd" / str(fd))
    if target.startswith(_MEMFD + NAMES_PAGE):
        return target  # belongs to the connection, as a socket does
    if target.startswith(_MEMFD):
        # The text omits the size, so that a file that grows has the same text.
        return f"{target} inode {os.fstat(fd).st_ino}"
    # A connection that is opened again is another socket and not a leak. The text of a socket omits its inode.
    return target if target.startswith(_ANONYMOUS) else target.partition(":[")[0]


def memory_file_bytes() -> int:
    """Return the number of bytes of the distinct memory files that fds and mappings of this process keep alive."""
    return sum(memory_files().values())


def memory_files() -> dict[str, int]:
    """Return the bytes of each memory file that this process keeps alive, by inode."""
    files: dict[str, int] = {}
    for fd, target in descriptors().items():
        if target.startswith(_MEMFD):
            with contextlib.suppress(OSError):
                status = os.fstat(fd)
                files[str(status.st_ino)] = status.st_size
    for line in (_SELF / "maps").read_text().splitlines():
        if _MEMFD in line:
            span, _, _, _, inode, *_ = line.split()
            first, last = (int(end, 16) for end in span.split("-"))
            files.setdefault(inode, last - first)
    return files


def mappings() -> Counter[str]:
    """Return the number of mappings of each memory file in this process, by inode, length and rights."""
    found: Counter[str] = Counter()
    for line in (_SELF / "maps").read_text().splitlines():
        if _MEMFD in line and NAMES_PAGE not in line:
            span, rights, _, _, inode, *_ = line.split()
            first, last = (int(end, 16) for end in span.split("-"))
            found[f"mapping of memory file inode {inode}, {last - first} bytes, {rights}"] += 1
    return found
