"""Calls of the Windows kernel about handles. Each takes values, and returns values or raises `StatusError`."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from extmem.handles._win32.tables import (
    CLIENT_ID,
    CURRENT_PROCESS,
    FILETIME,
    HANDLE,
    OBJECT_ATTRIBUTES,
    OBJECT_BASIC_INFORMATION,
    UNICODE_STRING,
    kernel32,
    ntdll,
    optional,
)
from extmem.owning import close_native as close_handle

__all__ = [
    "CLOSE_SOURCE",
    "OBJ_INHERIT",
    "SAME_ACCESS",
    "SAME_ATTRIBUTES",
    "Basic",
    "StatusError",
    "attributes",
    "basic",
    "check",
    "close",
    "close_handle",
    "closed_on_error",
    "create_event",
    "creation_time",
    "discard",
    "duplicate",
    "flags",
    "handle_from",
    "image_path",
    "name_of",
    "open_event",
    "open_process",
    "same_object",
    "session",
    "set_flags",
    "type_of",
]

CLOSE_SOURCE, SAME_ACCESS, SAME_ATTRIBUTES = 1, 2, 4
OBJ_INHERIT = 2
_OBJECT_BASIC, _OBJECT_NAME, _OBJECT_TYPE = 0, 1, 2
_EVENT_ALL = 0x001F_0003
_INVALID_HANDLE = 0xC000_0008
_NOT_SAME_OBJECT = 0xC000_01AC
_compare = optional(ntdll, "NtCompareObjects", ctypes.c_long, HANDLE, HANDLE)


class StatusError(Exception):
    """A call failed with this NTSTATUS (unsigned)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"NTSTATUS {status:#010x}")
        self.status = status


class Basic(msgspec.Struct, frozen=True):
    """The result of `basic`."""

    granted: int
    """The granted access, in rights of the object type."""
    handles: int
    """Number of handles to the object, in all processes."""
    pointers: int
    """Number of references to the object, handles included."""


def check(status: int) -> None:
    """Raise StatusError for a failure (a negative NTSTATUS)."""
    if status < 0:
        raise StatusError(status & 0xFFFF_FFFF)


def attributes(name: str | None, security: int = 0, flags: int = 0) -> OBJECT_ATTRIBUTES:
    """Return OBJECT_ATTRIBUTES for an object of this full path. It keeps everything that it points to alive.

    security: address of a security descriptor, which the caller keeps alive.
    """
    result = OBJECT_ATTRIBUTES(ctypes.sizeof(OBJECT_ATTRIBUTES), 0, None, flags, security or None, None)
    if name is not None:
        text = name.encode("utf-16-le")
        buffer = ctypes.create_string_buffer(text, len(text) + 2)
        counted = UNICODE_STRING(len(text), len(text) + 2, ctypes.addressof(buffer))
        result.ObjectName = ctypes.pointer(counted)
        result.kept = (buffer, counted)
    return result


def handle_from(call: Callable[..., int], access: int, how: OBJECT_ATTRIBUTES, *others: Any) -> int:
    """Return the handle that a call of the kernel opens or creates, with these rights. others: its other parameters."""
    handle = HANDLE()
    check(call(ctypes.byref(handle), access, ctypes.byref(how), *others))
    return handle.value


def close(value: int) -> None:
    """Close a handle: NtClose. Errors: StatusError for INVALID_HANDLE and HANDLE_NOT_CLOSABLE."""
    check(ntdll.NtClose(value))


def duplicate(
    value: int,
    desired: int = 0,
    flags: int = 0,
    options: int = 0,
    *,
    source: int = CURRENT_PROCESS,
    target: int = CURRENT_PROCESS,
) -> int:
    """Return the new value, in the target process: NtDuplicateObject. `source` and `target` are process handles."""
    handle = HANDLE()
    check(ntdll.NtDuplicateObject(source, value, target, ctypes.byref(handle), desired, flags, options))
    return handle.value


@contextlib.contextmanager
def closed_on_error(value: int) -> Iterator[int]:
    """Close a handle if the block raises. After the block, whoever got the handle there owns it."""
    try:
        yield value
    except BaseException:
        close_handle(value)
        raise


def discard(value: int) -> None:
    """Close a handle unless it is protected: NtDuplicateObject with DUPLICATE_CLOSE_SOURCE and no target."""
    ntdll.NtDuplicateObject(CURRENT_PROCESS, value, 0, None, 0, 0, CLOSE_SOURCE)


