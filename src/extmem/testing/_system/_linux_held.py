"""What this process holds, by Linux's word: descriptors, mapped memory files, and the bytes kept alive."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is Linux's; extmem.testing._system picks what the system has")

import contextlib
import os
from collections import Counter
from pathlib import Path

__all__ = ["descriptors", "mappings", "memory_file_bytes", "memory_files"]

_SELF = Path("/proc/self")
_MEMFD = "/memfd:"


def descriptors() -> dict[int, str]:
    """The file descriptors of this process and what each leads to."""
    found = {}
    for entry in os.listdir(_SELF / "fd"):
        # The descriptor that lists the directory is gone by now.
        with contextlib.suppress(OSError):
            found[int(entry)] = _target(int(entry))
    return found


def _target(fd: int) -> str:
    target = os.readlink(_SELF / "fd" / str(fd))
    if target.startswith(_MEMFD):
        # Without its size: a file that grows stays the same file.
        return f"{target} inode {os.fstat(fd).st_ino}"
    # A connection that was made anew is another socket and no leak: these are told by kind and number only.
    return target.partition(":[")[0]


def memory_file_bytes() -> int:
    """Bytes of the distinct memory files that descriptors and mappings of this process keep alive."""
    return sum(memory_files().values())


def memory_files() -> dict[str, int]:
    """Those files: the bytes of each, by its inode."""
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
    """Memory files mapped into this process: how many mappings of each, by inode, length and rights."""
    found: Counter[str] = Counter()
    for line in (_SELF / "maps").read_text().splitlines():
        if _MEMFD in line:
            span, rights, _, _, inode, *_ = line.split()
            first, last = (int(end, 16) for end in span.split("-"))
            found[f"mapping of memory file inode {inode}, {last - first} bytes, {rights}"] += 1
    return found
