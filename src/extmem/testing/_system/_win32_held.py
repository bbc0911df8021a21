"""What this process holds, queried from the kernel: handles, mapped sections, and the bytes that both keep alive.

How this works. The kernel lists this process's handles (ProcessHandleInformation, Windows 8 and later). Where it does
not (Wine), each value is tried, since the values of a process's handles lie close together. Only the types of objects
that sharing memory can leak are reported: events, keys and threads are also opened and closed by the C runtime and the
loader. Sections of the paging file are distinguished from mapped files and programs by having no file name.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this asks the Windows kernel; extmem.testing._system picks what the system has")

import ctypes
from collections import Counter
from collections.abc import Iterator
from ctypes import POINTER, c_longlong, c_size_t, c_void_p
from ctypes.wintypes import DWORD, HANDLE, LONG, ULONG, WORD

__all__ = ["descriptors", "mappings", "memory_file_bytes", "memory_files"]

_KINDS = {"Directory", "File", "Mutant", "Process", "Section", "Token"}
_NAMED = {"Directory", "Section"}
"""Types whose names are queried. The query of a pipe's name can block until the pipe is read."""
_ME = -1 % (1 << 64)
_OBJECT_NAME, _OBJECT_TYPE = 1, 2
_PROCESS_HANDLES = 51
_LENGTH_MISMATCH = 0xC000_0004
_MISSES = 256
"""Number of consecutive values that are not handles, after which the search ends."""
_COMMITTED, _MAPPED = 0x1000, 0x40000

_ntdll = ctypes.WinDLL("ntdll")
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)


class _Region(ctypes.Structure):
    """MEMORY_BASIC_INFORMATION."""

    _fields_ = [
        ("base", c_size_t),
        ("allocation", c_size_t),
        ("first_protect", DWORD),
        ("partition", WORD),
        ("size", c_size_t),
        ("state", DWORD),
        ("protect", DWORD),
        ("kind", DWORD),
    ]


class _Section(ctypes.Structure):
    """SECTION_BASIC_INFORMATION."""

    _fields_ = [("base", c_size_t), ("attributes", ULONG), ("size", c_longlong)]


_ntdll.NtQueryObject.argtypes = [HANDLE, ULONG, c_void_p, ULONG, POINTER(ULONG)]
_ntdll.NtQueryObject.restype = LONG
_ntdll.NtQuerySection.argtypes = [HANDLE, ULONG, c_void_p, c_size_t, c_void_p]
_ntdll.NtQuerySection.restype = LONG
_ntdll.NtQueryInformationProcess.argtypes = [HANDLE, ULONG, c_void_p, ULONG, POINTER(ULONG)]
_ntdll.NtQueryInformationProcess.restype = LONG
_kernel32.VirtualQuery.argtypes = [c_size_t, POINTER(_Region), c_size_t]
_kernel32.VirtualQuery.restype = c_size_t
_kernel32.K32GetMappedFileNameW.argtypes = [HANDLE, c_size_t, c_void_p, DWORD]
_kernel32.K32GetMappedFileNameW.restype = DWORD


def descriptors() -> dict[int, str]:
    """Return the handles of this process to objects of the types that sharing memory uses, with names of sections."""
    found = {}
    library_directory = False
    for handle, kind in _handles():
        if kind in _KINDS:
            name = _text(handle, _OBJECT_NAME) if kind in _NAMED else None
            if kind == "Directory" and name and name.endswith("BaseNamedObjects") and not library_directory:
                # The C library opens one when a name is first used, and keeps it open.
                library_directory = True
                continue
            found[handle] = f"{kind} {name}" if name else kind
            if kind == "Section":
                found[handle] += f", {_section_size(handle)} bytes"
    return found


def memory_file_bytes() -> int:
    """Return the bytes of the sections that handles of this process lead to, and of its views of sections without a
    file.

    A section with several handles or views counts several times: the kernel does not identify sections.
    """
    held = sum(_section_size(handle) for handle, kind in _handles() if kind == "Section")
    return held + sum(int(region.size) for region in _views())


def memory_files() -> dict[str, int]:
    """Return an empty dictionary: the kernel does not identify sections."""
    return {}


def mappings() -> Counter[str]:
    """Return the number of views of sections without a file, by length and protection."""
    return Counter(f"view of a section, {region.size} bytes, protection {region.protect:#x}" for region in _views())


def _handles() -> Iterator[tuple[int, str]]:
    values = _listed()
    if values is not None:
        for value in values:
            kind = _text(value, _OBJECT_TYPE)
            if kind is not None:
                yield value, kind
        return
    value, misses = 4, 0
    while misses < _MISSES:
        kind = _text(value, _OBJECT_TYPE)
        misses = misses + 1 if kind is None else 0
        if kind is not None:
            yield value, kind
        value += 4


def _listed() -> list[int] | None:
    """Return the values of this process's handles; None where the kernel does not list them."""
    room, used = 1 << 16, ULONG()
    while True:
        words = (c_size_t * (room // 8))()
        status = _ntdll.NtQueryInformationProcess(_ME, _PROCESS_HANDLES, words, room, ctypes.byref(used)) & 0xFFFF_FFFF
        if status == 0:
            # PROCESS_HANDLE_SNAPSHOT_INFORMATION: two words, then entries of five words, each with the value first.
            return [words[2 + 5 * index] for index in range(words[0])]
        if status != _LENGTH_MISMATCH or used.value <= room:
            return None
        room = used.value * 2


def _text(handle: int, question: int) -> str | None:
    """Return the UNICODE_STRING that the answers to both queries begin with; None where the value is not a handle."""
    answer = (ctypes.c_uint64 * 256)()
    if _ntdll.NtQueryObject(handle, question, answer, ctypes.sizeof(answer), None) < 0:
        return None
    length, start = answer[0] & 0xFFFF, answer[1]
    return ctypes.wstring_at(start, length // 2) if start else ""


def _section_size(handle: int) -> int:
    """Return the size in bytes; 0 for a handle without the access to query it."""
    answer = _Section()
    if _ntdll.NtQuerySection(handle, 0, ctypes.byref(answer), ctypes.sizeof(answer), None) < 0:
        return 0
    return int(answer.size)


def _views() -> Iterator[_Region]:
    address = 0
    name = ctypes.create_unicode_buffer(16)
    while True:
        region = _Region()
        if not _kernel32.VirtualQuery(address, ctypes.byref(region), ctypes.sizeof(region)):
            return
        if region.state == _COMMITTED and region.kind == _MAPPED:
            if not _kernel32.K32GetMappedFileNameW(_ME, region.base, name, len(name)):
                yield region
        address = region.base + region.size