def basic(value: int) -> Basic:
    """Query a handle: NtQueryObject, ObjectBasicInformation."""
    information = OBJECT_BASIC_INFORMATION()
    check(ntdll.NtQueryObject(value, _OBJECT_BASIC, ctypes.byref(information), ctypes.sizeof(information), None))
    return Basic(information.GrantedAccess, information.HandleCount, information.PointerCount)


def type_of(value: int) -> str:
    """Return the name of the object's type (`Section`, `Event`, …): NtQueryObject, ObjectTypeInformation."""
    return _queried_text(value, _OBJECT_TYPE)


def name_of(value: int) -> str:
    """Return the object's full path, empty for an unnamed object: NtQueryObject, ObjectNameInformation.

    Do not call it for files, because it may wait for the other end of a pipe. Check `type_of` first.
    """
    return _queried_text(value, _OBJECT_NAME)


def _queried_text(value: int, what: int) -> str:
    size = ctypes.c_ulong(2048)
    while True:
        buffer = ctypes.create_string_buffer(size.value)
        status = ntdll.NtQueryObject(value, what, buffer, len(buffer), ctypes.byref(size))
        if status >= 0:
            counted = UNICODE_STRING.from_buffer(buffer)
            if not counted.Length or not counted.Buffer:
                return ""
            return ctypes.string_at(counted.Buffer, counted.Length).decode("utf-16-le", "replace")
        if size.value <= len(buffer):
            check(status)


def flags(value: int) -> int:
    """Return the flags: GetHandleInformation. HANDLE_FLAG_INHERIT is 1, HANDLE_FLAG_PROTECT_FROM_CLOSE is 2."""
    mask = ctypes.c_ulong()
    if not kernel32.GetHandleInformation(value, ctypes.byref(mask)):
        raise StatusError(_INVALID_HANDLE)
    return mask.value


def set_flags(value: int, mask: int, flags: int) -> None:
    """SetHandleInformation."""
    if not kernel32.SetHandleInformation(value, mask, flags):
        raise StatusError(_INVALID_HANDLE)


def same_object(a: int, b: int) -> bool | None:
    """Return whether both handles refer to one object; None before Windows 10, which lacks the call.

    NtCompareObjects, which CompareObjectHandles calls.
    """
    if _compare is None:
        return None
    status = _compare(a, b) & 0xFFFF_FFFF
    if status == _NOT_SAME_OBJECT:
        return False
    if status & 0x8000_0000:
        raise StatusError(status)
    return True


def create_event(path: str, *, manual: bool, signaled: bool) -> int:
    """Create an event under an unused full path: NtCreateEvent. (CreateEventW keeps a handle to the directory open.)"""
    return handle_from(ntdll.NtCreateEvent, _EVENT_ALL, attributes(path), int(not manual), signaled)


def open_event(path: str, access: int) -> int:
    """NtOpenEvent."""
    return handle_from(ntdll.NtOpenEvent, access, attributes(path))


def open_process(pid: int, access: int) -> int:
    """Return a handle to a process with these rights: NtOpenProcess.

    Errors: StatusError for INVALID_CID and ACCESS_DENIED.
    """
    which = CLIENT_ID(pid, 0)
    return handle_from(ntdll.NtOpenProcess, access, attributes(None), ctypes.byref(which))


def creation_time(process: int) -> int:
    """Return when the process of a handle was created, in 100 ns since 1601. It differs between processes of one pid.

    Errors: StatusError for a handle without PROCESS_QUERY_LIMITED_INFORMATION.
    """
    times = [FILETIME() for _ in range(4)]
    if not kernel32.GetProcessTimes(process, *(ctypes.byref(time) for time in times)):
        raise StatusError(ntdll.RtlGetLastNtStatus() & 0xFFFF_FFFF)
    return times[0].dwHighDateTime << 32 | times[0].dwLowDateTime


def image_path(process: int) -> str:
    """Return the path of a process's program; empty if it is not available."""
    size = ctypes.c_ulong(1024)
    text = ctypes.create_unicode_buffer(size.value)
    return text.value if kernel32.QueryFullProcessImageNameW(process, 0, text, ctypes.byref(size)) else ""


def session(pid: int) -> int:
    """Return the number of the process's session: 0 for services."""
    number = ctypes.c_ulong()
    if not kernel32.ProcessIdToSessionId(pid, ctypes.byref(number)):
        raise StatusError(ntdll.RtlGetLastNtStatus() & 0xFFFF_FFFF)
    return number.value
