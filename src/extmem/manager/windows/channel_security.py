"""Access lists of the kernel objects of a channel, made from the SDDL that a program states for the channel.

The text states rights of memory: who has READ_CONTROL may read the channel. In the directories of its locks
(`devices.host.windows_range_locks`) such a user may list and use the names, and in the second one also create objects.
Whatever the text says about others, only this user gets all rights.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Final

from extmem.handles._win32 import calls, directories
from extmem.handles._win32.tables import advapi32, ntdll
from extmem.manager.windows.security_descriptors import sddl_from, security_descriptor, user_sid
from extmem.objects import GENERIC_ALL, GENERIC_EXECUTE, GENERIC_READ, READ_CONTROL

__all__ = ["access_list_of", "lock_directory_sddl", "root_directory_sddl"]

_READING: Final = READ_CONTROL | GENERIC_READ | GENERIC_ALL | GENERIC_EXECUTE
_OF_ROOT: Final = READ_CONTROL | directories.QUERY | directories.TRAVERSE
_DACL: Final = 4
_NO_PROTECTION: Final = "NO_ACCESS_CONTROL"
"""In SDDL: everybody has every right, which the program has asked for."""
_LIST = re.compile(r"D:(?:P|AI|AR)*(?=\(|$|S:)")


def root_directory_sddl(sddl: str | None) -> str | None:
    """Return SDDL of the directory of a channel: who reads the channel opens it, and this user alone creates in it.

    sddl: of the channel; None for the default of the creator's token, and so is the result.
    Errors: SecurityDescriptorError.
    """
    return _for_readers(sddl, lambda mask: _OF_ROOT if mask & _READING else 0)


def lock_directory_sddl(sddl: str | None) -> str | None:
    """Return SDDL of the directory of a channel's locks: who reads the channel creates in it. As above."""
    return _for_readers(sddl, lambda mask: _OF_ROOT | directories.CREATE_OBJECT if mask & _READING else 0)


def _for_readers(sddl: str | None, mask: Callable[[int], int]) -> str | None:
    if sddl is None or _NO_PROTECTION in sddl:
        return sddl
    with security_descriptor(sddl, mask) as address:
        text = sddl_from(address)
    return _LIST.sub(lambda found: f"{found[0]}(A;;GA;;;{user_sid()})", text, count=1)


def access_list_of(handle: int) -> ctypes.Array[ctypes.c_char]:
    """Return a security descriptor with the access list of an object alone, for other objects of the same users.

    Errors: StatusError without the right READ_CONTROL.
    """
    size = ctypes.c_ulong()
    advapi32.GetKernelObjectSecurity(handle, _DACL, None, 0, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(max(1, size.value))
    if not advapi32.GetKernelObjectSecurity(handle, _DACL, buffer, size.value, ctypes.byref(size)):
        raise calls.StatusError(ntdll.RtlGetLastNtStatus() & 0xFFFF_FFFF)
    return buffer
