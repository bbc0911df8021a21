"""A device with tagged payloads, and the check that the result of an operation shows its own payload alone.

Each payload is filled with one byte, its tag. Views, copies, handles and other memory objects that come from it must
show that tag in every byte; other payloads and files have other contents.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from extmem import raw, vk
from extmem.api import Device, DeviceMemory
from extmem.handles import FdHandle, KmtHandle, NtHandle, OwnedHandle

__all__ = ["FD", "KMT", "NT", "SIZE", "HandleType", "World", "WrongByteError"]

SIZE = 4096
"""The number of bytes of each payload."""
HandleType = vk.ExternalMemoryHandleTypeFlagBits
NT, KMT, FD = HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT, HandleType.OPAQUE_FD
_TAGS = count(1)


class WrongByteError(AssertionError):
    """The result of an operation shows bytes of another payload."""


class World:
    """A device, and what its operations need besides an object."""

    def __init__(self, device: Device) -> None:
        self.device = device
        exportable = vk.ExternalMemoryFeatureFlagBits.EXPORTABLE
        able = [kind for kind in (NT, KMT, FD) if device.transfer_capability(int(kind)).features & exportable]
        self.handle_types = sum(int(kind) for kind in able)
        """External handle types that memory of the device can be exported as."""

    def tag(self) -> int:
        """Return a byte that no recent payload has."""
        return next(_TAGS) % 199 + 1

    def memory(self, tag: int, **options: Any) -> DeviceMemory:
        """Allocate memory that is filled with the tag."""
        memory = self.device.allocate(SIZE, **options)
        try:
            memory.fill(tag)
        except BaseException:
            memory.close()
            raise
        return memory

    def check(self, found: Any, tag: int) -> None:
        """Check that the result of an operation shows the tag alone, and release it. Errors: WrongByteError."""
        if isinstance(found, DeviceMemory):
            with found:
                self.check_bytes(found.read_bytes(), tag, "memory that was opened")
        elif isinstance(found, (NtHandle, FdHandle, KmtHandle)):
            with found, self.device.open(found) as other:
                self.check_bytes(other.read_bytes(), tag, f"the payload behind {found!r}")
        elif isinstance(found, (memoryview, bytes, bytearray)):
            self.check_bytes(bytes(found), tag, "bytes that were read")
        elif isinstance(found, np.ndarray):
            self.check_bytes(found.tobytes(), tag, "an array's bytes")
        elif isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], OwnedHandle | KmtHandle):
            self.check(_owned_again(*found), tag)

    @staticmethod
    def check_bytes(octets: bytes | bytearray, tag: int, what: str) -> None:
        """Check that all bytes are the tag. Errors: WrongByteError."""
        if len(octets) != octets.count(tag):
            wrong = next(at for at, octet in enumerate(octets) if octet != tag)
            raise WrongByteError(f"{what}: byte {wrong} is {octets[wrong]}, and {tag} was written")


def _owned_again(number: int, before: Any) -> NtHandle | FdHandle | KmtHandle:
    """Return what was taken from a handle as a handle."""
    if isinstance(before, FdHandle):
        return FdHandle(number, before.payload)
    return NtHandle(number, before.table) if isinstance(before, NtHandle) else raw.kmt_handle(number)
