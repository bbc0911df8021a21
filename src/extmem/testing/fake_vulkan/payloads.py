"""The bytes behind fake memory: what the system shares (memory files, sections), and host memory that was imported.

How this works. A payload's last page tells what it is: that a fake driver made it, on which device, of which size and
memory type. A driver that imports one reads it, as a real one asks its kernel side. What only looks like a payload has
no such page.
"""

from __future__ import annotations

import mmap
from typing import Any, Protocol

from extmem.testing.fake_vulkan._system import FilePayload, read_tag
from extmem.testing.fake_vulkan.tags import Tag
from extmem.vk.abi import ffi

__all__ = ["FilePayload", "HostPayload", "Payload", "Shadow", "Tag", "read_tag"]

_PAGE = mmap.PAGESIZE


class Payload(Protocol):
    """Bytes that a device's memory stands for."""

    def read(self, offset: int, size: int) -> bytes:
        """What the device sees."""

    def write(self, offset: int, data: bytes) -> None:
        """What the device writes."""

    def map(self, size: int) -> tuple[int, object]:
        """The address of a mapping, and what keeps it."""

    def close(self) -> None:
        """Let go of it."""


class HostPayload:
    """Host memory that the device was given the address of."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self._bytes: Any = ffi.buffer(ffi.cast("char *", address), size)

    def read(self, offset: int, size: int) -> bytes:
        """See `Payload`."""
        return bytes(self._bytes[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """See `Payload`."""
        self._bytes[offset : offset + len(data)] = data

    def map(self, size: int) -> tuple[int, object]:
        """See `Payload`."""
        return self.address, self._bytes

    def close(self) -> None:
        """See `Payload`: the pages are their owner's."""


class Shadow:
    """The host's view of memory that is not coherent: a copy, which flushing and invalidating bring up to date.

    What the host did not change is not written back by a flush, as a cache writes back changed lines alone.
    """

    def __init__(self, payload: Payload, size: int) -> None:
        self._payload = payload
        room = ffi.new("char[]", size + _PAGE)
        self._keep = room
        start = -int(ffi.cast("uintptr_t", room)) % _PAGE
        self.address = int(ffi.cast("uintptr_t", room)) + start
        self._bytes: Any = ffi.buffer(room + start, size)
        self._bytes[:] = payload.read(0, size)
        self._clean = bytearray(self._bytes[:])

    def flush(self, offset: int, size: int, atom: int) -> None:
        """What the host changed in the range becomes the device's."""
        mine, clean = bytes(self._bytes[offset : offset + size]), self._clean[offset : offset + size]
        if mine == clean:
            return
        if size > atom:
            half = max(atom, size // 2 // atom * atom)
            self.flush(offset, half, atom)
            self.flush(offset + half, size - half, atom)
            return
        self._payload.write(offset, mine)
        self._clean[offset : offset + size] = mine

    def invalidate(self, offset: int, size: int) -> None:
        """What the device wrote in the range becomes the host's."""
        data = self._payload.read(offset, size)
        self._bytes[offset : offset + size] = data
        self._clean[offset : offset + size] = data
