"""The bytes behind fake memory: memory files that can be shared by their fds, and host memory that was imported.

How this works. A file's last page tells what it is: that a fake driver made it, on which device, of which size and
memory type. A driver that imports an fd reads it, as a real one asks its kernel side. What only looks like a payload,
by its name, has no such page.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any, Protocol

if sys.platform != "linux":
    raise ImportError("the fake driver shares memory files, which are Linux's")

from extmem.testing.fake_vulkan.gpus import PAYLOAD_NAME
from extmem.vk.abi import ffi

__all__ = ["FilePayload", "HostPayload", "Payload", "Shadow", "Tag", "read_tag"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TAG = struct.Struct("<8s16s16sQIIQ")
_MAGIC = b"FAKEVULK"
_GARBAGE = 0xCD
_DIRTY = 1 << 20
"""New memory up to this size is garbage all over; in larger ones, which would take long, the ends are."""


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


class Tag:
    """What a payload's file says of itself."""

    def __init__(self, device_uuid: bytes, driver_uuid: bytes, size: int, memory_type: int, dedicated: str) -> None:
        self.device_uuid = device_uuid
        self.driver_uuid = driver_uuid
        self.size = size
        self.memory_type = memory_type
        self.dedicated = dedicated
        """`"Buffer"`, `"Image"` or empty."""

    def pack(self) -> bytes:
        """Its bytes in the file."""
        kind = ("", "Buffer", "Image").index(self.dedicated)
        return _TAG.pack(_MAGIC, self.device_uuid, self.driver_uuid, self.size, self.memory_type, kind, 0)


def read_tag(fd: int) -> Tag | None:
    """What the file behind the fd says of itself; None for what no fake driver made. Never raises for what it finds."""
    try:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{PAYLOAD_NAME}"):
            return None
        data = os.pread(fd, _TAG.size, os.fstat(fd).st_size - _PAGE)
    except OSError:
        return None
    if len(data) != _TAG.size or not data.startswith(_MAGIC):
        return None
    _, device, driver, size, memory_type, kind, _ = _TAG.unpack(data)
    return Tag(device, driver, size, memory_type, ("", "Buffer", "Image")[kind % 3])


class FilePayload:
    """A memory file. Owns its fd."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls, tag: Tag) -> FilePayload:
        """New memory, full of garbage as a driver's may be. Errors: OSError."""
        fd = os.memfd_create(PAYLOAD_NAME, os.MFD_CLOEXEC)
        try:
            whole = -(-tag.size // _PAGE) * _PAGE
            os.ftruncate(fd, whole + _PAGE)
            dirty = bytes([_GARBAGE]) * min(tag.size, _DIRTY)
            os.pwrite(fd, dirty, 0)
            os.pwrite(fd, dirty, tag.size - len(dirty))
            os.pwrite(fd, tag.pack(), whole)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def read(self, offset: int, size: int) -> bytes:
        """See `Payload`. Bytes past the end of too short a file are zero, where a real device would fault."""
        return os.pread(self.fd, size, offset).ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """See `Payload`. What is past the end of too short a file is lost."""
        room = max(0, os.fstat(self.fd).st_size - offset)
        if room:
            os.pwrite(self.fd, data[:room], offset)

    def map(self, size: int) -> tuple[int, object]:
        """See `Payload`. Errors: OSError for too short a file, whose mapping would kill the process."""
        from extmem.devices.host._mapping import map_file

        if os.fstat(self.fd).st_size < size:
            raise OSError(f"the file has less than {size} bytes: whoever touches the mapping is killed")
        mapping = map_file(self.fd, size, True)
        return mapping.address, mapping

    def close(self) -> None:
        """See `Payload`."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


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
