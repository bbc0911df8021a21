"""Mappings: a payload's bytes in this process's address space.

How this works. mmap(2) itself, not the standard library's object around it: that one keeps a duplicate of the file
descriptor for each mapping, and hides the address that Vulkan's host-pointer import needs.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from functools import cache
from typing import Any

from extmem.devices.host._memfd import out_of_memory
from extmem.errors import HandleStateError

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

__all__ = ["BorrowedMapping", "HostMapping", "range_is_mapped"]

_MAP_FAILED = ctypes.c_void_p(-1).value


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    )
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.munmap.restype = ctypes.c_int
    # On 32-bit systems plain mmap takes a 32-bit offset; ours is always 0, but its width must match.
    if ctypes.sizeof(ctypes.c_void_p) < 8:
        libc.mmap.argtypes = (*libc.mmap.argtypes[:5], ctypes.c_long)
    return libc


class HostMapping:
    """`size` bytes of a file, mapped shared. Unmaps when closed or lost."""

    __slots__ = ("_address", "_size", "_writable")

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        """Errors: PermissionError for a writable mapping of a read-only fd; OutOfMemoryError; OSError."""
        self._address: int | None = None
        self._size = size
        self._writable = writable
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _libc().mmap(None, size, access, mmap.MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            raise _map_error(ctypes.get_errno(), size, writable)
        self._address = address

    @property
    def address(self) -> int:
        """Address of the first byte; a multiple of the page size. HandleStateError once closed."""
        if self._address is None:
            raise HandleStateError(f"this mapping of {self._size} bytes is closed; map the memory again")
        return self._address

    @property
    def size(self) -> int:
        """Bytes mapped."""
        return self._size

    @property
    def writable(self) -> bool:
        """Whether the pages may be written; writing to others kills the process (SIGSEGV)."""
        return self._writable

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._address is None

    def close(self) -> None:
        """munmap. Safe to call twice."""
        address, self._address = self._address, None
        if address is not None and _libc().munmap(address, self._size):
            code = ctypes.get_errno()
            raise OSError(code, f"munmap of {self._size} bytes: {os.strerror(code)}")

    def __del__(self) -> None:
        if getattr(self, "_address", None) is not None and not sys.is_finalizing():
            self.close()


class BorrowedMapping:
    """Memory that the caller mapped and keeps: the mapping of an imported host pointer. Closing it leaves it mapped."""

    __slots__ = ("_address", "_size")

    def __init__(self, address: int, size: int) -> None:
        self._address: int | None = address
        self._size = size

    @property
    def address(self) -> int:
        """Address of the first byte. HandleStateError once closed."""
        if self._address is None:
            raise HandleStateError(f"this mapping of {self._size} bytes is closed; map the memory again")
        return self._address

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def writable(self) -> bool:
        """Always true: what may not be written is not imported."""
        return True

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._address is None

    def close(self) -> None:
        """Let go of it. Safe to call twice."""
        self._address = None


def range_is_mapped(address: int, size: int) -> bool:
    """Whether every byte of [address, address + size) is mapped here, readable and writable."""
    if address <= 0 or size <= 0:
        return False
    reached, end = address, address + size
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as areas:
        for line in areas:  # in ascending order
            bounds, rights = line.split(maxsplit=2)[:2]
            first, last = (int(bound, 16) for bound in bounds.split("-"))
            if last <= reached:
                continue
            if first > reached or not rights.startswith("rw"):
                return False
            reached = last
            if reached >= end:
                return True
    return False


def _map_error(code: int, size: int, writable: bool) -> Exception:
    if code == errno.EACCES and writable:
        return PermissionError(
            code,
            f"a writable mapping of {size} bytes is refused: the payload was opened or imported for reading only; "
            "map it with writable=False, or ask its owner for write access",
        )
    if code == errno.ENOMEM:
        return out_of_memory(
            MemoryError("no address space, or more mappings than sysctl vm.max_map_count allows"),
            "vkMapMemory",
            f"a mapping of {size} bytes",
        )
    return OSError(code, f"mmap of {size} bytes: {os.strerror(code)}")
