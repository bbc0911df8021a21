"""Payloads on Windows: section objects. The object manager creates them, since a section is named at its creation."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("sections are Windows's; extmem.devices.host picks what the platform has")

import ctypes

from extmem import vk
from extmem.devices.types import ExaminedFd
from extmem.errors import OutOfMemoryError, UnsupportedError
from extmem.handles._win32 import sections
from extmem.handles._win32.tables import MEMORYSTATUSEX, kernel32
from extmem.manager.windows import payloads
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.limits import DESCRIPTOR_LIMIT
from extmem.sharing.terms import ShareTerms
from extmem.vk.handle_types import OPAQUE_FD, MemoryHandleType

__all__ = [
    "PAGE",
    "control_page_at",
    "create",
    "duplicate",
    "examine",
    "identity_of",
    "is_sealed",
    "seal",
    "total_memory",
]

PAGE = sections.PAGE
_CHECKED_FROM = 1 << 20
"""Bytes from which a request is first compared with what is left: the kernel would grow the paging file for it."""


def create(
    size: int,
    descriptor: bytes,
    terms: ShareTerms | None = None,
    *,
    control_page: bool = False,
    freezable: bool = False,
    kind: ObjectKind = ObjectKind.MEMORY,
) -> OwnedFd:
    """Create a payload; return its handle, owned by the caller. Errors: as `manager.windows.payloads.create`.

    control_page, freezable: unused: sections have no control page, and no seals. kind: what it is.
    """
    if len(descriptor) > DESCRIPTOR_LIMIT:
        raise ValueError(f"a descriptor of {len(descriptor)} bytes does not fit; {DESCRIPTOR_LIMIT} is the limit")
    if size >= _CHECKED_FROM:
        left = _memory_status().ullAvailPageFile
        if size > left:
            raise OutOfMemoryError(
                f"vkAllocateMemory: no memory for an allocation of {size} bytes: {left} are left of the machine's "
                "memory and paging file; free some, ask for less, or let the paging file grow",
                result=vk.Result.ERROR_OUT_OF_DEVICE_MEMORY,
                command="vkAllocateMemory",
            )
    return OwnedDescriptor(payloads.create(size, descriptor, terms, kind))


def control_page_at(handle: int) -> int | None:
    """None: sections of payloads have no control page."""
    return None


def seal(handle: int) -> bool:
    """Raise UnsupportedError: sections have no seals."""
    raise UnsupportedError(
        "Windows cannot keep processes from writing to a section that they have open for writing; open the memory with "
        "Access.READ where it is to be read only",
        requires_one_of=["Linux"],
    )


def is_sealed(handle: int) -> bool:
    """False: sections have no seals."""
    return False


def identity_of(handle: int) -> tuple[int, int] | None:
    """None: handles are compared instead (CompareObjectHandles)."""
    return None


def examine(fd: int, handle_type: MemoryHandleType = OPAQUE_FD, *, trusted: bool = False) -> ExaminedFd:
    """Return that no fd is a payload: those of the C runtime have no meaning in other processes."""
    return ExaminedFd(
        fd,
        handle_type,
        "other",
        f"fd {fd} cannot be a payload: on Windows payloads are shared by NT handle or KMT number",
    )


def duplicate(fd: int, *, writable: bool) -> OwnedFd:
    """Raise UnsupportedError: Windows has no descriptors of payloads."""
    raise UnsupportedError(
        "Windows has no file descriptors of payloads; export it as OPAQUE_WIN32 or OPAQUE_WIN32_KMT",
        requires_one_of=["OPAQUE_WIN32", "OPAQUE_WIN32_KMT"],
    )


def total_memory() -> int:
    """Bytes of memory of the machine."""
    return int(_memory_status().ullTotalPhys) or 1 << 62


def _memory_status() -> MEMORYSTATUSEX:
    found = MEMORYSTATUSEX()
    found.dwLength = ctypes.sizeof(found)
    kernel32.GlobalMemoryStatusEx(ctypes.byref(found))
    return found
