"""`SyncPage`: the payload of a semaphore or fence of a fake driver, a page that processes share.

How this works. A page contains a tag (what it is, on which device) and one number: 0 or 1 for a binary semaphore or a
fence, the counter for a timeline. On Linux it is a memory file, which other processes import by its fd. A change that
depends on the number is made under a lock of the file, so that a binary signal is consumed once. Where the page is not
shared (Windows, so far) it is plain memory.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
from collections.abc import Iterator
from typing import Final

__all__ = ["PAYLOAD_NAME", "SYNC_FILE_NAME", "SyncPage"]

PAYLOAD_NAME: Final = "fake vulkan semaphore"
"""The name of the files of semaphores and fences, equal for all: as on NVIDIA, the file does not tell which it is."""
SYNC_FILE_NAME: Final = "fake sync_file"
"""The name of the files that represent sync_files."""

_TAG = struct.Struct("=8s16s16sII")
_MAGIC = b"FAKESYNC"
_NUMBER = struct.Struct("=Q")
_AT = 64
_SIZE = 4096
_KINDS = ("binary", "timeline", "fence")


class SyncPage:
    """The state of a semaphore or fence. Owns its fd. Several objects of the fake may refer to one page."""

    def __init__(self, page: mmap.mmap, fd: int, kind: str, device_uuid: bytes, driver_uuid: bytes) -> None:
        """fd: owned from now on; -1 for a page that is not shared."""
        self._page = page
        self.fd = fd
        self.kind = kind
        """`"binary"`, `"timeline"` or `"fence"`: what its creator was."""
        self.device_uuid = device_uuid
        self.driver_uuid = driver_uuid
        self.shared = False
        """Whether it was exported or imported, so that others may signal it."""
        self.users = 1
        """Objects and submissions that refer to it; it is closed with the last."""

    @classmethod
    def new(
        cls, kind: str, number: int, device_uuid: bytes, driver_uuid: bytes, *, name: str = PAYLOAD_NAME
    ) -> SyncPage:
        """Make a page. Errors: OSError."""
        fd = -1
        if sys.platform == "linux":
            fd = os.memfd_create(name, os.MFD_CLOEXEC)
            os.ftruncate(fd, _SIZE)
        try:
            page = mmap.mmap(fd, _SIZE)
        except OSError:
            if fd >= 0:
                os.close(fd)
            raise
        _TAG.pack_into(page, 0, _MAGIC, device_uuid, driver_uuid, _KINDS.index(kind), 0)
        _NUMBER.pack_into(page, _AT, number)
        return cls(page, fd, kind, device_uuid, driver_uuid)

    @classmethod
    def from_fd(cls, fd: int) -> SyncPage | None:
        """Return the page behind an fd, which it owns then; None, and the fd stays the caller's, for any other file."""
        if sys.platform != "linux":
            return None
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
            if not link.startswith((f"/memfd:{PAYLOAD_NAME}", f"/memfd:{SYNC_FILE_NAME}")):
                return None
            if os.fstat(fd).st_size != _SIZE:
                return None
            page = mmap.mmap(fd, _SIZE)
        except (OSError, ValueError):
            return None
        magic, device, driver, kind, _ = _TAG.unpack_from(page, 0)
        if magic != _MAGIC:
            page.close()
            return None
        made = cls(page, fd, _KINDS[kind % len(_KINDS)], device, driver)
        made.shared = True
        return made

    @property
    def is_sync_file(self) -> bool:
        """Whether it is the file of a sync_file."""
        return os.readlink(f"/proc/self/fd/{self.fd}").startswith(f"/memfd:{SYNC_FILE_NAME}")

    @property
    def number(self) -> int:
        """The counter; 1 for a binary semaphore or fence that is signaled."""
        found: int = _NUMBER.unpack_from(self._page, _AT)[0]
        return found

    def signal(self, number: int = 1) -> None:
        """Set the number: what a signal does, and with 0 a reset."""
        _NUMBER.pack_into(self._page, _AT, number)

    def consume(self) -> bool:
        """Take the signal of a binary semaphore. Return whether there was one."""
        with self._locked():
            if not self.number:
                return False
            self.signal(0)
            return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if sys.platform != "linux":
            yield
            return
        import fcntl

        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def use(self) -> SyncPage:
        """Count one more user. Return the page."""
        self.users += 1
        return self

    def forget(self) -> None:
        """Unmap the page, and leave the fd to the caller."""
        self.fd = -1
        self.close()

    def close(self) -> None:
        """End one use; the last one closes the page."""
        self.users -= 1
        if not self.users:
            self._page.close()
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)
