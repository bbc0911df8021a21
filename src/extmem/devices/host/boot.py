"""The identity of a Windows machine and its boot, from which the host device's UUID is made."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this is for Windows; extmem.devices.host picks what the platform has")

import ctypes
import winreg
from typing import TYPE_CHECKING

from extmem.handles._win32.tables import ntdll

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["boot"]

# KUSER_SHARED_DATA (ntddk.h), which the kernel maps into every process at this address.
_SHARED_DATA = 0x7FFE_0000
_BOOT_ID, _COOKIE = 0x02C4, 0x0330
_TIME_OF_DAY = 3  # SystemTimeOfDayInformation; its first member is BootTime


def boot(root: Path | str) -> tuple[str, ...]:
    """Words that are equal in every process of this boot of this machine, and only there. root: unused."""
    number, cookie = (
        int.from_bytes(ctypes.string_at(_SHARED_DATA + offset, 4), "little") for offset in (_BOOT_ID, _COOKIE)
    )
    if not cookie:  # not Windows's kernel, such as Wine
        return "machine", _machine(), str(_boot_time())
    return "machine", _machine(), str(number), str(cookie)


def _machine() -> str:
    try:
        with winreg.OpenKey(
            winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography", 0, winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        ) as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    except OSError:
        return ""


def _boot_time() -> int:
    buffer = (ctypes.c_byte * 48)()
    ntdll.NtQuerySystemInformation(_TIME_OF_DAY, buffer, len(buffer), None)
    return ctypes.c_int64.from_buffer(buffer).value
