"""The bytes of fake memory: what the system shares (memory files, sections), and host memory that was imported.

How this works. A payload's last page contains a tag: that a fake driver made it, on which device, of which size and
memory type. A driver that imports one reads the tag, as a real one queries its kernel module. A file that only
resembles a payload has no such page.
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
    """The bytes of a memory object."""

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes as the device reads them."""

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes as the device does."""

    def map(self, size: int) -> tuple[int, object]:
        """Map it for the host. Return the address, and an object that keeps the mapping."""

    def close(self) -> None:
        """Release it."""


class HostPayload:
    """Host memory that was imported by its address."""

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
        """See `Payload`. The pages belong to the program and are not released."""


class Shadow:
    """The host's mapping of memory that is not coherent: a copy, which flushing and invalidating synchronize.

    A flush writes only what the host changed, as a cache writes only changed lines.
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
        """Write what the host changed in the range to the payload."""
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
        """Read the range from the payload, with what the device wrote."""
        data = self._payload.read(offset, size)
        self._bytes[offset : offset + size] = data
        self._clean[offset : offset + size] = data
