"""Address ranges on Windows: views of sections, or reserved addresses.

Between the two a range is nobody's for a moment; a thread that takes it then makes the call fail, which a test would
see. (Placeholders, which have no such moment, are not in every Windows that the fake runs on.)
"""

from __future__ import annotations

import ctypes
import sys

if sys.platform != "win32":
    raise ImportError("views of sections are Windows's; on Linux the fake driver maps memory files")

from extmem.handles._win32 import calls, sections
from extmem.handles._win32.tables import CURRENT_PROCESS, HANDLE, ntdll

__all__ = ["Span", "place", "reserve"]

_RESERVE, _RELEASE, _NO_ACCESS = 0x2000, 0x8000, 1
_READ_ONLY, _READ_WRITE = 2, 4
_VIEW_UNMAP = 2
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.VirtualAlloc.restype = ctypes.c_size_t
_kernel32.VirtualAlloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_ulong, ctypes.c_ulong]
_kernel32.VirtualFree.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_ulong]


class Span:
    """Addresses. Given back when lost."""

    def __init__(self, address: int, size: int) -> None:
        self.address, self.size = address, size
        self.viewed = False
        """Whether a section is mapped there."""

    def empty(self) -> None:
        """Nothing is there any more, not even the reservation."""
        if self.viewed:
            sections.unmap(self.address)
        else:
            _kernel32.VirtualFree(self.address, 0, _RELEASE)

    def __del__(self) -> None:
        self.empty()


def reserve(size: int) -> Span:
    """Addresses that nobody can read or write yet. Errors: OSError."""
    return Span(_reserve(0, size), size)


def _reserve(address: int, size: int) -> int:
    found = int(_kernel32.VirtualAlloc(address, size, _RESERVE, _NO_ACCESS))
    if not found:
        raise ctypes.WinError(ctypes.get_last_error())
    return found


def place(span: Span, fd: int, size: int, *, writable: bool) -> None:
    """A section's bytes at these addresses; for -1 nobody's again. Errors: OSError.

    fd: the section's handle; one without the right to write is mapped for reading.
    """
    span.empty()
    span.viewed = False
    if fd >= 0:
        allowed = writable and calls.basic(fd).granted & sections.MAP_WRITE
        base, length = HANDLE(span.address), HANDLE(size)
        status = ntdll.NtMapViewOfSection(
            fd,
            CURRENT_PROCESS,
            ctypes.byref(base),
            0,
            0,
            None,
            ctypes.byref(length),
            _VIEW_UNMAP,
            0,
            _READ_WRITE if allowed else _READ_ONLY,
        )
        if status >= 0:
            span.viewed = True
            return
    _reserve(span.address, span.size)
    if fd >= 0:
        raise OSError(f"{size} bytes cannot be mapped at {span.address:#x}: NTSTATUS {status & 0xFFFF_FFFF:#010x}")
