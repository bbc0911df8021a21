"""`SyncPage`: the payload of a semaphore or fence of a fake driver, a page that processes share.

How this works. A page contains a tag (what it is, on which device) and one number: 0 or 1 for a binary semaphore or a
fence, the counter for a timeline. On Linux it is a memory file, which other processes import by its fd, on Windows a
section, with the name and security of the export. A change that depends on the number is made under a lock, so that a
binary signal is consumed once.
"""

from __future__ import annotations

import struct
from typing import Final

from extmem.testing.fake_vulkan._system import sync_files
from extmem.testing.fake_vulkan.tags import SYNC_MAGIC, SYNC_SIZE

__all__ = ["PAYLOAD_NAME", "SYNC_FILE_NAME", "SyncPage"]

PAYLOAD_NAME: Final = "fake vulkan semaphore"
"""The name of the files of semaphores and fences, equal for all: as on NVIDIA, the file does not tell which it is."""
SYNC_FILE_NAME: Final = "fake sync_file"
"""The name of the files that represent sync_files."""

_TAG = struct.Struct("=8s16s16sII")
_NUMBER = struct.Struct("=Q")
_AT = 64
_KINDS = ("binary", "timeline", "fence")


class SyncPage:
    """The state of a semaphore or fence. Owns its fd. Several objects of the fake may refer to one page."""

    def __init__(
        self, page: sync_files.PageFile, kind: str, device_uuid: bytes, driver_uuid: bytes, types: int = 0
    ) -> None:
        """page: owned from now on."""
        self._page = page
        self.kind = kind
        """`"binary"`, `"timeline"` or `"fence"`: what its creator was."""
        self.device_uuid = device_uuid
        self.driver_uuid = driver_uuid
        self.types = types
        """External types that it was made as; 0 on Linux."""
        self.shared = False
        """Whether it was exported or imported, so that others may signal it."""
        self.users = 1
        """Objects and submissions that refer to it; it is closed with the last."""

    @property
    def fd(self) -> int:
        """The fd or HANDLE of the page, borrowed; -1 once closed."""
        return self._page.fd

    @classmethod
    def new(
        cls,
        kind: str,
        number: int,
        device_uuid: bytes,
        driver_uuid: bytes,
        *,
        name: str = PAYLOAD_NAME,
        security: int = 0,
        types: int = 0,
    ) -> SyncPage:
        """Make a page.

        name: of the file; on Windows the full path of the section's name, or `PAYLOAD_NAME` for none. security: the
        address of a security descriptor, on Windows. types: external types that it was made as, on Windows.
        Errors: OSError; on Windows StatusError for a name that it cannot have.
        """
        page = sync_files.create(SYNC_SIZE, name, security)
        page.write(0, _TAG.pack(SYNC_MAGIC, device_uuid, driver_uuid, _KINDS.index(kind), types))
        page.write(_AT, _NUMBER.pack(number))
        return cls(page, kind, device_uuid, driver_uuid, types)

    @classmethod
    def from_fd(cls, fd: int) -> SyncPage | None:
        """Return the page behind an fd or HANDLE, which it owns then; None, and it stays the caller's, for any other
        file.
        """
        page = sync_files.opened(fd, SYNC_SIZE, (PAYLOAD_NAME, SYNC_FILE_NAME))
        if page is None:
            return None
        magic, device, driver, kind, types = _TAG.unpack(page.read(0, _TAG.size))
        if magic != SYNC_MAGIC:
            page.forget()
            return None
        made = cls(page, _KINDS[kind % len(_KINDS)], device, driver, types)
        made.shared = True
        return made

    @property
    def is_sync_file(self) -> bool:
        """Whether it is the file of a sync_file."""
        return self._page.is_named(SYNC_FILE_NAME)

    @property
    def number(self) -> int:
        """The counter; 1 for a binary semaphore or fence that is signaled."""
        found: int = _NUMBER.unpack(self._page.read(_AT, _NUMBER.size))[0]
        return found

    def signal(self, number: int = 1) -> None:
        """Set the number: what a signal does, and with 0 a reset."""
        self._page.write(_AT, _NUMBER.pack(number))

    def consume(self) -> bool:
        """Take the signal of a binary semaphore. Return whether there was one."""
        with self._page.locked():
            if not self.number:
                return False
            self.signal(0)
            return True

    def use(self) -> SyncPage:
        """Count one more user. Return the page."""
        self.users += 1
        return self

    def forget(self) -> None:
        """Unmap the page, and leave the fd to the caller."""
        self._page.forget()

    def close(self) -> None:
        """End one use; the last one closes the page."""
        self.users -= 1
        if not self.users:
            self._page.close()
