"""Address ranges on Linux: mappings of memory files, or inaccessible ones."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys

if sys.platform != "linux":
    raise ImportError("the fake driver maps memory files, which are Linux's")

__all__ = ["Span", "place", "reserve"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value
_FIXED = 0x10
_INACCESSIBLE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Span:
    """A range of addresses, which is unmapped when the object is collected."""

    def __init__(self, address: int, size: int) -> None:
        self.address, self.size = address, size

    def split(self, size: int) -> Span:
        """Keep the first `size` bytes and return the others as another span."""
        rest = Span(self.address + size, self.size - size)
        self.size = size
        return rest

    def __del__(self) -> None:
        _libc.munmap(self.address, self.size)


def reserve(size: int) -> Span:
    """Reserve addresses that cannot be accessed yet. Errors: OSError."""
    return Span(_mmap(None, size, 0, _INACCESSIBLE, -1), size)


def place(span: Span, fd: int, size: int, *, writable: bool) -> None:
    """Map a file at these addresses; fd -1 makes them inaccessible again. Errors: OSError."""
    if fd < 0:
        _mmap(span.address, size, 0, _INACCESSIBLE | _FIXED, -1)
        return
    rights = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    _mmap(span.address, size, rights, mmap.MAP_SHARED | _FIXED, fd)


def _mmap(address: int | None, size: int, rights: int, flags: int, fd: int) -> int:
    mapped = _libc.mmap(address, size, rights, flags, fd, 0)
    if mapped is None or mapped == _FAILED:
        code = ctypes.get_errno() or errno.ENOMEM
        raise OSError(code, os.strerror(code))
    return int(mapped)
