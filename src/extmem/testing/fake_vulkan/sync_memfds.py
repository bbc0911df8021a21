"""`PageFile` on Linux: the memory file of a fake semaphore's or fence's page."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Iterator

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; on Windows the fake driver has sections")

import fcntl

__all__ = ["PageFile", "create", "opened"]


class PageFile:
    """A mapped file. Owns its fd."""

    def __init__(self, fd: int, size: int) -> None:
        """Errors: OSError; the fd stays the caller's then."""
        self._memory = mmap.mmap(fd, size)
        self.fd = fd

    def read(self, at: int, size: int) -> bytes:
        """Return bytes of the page."""
        return self._memory[at : at + size]

    def write(self, at: int, data: bytes) -> None:
        """Write bytes of the page."""
        self._memory[at : at + len(data)] = data

    def is_named(self, name: str) -> bool:
        """Whether the file was made with that name."""
        return os.readlink(f"/proc/self/fd/{self.fd}").startswith(f"/memfd:{name}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other processes."""
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def forget(self) -> None:
        """Unmap it, and leave the fd to the caller."""
        self.fd = -1
        self._memory.close()

    def close(self) -> None:
        """Unmap and close it."""
        self._memory.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def create(size: int, name: str, security: int = 0) -> PageFile:
    """Create a file. security: unused. Errors: OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        return PageFile(fd, size)
    except OSError:
        os.close(fd)
        raise


def opened(fd: int, size: int, names: tuple[str, ...]) -> PageFile | None:
    """Return the file behind an fd, which it owns then; None, and the fd stays the caller's, for another file."""
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
        if not link.startswith(tuple(f"/memfd:{name}" for name in names)) or os.fstat(fd).st_size != size:
            return None
        return PageFile(fd, size)
    except (OSError, ValueError):
        return None
