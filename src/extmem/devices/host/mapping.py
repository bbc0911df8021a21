"""Mappings: a payload's bytes in this process's address space.

How this works. This module calls mmap(2) itself. The standard library's object keeps a duplicate of the file descriptor
for each mapping, and does not expose the address that Vulkan's host-pointer import needs. A mapping is an `Owner`:
allocations and views hold it, and it ends when the last of them releases it or is lost, so it never ends under a view.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from itertools import starmap

from extmem.devices.host._libc import ffi
from extmem.devices.host.memfd import out_of_memory
from extmem.owning import OwnedFd, Owner, late_imports, out_of_descriptors

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

import fcntl

__all__ = ["FileMapping", "map_file", "range_is_mapped"]

_libc = ffi.dlopen(None)
_mmap, _munmap = _libc.mmap, _libc.munmap
_FAILED = int(ffi.cast("uintptr_t", -1))
_SHARED = int(mmap.MAP_SHARED)
_RIGHTS = (int(mmap.PROT_READ), int(mmap.PROT_READ | mmap.PROT_WRITE))


class FileMapping(Owner):
    """`size` bytes of a file, mapped shared; see `Mapping`. Made by `map_file`; its users hold it."""

    __slots__ = ("address", "size", "writable")

    def __init__(self, size: int, writable: bool) -> None:
        Owner.__init__(self)
        self.address = 0
        self.size = size
        self.writable = writable

    def map(self, fd: int, offset: int = 0) -> int:
        """Call mmap. Return the address, which is `_FAILED` if nothing was mapped.

        offset: of the first byte in the file, whole pages.
        """
        calls = starmap(_mmap, ((0, self.size, _RIGHTS[self.writable], _SHARED, fd, offset),))
        self._owed.extend(zip((_munmap,), calls, (self.size,)))  # noqa: B905  (`strict` takes as long as the rest)
        self.address = self._owed[0][1]
        return self.address

    def in_forked_child(self) -> None:
        """See `Owner`. The child keeps its copy until it is lost there: views of the child use it."""


def map_file(fd: int, size: int, writable: bool, offset: int = 0) -> FileMapping:
    """Map `size` bytes of a file, from `offset` on (whole pages). The fd is borrowed for the call.

    Errors: AccessDeniedError for a writable mapping of a read-only fd, or of a file that is sealed against writing;
    OutOfMemoryError; OSError.
    """
    made = FileMapping(size, writable)
    address = made.map(fd, offset)
    if address != _FAILED:
        return made
    code = int(ffi.errno)
    made.forget()
    if code == errno.EPERM and not writable and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        # Sealed against writing: before Linux 6.7 that takes an fd that was opened for reading.
        reading = OwnedFd.of(os.open, f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        return map_file(reading.fd, size, False, offset)
    raise _map_error(code, size, writable)


def range_is_mapped(address: int, size: int) -> bool:
    """Whether every byte of [address, address + size) is mapped in this process, readable, writable, and backed.

    A mapping of a file may reach past the file's end, where an access ends in SIGBUS. For a device's mapping, and where
    /proc/self/mem cannot be opened, that is not found out. Errors: OutOfMemoryError if no descriptor is left.
    """
    if address <= 0 or size <= 0:
        return False
    reached, end = address, address + size
    of_files: list[int] = []
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as areas:
            for line in areas:  # in ascending order
                bounds, rights, _, _, inode, *path = line.split(maxsplit=5)
                first, last = (int(bound, 16) for bound in bounds.split("-"))
                if last <= reached:
                    continue
                if first > reached or not rights.startswith("rw"):
                    return False
                reached = min(last, end)
                if inode != "0" and not _of_device("".join(path)):
                    of_files.append(reached - 1)
                if reached == end:
                    return _are_there(of_files)
    except OSError as error:
        raise out_of_descriptors(error, "open of /proc/self/maps") from None
    return False


def _of_device(path: str) -> bool:
    """Whether a mapping is of a device or of a driver's file, which the kernel cannot always read."""
    return path.startswith(("/dev/", "/dmabuf:", "anon_inode:")) and not path.startswith("/dev/shm/")


def _are_there(addresses: list[int]) -> bool:
    """Whether the bytes at these addresses can be read. The kernel reads them: an error takes the place of SIGBUS."""
    if not addresses:
        return True
    try:
        memory = OwnedFd.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return True
    try:
        return all(os.pread(memory.fd, 1, address) for address in addresses)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EFAULT):
            raise
        return False
    finally:
        memory.close()


def _map_error(code: int, size: int, writable: bool) -> Exception:
    if code in (errno.EACCES, errno.EPERM) and writable:
        with late_imports():
            from extmem.objects import Status, error_for

        return error_for(
            Status.ACCESS_DENIED,
            f"a writable mapping of {size} bytes is refused: the payload was opened or imported for reading only, or "
            "is sealed against writing; ask its owner for write access, or read it, which `map` and `read` allow",
        )
    if code == errno.ENOMEM:
        return out_of_memory(
            MemoryError("no address space, or more mappings than sysctl vm.max_map_count allows"),
            "vkMapMemory",
            f"a mapping of {size} bytes",
        )
    return OSError(code, f"mmap of {size} bytes: {os.strerror(code)}")
