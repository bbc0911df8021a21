"""Payloads on Linux: memory files, which are shared by their fds."""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; on Windows the fake driver shares sections")

from extmem.testing.fake_vulkan.gpus import PAYLOAD_NAME
from extmem.testing.fake_vulkan.tags import DIRTY, GARBAGE, SIZE, Tag, unpack

__all__ = ["DMA_BUF_NAME", "FilePayload", "dma_buf_size", "read_tag"]

DMA_BUF_NAME = "fake dma-buf"
"""The name of memory files that represent dma-bufs, which only drivers can make."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_tag(fd: int) -> Tag | None:
    """Return the tag of the file behind the fd; None if no fake driver made it. Raises no error for any fd."""
    try:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{PAYLOAD_NAME}"):
            return None
        return unpack(os.pread(fd, SIZE, os.fstat(fd).st_size - _PAGE))
    except OSError:
        return None


def dma_buf_size(fd: int) -> int | None:
    """Return the bytes of a file that represents a dma-buf; None for any other. Raises no error for any fd."""
    try:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{DMA_BUF_NAME}"):
            return os.fstat(fd).st_size
    except OSError:
        pass
    return None


class FilePayload:
    """A memory file. Owns its fd."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls, tag: Tag) -> FilePayload:
        """Make new memory with arbitrary contents, as a driver may. Errors: OSError."""
        fd = os.memfd_create(PAYLOAD_NAME, os.MFD_CLOEXEC)
        try:
            whole = -(-tag.size // _PAGE) * _PAGE
            os.ftruncate(fd, whole + _PAGE)
            dirty = bytes([GARBAGE]) * min(tag.size, DIRTY)
            os.pwrite(fd, dirty, 0)
            os.pwrite(fd, dirty, tag.size - len(dirty))
            os.pwrite(fd, tag.pack(), whole)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def read(self, offset: int, size: int) -> bytes:
        """See `Payload`. Bytes past the end of a file that is too short are zero; a real device would fault."""
        return os.pread(self.fd, size, offset).ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """See `Payload`. Bytes past the end of a file that is too short are lost."""
        room = max(0, os.fstat(self.fd).st_size - offset)
        if room:
            os.pwrite(self.fd, data[:room], offset)

    def map(self, size: int) -> tuple[int, object]:
        """See `Payload`. Errors: OSError for a file that is too short: access to its mapping would kill the process."""
        from extmem.devices.host.mapping import map_file

        if os.fstat(self.fd).st_size < size:
            raise OSError(f"the file has less than {size} bytes: access to the mapping would kill the process")
        mapping = map_file(self.fd, size, True)
        return mapping.address, mapping

    def close(self) -> None:
        """See `Payload`."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
