"""Typed function tables of kernel32, advapi32 and ntdll: every function that extmem calls, with its prototype.

Handles are plain ints (`HANDLE` is as wide as a pointer). The Nt functions are used where the Win32 functions merge
statuses of different meanings, because they return the NTSTATUS.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are function tables of Windows; extmem.manager imports the modules of this system")

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_size_t, c_uint64, c_void_p, c_wchar_p
from ctypes.wintypes import BOOL, BOOLEAN, BYTE, DWORD, FILETIME, LARGE_INTEGER, LONG, ULONG, USHORT
from typing import Any

__all__ = [
    "CLIENT_ID",
    "CURRENT_PROCESS",
    "D3DKMT_OPENNTHANDLEFROMNAME",
    "FILETIME",
    "HANDLE",
    "MEMORYSTATUSEX",
    "MEMORY_BASIC_INFORMATION",
    "OBJECT_ATTRIBUTES",
    "OBJECT_BASIC_INFORMATION",
    "SECTION_BASIC_INFORMATION",
    "SYSTEM_HANDLE",
    "UNICODE_STRING",
    "advapi32",
    "kernel32",
    "last_error",
    "later",
    "ntdll",
    "optional",
    "win_error",
]

HANDLE = c_size_t
CURRENT_PROCESS: int = (1 << ctypes.sizeof(c_size_t) * 8) - 1
"""The pseudo handle of this process, (HANDLE)-1."""


class UNICODE_STRING(ctypes.Structure):
    """UTF-16 text with its length in bytes."""

    _fields_ = [("Length", USHORT), ("MaximumLength", USHORT), ("Buffer", c_void_p)]


class OBJECT_ATTRIBUTES(ctypes.Structure):
    """Name, flags and security of an object that is created or opened."""

    _fields_ = [
        ("Length", ULONG),
        ("RootDirectory", HANDLE),
        ("ObjectName", POINTER(UNICODE_STRING)),
        ("Attributes", ULONG),
        ("SecurityDescriptor", c_void_p),
        ("SecurityQualityOfService", c_void_p),
    ]


class D3DKMT_OPENNTHANDLEFROMNAME(ctypes.Structure):
    """D3DKMTOpenNtHandleFromName: a handle to a GPU driver's object by name."""

    _fields_ = [("dwDesiredAccess", DWORD), ("pObjAttrib", POINTER(OBJECT_ATTRIBUTES)), ("hNtHandle", HANDLE)]


class CLIENT_ID(ctypes.Structure):
    """A process and a thread of it."""

    _fields_ = [("UniqueProcess", HANDLE), ("UniqueThread", HANDLE)]


class OBJECT_BASIC_INFORMATION(ctypes.Structure):
    """NtQueryObject, ObjectBasicInformation (0)."""

    _fields_ = [
        ("Attributes", ULONG),
        ("GrantedAccess", ULONG),
        ("HandleCount", ULONG),
        ("PointerCount", ULONG),
        ("Reserved", ULONG * 10),
    ]


class SECTION_BASIC_INFORMATION(ctypes.Structure):
    """NtQuerySection, SectionBasicInformation (0)."""

    _fields_ = [("BaseAddress", c_void_p), ("AllocationAttributes", ULONG), ("MaximumSize", LARGE_INTEGER)]


class MEMORY_BASIC_INFORMATION(ctypes.Structure):
    """VirtualQuery."""

    _fields_ = [
        ("BaseAddress", c_size_t),
        ("AllocationBase", c_size_t),
        ("AllocationProtect", DWORD),
        ("PartitionId", USHORT),
        ("RegionSize", c_size_t),
        ("State", DWORD),
        ("Protect", DWORD),
        ("Type", DWORD),
    ]


class MEMORYSTATUSEX(ctypes.Structure):
    """GlobalMemoryStatusEx."""

    _fields_ = [
        ("dwLength", DWORD),
        ("dwMemoryLoad", DWORD),
        ("ullTotalPhys", c_uint64),
        ("ullAvailPhys", c_uint64),
        ("ullTotalPageFile", c_uint64),
        ("ullAvailPageFile", c_uint64),
        ("ullTotalVirtual", c_uint64),
        ("ullAvailVirtual", c_uint64),
        ("ullAvailExtendedVirtual", c_uint64),
    ]


class SYSTEM_HANDLE(ctypes.Structure):
    """SYSTEM_HANDLE_TABLE_ENTRY_INFO_EX: one handle of some process (SystemExtendedHandleInformation)."""

    _fields_ = [
        ("Object", c_void_p),
        ("UniqueProcessId", c_size_t),
        ("HandleValue", c_size_t),
        ("GrantedAccess", ULONG),
        ("CreatorBackTraceIndex", USHORT),
        ("ObjectTypeIndex", USHORT),
        ("HandleAttributes", ULONG),
        ("Reserved", ULONG),
    ]


_HANDLES = POINTER(HANDLE)
_ATTRIBUTES = POINTER(OBJECT_ATTRIBUTES)

