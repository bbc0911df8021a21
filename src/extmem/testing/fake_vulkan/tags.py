"""What a fake driver writes behind a payload's bytes, so that any fake driver knows it. Pure: bytes in, bytes out."""

from __future__ import annotations

import struct

__all__ = ["DIRTY", "GARBAGE", "SIZE", "Tag", "unpack"]

_TAG = struct.Struct("<8s16s16sQIIQ")
_MAGIC = b"FAKEVULK"
SIZE = _TAG.size
GARBAGE = 0xCD
"""What new memory is full of."""
DIRTY = 1 << 20
"""New memory up to this size is garbage all over; in larger ones, which would take long, the ends are."""


class Tag:
    """What a payload says of itself. `types`: external types it was made as; 0 where the system's kernel says it."""

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
        """Its bytes in the file."""
        kind = ("", "Buffer", "Image").index(self.dedicated)
        return _TAG.pack(_MAGIC, self.device_uuid, self.driver_uuid, self.size, self.memory_type, kind, self.types)


def unpack(data: bytes) -> Tag | None:
    """The tag in these bytes; None for what no fake driver made."""
    if len(data) != _TAG.size or not data.startswith(_MAGIC):
        return None
    _, device, driver, size, memory_type, kind, types = _TAG.unpack(data)
    return Tag(device, driver, size, memory_type, ("", "Buffer", "Image")[kind % 3], types)
