"""Address ranges on Windows: views of sections, or reserved addresses.

How this works. A view replaces a reservation, and between the two the range is free. (Placeholders, which avoid that,
do not exist in every Windows that the fake runs on.) So the ranges are where the system allocates nothing by itself: it
fills the address space from the bottom and has its libraries near the top; these ranges begin in the middle. Anywhere
else the interpreter's heap might grow into a free range, and lose that part when the range is released. If a range is
taken meanwhile all the same, the call fails and releases only what it holds.
"""

from __future__ import annotations

import ctypes
import sys
import threading

if sys.platform != "win32":
    raise ImportError("views of sections are Windows's; on Linux the fake driver maps memory files")

from extmem.handles._win32 import calls, sections
from extmem.handles._win32.tables import CURRENT_PROCESS, HANDLE, ntdll

__all__ = ["Span", "place", "reserve"]

_MIDDLE = 0x4000_0000_0000
_ALIGNED = 2 << 20
"""The alignment of ranges, which is that of a real driver."""
_TRIES = 64
_RESERVE, _RELEASE, _NO_ACCESS = 0x2000, 0x8000, 1
_READ_ONLY, _READ_WRITE = 2, 4
_VIEW_UNMAP = 2
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.VirtualAlloc.restype = ctypes.c_size_t
_kernel32.VirtualAlloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_ulong, ctypes.c_ulong]
_kernel32.VirtualFree.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_ulong]
_next_lock = threading.Lock()
_next = _MIDDLE


class Span:
    """A range of addresses, which is released when the object is collected."""

    def __init__(self, address: int, size: int) -> None:
        self.address, self.size = address, size
        self.reserved, self.viewed = True, False
        """Whether the span holds a reservation, a view of a section, or neither."""

    def split(self, size: int) -> Span:
        """Keep the first `size` bytes and return the others as another span. Nothing is mapped in either.

        A reservation can only be released as a whole, so both parts are reserved again.
        """
        self.empty()
        rest = Span(self.address + size, self.size - size)
        self.size = size
        for part in (self, rest):
            part.reserved = _reserved(part.address, part.size)
            if not part.reserved:
                raise ctypes.WinError(ctypes.get_last_error())
        return rest

    def empty(self) -> None:
        """Release the view or the reservation."""
        if self.viewed:
            sections.unmap(self.address)
        elif self.reserved:
            _kernel32.VirtualFree(self.address, 0, _RELEASE)
        self.reserved = self.viewed = False

    def __del__(self) -> None:
        self.empty()


def reserve(size: int) -> Span:
    """Reserve addresses that cannot be accessed yet. Errors: OSError."""
    for _ in range(_TRIES):
        address = _next_address(size)
        if _reserved(address, size):
            return Span(address, size)
    raise ctypes.WinError(ctypes.get_last_error())


def _next_address(size: int) -> int:
    """Return the first address of a range that no other span of this process ever had."""
    global _next
    with _next_lock:
        address = _next
        _next += -(-size // _ALIGNED) * _ALIGNED
    return address


def _reserved(address: int, size: int) -> bool:
    return bool(_kernel32.VirtualAlloc(address, size, _RESERVE, _NO_ACCESS))


def place(span: Span, fd: int, size: int, *, writable: bool) -> None:
    """Map a section at these addresses; fd -1 makes them inaccessible again. Errors: OSError.

    fd: the section's handle; one without the right to write is mapped for reading.
    """
    status = 0
    if fd >= 0:
        allowed = writable and calls.basic(fd).granted & sections.MAP_WRITE
        base, length = HANDLE(span.address), HANDLE(size)
        how = (ctypes.byref(base), 0, 0, None, ctypes.byref(length), _VIEW_UNMAP, 0)
        span.empty()
        status = ntdll.NtMapViewOfSection(fd, CURRENT_PROCESS, *how, _READ_WRITE if allowed else _READ_ONLY)
        if status >= 0:
            span.viewed = True
            return
    span.empty()
    span.reserved = _reserved(span.address, span.size)
    if status < 0:
        raise OSError(f"{size} bytes cannot be mapped at {span.address:#x}: NTSTATUS {status & 0xFFFF_FFFF:#010x}")
    if not span.reserved:
        raise ctypes.WinError(ctypes.get_last_error())
