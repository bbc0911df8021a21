"""`FileKind`: what a file is, seen from outside, so that an fd can be compared with what a driver exports."""

from __future__ import annotations

import importlib
import os
import re
import stat
from typing import Any, Final

import msgspec

__all__ = ["FILE_TYPES", "FileKind", "file_kind", "kind_of", "seals_of"]

FILE_TYPES: Final = {
    stat.S_IFSOCK: "socket",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFREG: "file",
}
"""Words for the types of files (S_IFMT)."""
_FILE_TYPE = stat.S_IFMT(0o177777)


class FileKind(msgspec.Struct, frozen=True):
    """What a file is, seen from outside: file type, device number of a device file, and its link without numbers.

    Of a regular file also the file system that it is on, and its seals; None where files there have none.
    """

    mode: int
    device_number: int
    link: str
    file_system: int = 0
    seals: int | None = None

    def __str__(self) -> str:
        return self.link

    def difference(self, own: FileKind) -> str:
        """Why the file differs from the driver's own, the link aside; empty where it does not."""
        if (self.mode, self.device_number) != (own.mode, own.device_number):
            return "a file of another kind"
        if self.file_system != own.file_system:
            return "on another file system"
        lacking = (own.seals or 0) & ~(self.seals or 0)
        return f"without the seals {lacking:#x}, so that it can be changed under those who mapped it" if lacking else ""


def file_kind(fd: int, *, link: bool = True) -> FileKind:
    """Return what an fd is. link: whether its link is read. OSError (EBADF) if it is not open."""
    return kind_of(fd, os.fstat(fd), link)


def kind_of(fd: int, status: os.stat_result, link: bool) -> FileKind:
    """Return what an fd is, whose status was read. link: whether its link is read."""
    text = ""
    if link:
        try:
            text = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            text = FILE_TYPES.get(stat.S_IFMT(status.st_mode), "anonymous")
        text = re.sub(r"\d+", "#", text.removesuffix(" (deleted)"))
    mode = status.st_mode & _FILE_TYPE
    if mode == stat.S_IFREG:
        return FileKind(mode, 0, text, status.st_dev, seals_of(fd))
    return FileKind(mode, int(getattr(status, "st_rdev", 0)), text)  # not every platform has the number


def _find_fcntl() -> Any:
    try:
        return importlib.import_module("fcntl")
    except ImportError:
        return None  # Windows, where drivers export no fds


_FCNTL = _find_fcntl()


def seals_of(fd: int) -> int | None:
    """The seals of a memory file (F_GET_SEALS); None for other files."""
    try:
        return int(_FCNTL.fcntl(fd, _FCNTL.F_GET_SEALS))
    except OSError:
        return None
