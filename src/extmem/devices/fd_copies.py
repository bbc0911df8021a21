"""Copies of a caller's fd for an import: the caller keeps the fd until the whole call has succeeded."""

from __future__ import annotations

import os
import stat

from extmem import vk
from extmem.errors import OutOfMemoryError
from extmem.owning import OwnedFd, copy_fd

__all__ = ["copy_of", "copy_to_read", "is_same_file"]

_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)


def copy_of(fd: int, command: str = "vkAllocateMemory") -> OwnedFd:
    """Return a duplicate (dup(2)), close-on-exec, owned by the caller. command: what it is for.

    Errors: OutOfMemoryError with VK_ERROR_TOO_MANY_OBJECTS.
    """
    try:
        return copy_fd(fd)
    except OSError as error:
        raise OutOfMemoryError(
            f"{command}: fd {fd} cannot be duplicated ({error.strerror}); close some, or raise `ulimit -n`",
            result=vk.Result.ERROR_TOO_MANY_OBJECTS,
            command=command,
        ) from error


def copy_to_read(fd: int) -> OwnedFd:
    """Return a copy as `copy_of`, but with a position of its own if the fd is a regular file.

    All duplicates of a descriptor share one position, in other processes too. A driver that reads its payload's file by
    read(2), as Mesa's software driver does, fails sometimes when two imports of one payload read at the same time.
    """
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return OwnedFd.of(os.open, f"/proc/self/fd/{fd}", os.O_RDWR | _CLOSE_ON_EXEC)
    except OSError:
        pass  # no /proc, or no right to open the file again
    return copy_of(fd)


def is_same_file(copy: int, fd: int) -> bool:
    """Whether a copy of `fd` that a failed import got is still open: some drivers close it when they fail."""
    try:
        return os.path.sameopenfile(copy, fd)
    except OSError:
        return False
