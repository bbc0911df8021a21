"""Section objects: memory backed by the paging file, which processes map. Each function is one call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from extmem.handles._win32.calls import attributes, check, handle_from
from extmem.handles._win32.tables import (
    CURRENT_PROCESS,
    MEMORY_BASIC_INFORMATION,
    SECTION_BASIC_INFORMATION,
    kernel32,
    ntdll,
)

__all__ = [
    "ALL",
    "EXTEND",
    "MAP_READ",
    "MAP_WRITE",
    "PAGE",
    "QUERY",
    "Facts",
    "Region",
    "create",
    "facts",
    "map_view",
    "open_named",
    "peek",
    "poke",
    "region",
    "unmap",
    "unmap_from",
]

QUERY, MAP_WRITE, MAP_READ, EXTEND = 0x1, 0x2, 0x4, 0x10
ALL = 0x000F_001F
"""SECTION_ALL_ACCESS."""
PAGE = 4096
"""Size of a page in bytes, on every processor that Windows supports."""
_GRANULARITY = 1 << 16
_PAGE_READONLY, _PAGE_READWRITE = 2, 4
_SEC_COMMIT = 0x0800_0000
_SEC_FILE, _SEC_IMAGE = 0x0080_0000, 0x0100_0000
_VIEW_UNMAP = 2
_MEM_COMMIT = 0x1000


class Facts(NamedTuple):
    """The result of NtQuerySection. `size` in bytes; `anonymous`: not backed by a file or program."""

    size: int
    anonymous: bool


class Region(msgspec.Struct, frozen=True):
    """The result of VirtualQuery: pages with equal attributes. `protect` is 0 if the pages are not committed."""

    base: int
    size: int
    protect: int


def create(size: int, name: str | None, security: int = 0, flags: int = 0) -> int:
    """Create a section of `size` bytes, charged to the paging file at once, with all access: NtCreateSection.

    name: full path that does not exist yet. security: address of a security descriptor, 0 for the token's default.
    flags: of OBJECT_ATTRIBUTES.
    """
    whole = ctypes.c_longlong(size)
    how = attributes(name, security, flags)
    return handle_from(ntdll.NtCreateSection, ALL, how, ctypes.byref(whole), _PAGE_READWRITE, _SEC_COMMIT, 0)


def open_named(path: str, access: int, flags: int = 0) -> int:
    """Return a handle to the section of this full path, after an access check: NtOpenSection."""
    return handle_from(ntdll.NtOpenSection, access, attributes(path, 0, flags))


def facts(section: int) -> Facts:
    """Return size and backing. Errors: StatusError without SECTION_QUERY."""
    information = SECTION_BASIC_INFORMATION()
    check(ntdll.NtQuerySection(section, 0, ctypes.byref(information), ctypes.sizeof(information), None))
    return Facts(information.MaximumSize, not information.AllocationAttributes & (_SEC_FILE | _SEC_IMAGE))


def map_view(section: int, size: int, writable: bool, offset: int = 0) -> int:
    """Map a view into this process, and return its address: NtMapViewOfSection.

    `offset` is a multiple of 64 KiB; `size` 0 maps all bytes after it. Child processes do not inherit the view.
    """
    base, length = ctypes.c_size_t(0), ctypes.c_size_t(size)
    start = ctypes.c_longlong(offset)
    check(
        ntdll.NtMapViewOfSection(
            section,
            CURRENT_PROCESS,
            ctypes.byref(base),
            0,
            0,
            ctypes.byref(start),
            ctypes.byref(length),
            _VIEW_UNMAP,
            0,
            _PAGE_READWRITE if writable else _PAGE_READONLY,
        )
    )
    return base.value


def unmap(address: int) -> None:
    """Unmap the view that begins at this address: NtUnmapViewOfSection."""
    unmap_from(CURRENT_PROCESS, address)


unmap_from: Callable[[int, int], object] = ntdll.NtUnmapViewOfSection
"""NtUnmapViewOfSection of a process's view. It is C code, as an `Owner` requires."""


def peek(section: int, offset: int, size: int) -> bytes:
    """Return bytes of a section from `offset` on, read through a temporary view."""
    start = offset // _GRANULARITY * _GRANULARITY
    address = map_view(section, offset + size - start, False, start)
    try:
        return ctypes.string_at(address + offset - start, size)
    finally:
        unmap(address)


def poke(section: int, offset: int, data: bytes) -> None:
    """Write bytes into a section, through a temporary view."""
    start = offset // _GRANULARITY * _GRANULARITY
    address = map_view(section, offset + len(data) - start, True, start)
    try:
        ctypes.memmove(address + offset - start, data, len(data))
    finally:
        unmap(address)


def region(address: int) -> Region | None:
    """Query the pages at an address: VirtualQuery. None for an address above the address space of a process."""
    information = MEMORY_BASIC_INFORMATION()
    if not kernel32.VirtualQuery(address, ctypes.byref(information), ctypes.sizeof(information)):
        return None
    committed = information.State == _MEM_COMMIT
    return Region(information.BaseAddress, information.RegionSize, information.Protect if committed else 0)
