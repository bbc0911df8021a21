"""Mappings: a payload's bytes in this process's address space.

How this works. mmap(2) itself, not the standard library's object around it: that one keeps a duplicate of the file
descriptor for each mapping, and hides the address that Vulkan's host-pointer import needs. Nobody unmaps explicitly:
a mapping ends when the last one who holds it is gone, so none can end under a view.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys

import msgspec

from extmem.devices.host._libc import ffi
from extmem.devices.host._memfd import out_of_memory
from extmem.handles import fds
from extmem.objects import Status, error_for

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

__all__ = ["FileMapping", "map_file", "range_is_mapped"]

_libc = ffi.dlopen(None)
_mmap, _munmap = _libc.mmap, _libc.munmap
_FAILED = int(ffi.cast("uintptr_t", -1))
_SHARED = int(mmap.MAP_SHARED)
_RIGHTS = (int(mmap.PROT_READ), int(mmap.PROT_READ | mmap.PROT_WRITE))


class FileMapping(msgspec.Struct, eq=False, weakref=True):
    """`size` bytes of a file, mapped shared; see `Mapping`. Made by `map_file`; unmaps when lost.

    (A Struct because it is made in C: every open that is looked at makes one.)
    """

    address: int
    size: int
    writable: bool

    def __del__(self) -> None:
        _munmap(self.address, self.size)


def map_file(fd: int, size: int, writable: bool) -> FileMapping:
    """Map the first `size` bytes of a file. The fd is borrowed for the call.

    Errors: AccessDeniedError for a writable mapping of a read-only fd, or of a file that is sealed against writing;
    OutOfMemoryError; OSError.
    """
    address = _mmap(0, size, _RIGHTS[writable], _SHARED, fd, 0)
    if address == _FAILED:
        code = ffi.errno
        if code == errno.EPERM and not writable:
            return _map_sealed(fd, size)
        raise _map_error(code, size, writable)
    return FileMapping(address, size, writable)


def _map_sealed(fd: int, size: int) -> FileMapping:
    """Map a file that is sealed against writing: before Linux 6.7 that takes an fd that was opened for reading."""
    opened = fds.open_file(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        address = _mmap(0, size, _RIGHTS[False], _SHARED, opened, 0)
        if address == _FAILED:
            raise _map_error(ffi.errno, size, False)
        return FileMapping(address, size, False)
    finally:
        os.close(opened)


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
    if code in (errno.EACCES, errno.EPERM) and writable:
        return error_for(
            Status.ACCESS_DENIED,
            f"a writable mapping of {size} bytes is refused: the payload was opened or imported for reading only, or "
            "is sealed against writing; map it with writable=False, or ask its owner for write access",
        )
    if code == errno.ENOMEM:
        return out_of_memory(
            MemoryError("no address space, or more mappings than sysctl vm.max_map_count allows"),
            "vkMapMemory",
            f"a mapping of {size} bytes",
        )
    return OSError(code, f"mmap of {size} bytes: {os.strerror(code)}")