_NTDLL: dict[str, tuple[Any, ...]] = {
    # Each row: result, then parameters. LONG is NTSTATUS, which the callers convert to unsigned.
    "NtCreateSection": (LONG, _HANDLES, ULONG, _ATTRIBUTES, POINTER(LARGE_INTEGER), ULONG, ULONG, HANDLE),
    "NtOpenSection": (LONG, _HANDLES, ULONG, _ATTRIBUTES),
    "NtQuerySection": (LONG, HANDLE, ULONG, c_void_p, c_size_t, POINTER(c_size_t)),
    "NtMapViewOfSection": (
        LONG,
        HANDLE,
        HANDLE,
        POINTER(c_size_t),
        c_size_t,
        c_size_t,
        POINTER(LARGE_INTEGER),
        POINTER(c_size_t),
        ULONG,
        ULONG,
        ULONG,
    ),
    "NtUnmapViewOfSection": (LONG, HANDLE, c_size_t),
    "NtDuplicateObject": (LONG, HANDLE, HANDLE, HANDLE, _HANDLES, ULONG, ULONG, ULONG),
    "NtClose": (LONG, HANDLE),
    "NtQueryObject": (LONG, HANDLE, ULONG, c_void_p, ULONG, POINTER(ULONG)),
    "NtCreateDirectoryObject": (LONG, _HANDLES, ULONG, _ATTRIBUTES),
    "NtOpenDirectoryObject": (LONG, _HANDLES, ULONG, _ATTRIBUTES),
    "NtCreateEvent": (LONG, _HANDLES, ULONG, _ATTRIBUTES, ULONG, BOOLEAN),
    "NtOpenEvent": (LONG, _HANDLES, ULONG, _ATTRIBUTES),
    "NtResetEvent": (LONG, HANDLE, POINTER(LONG)),
    "NtCreateSemaphore": (LONG, _HANDLES, ULONG, _ATTRIBUTES, LONG, LONG),
    "NtCreateMutant": (LONG, _HANDLES, ULONG, _ATTRIBUTES, BOOLEAN),
    "NtReleaseMutant": (LONG, HANDLE, POINTER(LONG)),
    "NtOpenSemaphore": (LONG, _HANDLES, ULONG, _ATTRIBUTES),
    "NtReleaseSemaphore": (LONG, HANDLE, LONG, POINTER(LONG)),
    "NtOpenProcess": (LONG, _HANDLES, ULONG, _ATTRIBUTES, POINTER(CLIENT_ID)),
    "NtQuerySystemInformation": (LONG, ULONG, c_void_p, ULONG, POINTER(ULONG)),
    "RtlGetLastNtStatus": (LONG,),
    "RtlNtStatusToDosError": (ULONG, LONG),
    "RtlValidRelativeSecurityDescriptor": (BYTE, c_void_p, ULONG, ULONG),
}
_KERNEL32: dict[str, tuple[Any, ...]] = {
    "GetHandleInformation": (BOOL, HANDLE, POINTER(DWORD)),
    "SetHandleInformation": (BOOL, HANDLE, DWORD, DWORD),
    "GetProcessHandleCount": (BOOL, HANDLE, POINTER(DWORD)),
    "GetProcessTimes": (BOOL, HANDLE, *(POINTER(FILETIME),) * 4),
    "ProcessIdToSessionId": (BOOL, DWORD, POINTER(DWORD)),
    "VirtualQuery": (c_size_t, c_size_t, POINTER(MEMORY_BASIC_INFORMATION), c_size_t),
    "GlobalMemoryStatusEx": (BOOL, POINTER(MEMORYSTATUSEX)),
    "QueryFullProcessImageNameW": (BOOL, HANDLE, DWORD, c_wchar_p, POINTER(DWORD)),
    "LocalFree": (c_size_t, c_size_t),
    "SetEvent": (BOOL, HANDLE),
    "WaitForSingleObject": (DWORD, HANDLE, DWORD),
    "WaitForMultipleObjects": (DWORD, DWORD, _HANDLES, BOOL, DWORD),
}
_ADVAPI32: dict[str, tuple[Any, ...]] = {
    "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
        BOOL,
        c_wchar_p,
        DWORD,
        POINTER(c_size_t),
        POINTER(ULONG),
    ),
    "ConvertSecurityDescriptorToStringSecurityDescriptorW": (
        BOOL,
        c_size_t,
        DWORD,
        DWORD,
        POINTER(c_size_t),
        POINTER(ULONG),
    ),
    "IsValidSecurityDescriptor": (BOOL, c_size_t),
    "GetSecurityDescriptorLength": (DWORD, c_size_t),
    "OpenProcessToken": (BOOL, HANDLE, DWORD, POINTER(HANDLE)),
    "GetTokenInformation": (BOOL, HANDLE, DWORD, c_void_p, DWORD, POINTER(DWORD)),
    "ConvertSidToStringSidW": (BOOL, c_size_t, POINTER(c_size_t)),
    "GetKernelObjectSecurity": (BOOL, HANDLE, DWORD, c_void_p, DWORD, POINTER(DWORD)),
}


def _table(library: str, functions: dict[str, tuple[Any, ...]]) -> Any:
    loaded = ctypes.WinDLL(library, use_last_error=True)
    for name, (result, *parameters) in functions.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, parameters
    return loaded


def optional(library: Any, name: str, result: Any, *parameters: Any) -> Any:
    """Return a function that some versions of Windows lack, or None."""
    try:
        function = getattr(library, name)
    except AttributeError:
        return None
    function.restype, function.argtypes = result, parameters
    return function


def later(library: str, name: str, result: Any, *parameters: Any) -> Any:
    """Return a function of a library that is loaded now, or None if this Windows lacks one of the two."""
    try:
        return optional(ctypes.WinDLL(library), name, result, *parameters)
    except OSError:
        return None


ntdll: Any = _table("ntdll", _NTDLL)
kernel32: Any = _table("kernel32", _KERNEL32)
advapi32: Any = _table("advapi32", _ADVAPI32)
last_error: Callable[[], int] = ctypes.get_last_error
win_error: Callable[[int], OSError] = ctypes.WinError
