"""The tag that a fake driver writes after a payload's bytes, by which any fake driver recognizes it. A pure module."""

from __future__ import annotations

import struct

__all__ = ["DIRTY", "GARBAGE", "SIZE", "SYNC_MAGIC", "SYNC_SIZE", "Tag", "unpack"]

_TAG = struct.Struct("<8s16s16sQIIQ")
_MAGIC = b"FAKEVULK"
SYNC_MAGIC, SYNC_SIZE = b"FAKESYNC", 4096
"""The beginning, and the size in bytes, of the page of a semaphore or fence (`sync_pages`)."""
SIZE = _TAG.size
GARBAGE = 0xCD
"""The value of each byte of new memory."""
DIRTY = 1 << 20
"""Number of bytes at each end of new memory that have this value; filling all of a large one would take long."""


class Tag:
    """What a payload is. `types`: external types that it was made as; 0 on Linux, where a payload has only one."""

    def __init__(
        self, device_uuid: bytes, driver_uuid: bytes, size: int, memory_type: int, dedicated: str, types: int = 0
    ) -> None:
        self.device_uuid = device_uuid
        self.driver_uuid = driver_uuid
        self.size = size
        self.memory_type = memory_type
        self.dedicated = dedicated
        """`"Buffer"`, `"Image"` or empty."""
        self.types = types

    def pack(self) -> bytes:
        """Return the tag as bytes."""
        kind = ("", "Buffer", "Image").index(self.dedicated)
        return _TAG.pack(_MAGIC, self.device_uuid, self.driver_uuid, self.size, self.memory_type, kind, self.types)


def unpack(data: bytes) -> Tag | None:
    """Return the tag in these bytes; None if they are not a tag."""
    if len(data) != _TAG.size or not data.startswith(_MAGIC):
        return None
    _, device, driver, size, memory_type, kind, types = _TAG.unpack(data)
    return Tag(device, driver, size, memory_type, ("", "Buffer", "Image")[kind % 3], types)
