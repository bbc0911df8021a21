"""Finding processes by an entry of their environment, in their memory.

How this works. Windows keeps a process's command line and environment in that process's own memory, at offsets that
have not changed since Windows 7: the process's environment block (PEB) has a pointer to its parameters, and these have
both texts. Reading them needs a handle with PROCESS_QUERY_INFORMATION and PROCESS_VM_READ, which a user gets for
processes of the same user.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this asks the Windows kernel; extmem.testing._system picks what the system has")

import contextlib
import ctypes
import os
import signal
from ctypes import POINTER, c_size_t, c_void_p
from ctypes.wintypes import BOOL, DWORD, HANDLE, LONG, LPDWORD
from pathlib import Path

__all__ = ["KILL", "TEMPORARY", "broker_serves", "started_with"]

KILL = signal.SIGTERM
"""With this `os.kill` calls TerminateProcess, which ends a process like SIGKILL."""
TEMPORARY: str | None = None
"""Where runtime directories are created; None is the system's folder for temporary files."""

_QUERY_AND_READ = 0x0400 | 0x0010
_STILL_ACTIVE = 259
# Offsets on 64-bit Windows, from the public symbols of ntdll: PEB.ProcessParameters; then, of
# RTL_USER_PROCESS_PARAMETERS, CommandLine (a UNICODE_STRING), Environment and EnvironmentSize.
_PARAMETERS, _COMMAND_LINE, _ENVIRONMENT, _ENVIRONMENT_SIZE = 0x20, 0x70, 0x80, 0x3F0

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.OpenProcess.argtypes = [DWORD, BOOL, DWORD]
_kernel32.OpenProcess.restype = HANDLE
_kernel32.CloseHandle.argtypes = [HANDLE]
_kernel32.GetExitCodeProcess.argtypes = [HANDLE, LPDWORD]
_kernel32.K32EnumProcesses.argtypes = [POINTER(DWORD), DWORD, LPDWORD]
_kernel32.ReadProcessMemory.argtypes = [HANDLE, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)]
_query = ctypes.WinDLL("ntdll").NtQueryInformationProcess
_query.argtypes = [HANDLE, DWORD, c_void_p, DWORD, LPDWORD]
_query.restype = LONG


def started_with(variable: str, value: str) -> dict[int, str]:
    """Return the pid and command line of each other process whose environment had variable=value when it started."""
    found = {}
    for pid in _pids():
        # A process may end meanwhile, and those of other users cannot be read.
        with contextlib.suppress(OSError):
            if pid != os.getpid():
                entries, command = _parameters(pid)
                if f"{variable}={value}" in entries:
                    found[pid] = command
    return found


def broker_serves(path: Path) -> bool:
    """Raise LookupError: Windows has no broker."""
    raise LookupError(f"no broker serves {path}: on Windows the kernel is the object manager")


def _pids() -> list[int]:
    room = 1024
    while True:
        pids, used = (DWORD * room)(), DWORD()
        if not _kernel32.K32EnumProcesses(pids, ctypes.sizeof(pids), ctypes.byref(used)):
            raise ctypes.WinError(ctypes.get_last_error())
        count = used.value // ctypes.sizeof(DWORD)
        if count < room:
            return [pid for pid in pids[:count] if pid]
        room *= 2


def _parameters(pid: int) -> tuple[list[str], str]:
    """Return the process's environment entries and command line. OSError if it has ended or cannot be read."""
    process = _kernel32.OpenProcess(_QUERY_AND_READ, False, pid)
    if not process:
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        code, basic = DWORD(), (c_size_t * 6)()
        if not _kernel32.GetExitCodeProcess(process, ctypes.byref(code)) or code.value != _STILL_ACTIVE:
            raise ProcessLookupError(pid)
        if _query(process, 0, basic, ctypes.sizeof(basic), None) < 0:
            raise ProcessLookupError(pid)
        parameters = _number(process, basic[1] + _PARAMETERS)
        size = _number(process, parameters + _ENVIRONMENT_SIZE)
        entries = _text(process, _number(process, parameters + _ENVIRONMENT), size)
        length = _number(process, parameters + _COMMAND_LINE) & 0xFFFF
        return entries.split("\0"), _text(process, _number(process, parameters + _COMMAND_LINE + 8), length)
    finally:
        _kernel32.CloseHandle(process)


def _number(process: int, address: int) -> int:
    return int.from_bytes(_read(process, address, 8), "little")


def _text(process: int, address: int, size: int) -> str:
    return _read(process, address, size).decode("utf-16-le", errors="replace")


def _read(process: int, address: int, size: int) -> bytes:
    data, got = ctypes.create_string_buffer(size), c_size_t()
    if not _kernel32.ReadProcessMemory(process, address, data, size, ctypes.byref(got)) or got.value != size:
        raise ctypes.WinError(ctypes.get_last_error())
    return data.raw
