"""Events, semaphores and mutexes of the kernel, and waits for them. Each function is one call.

An event here is a manual-reset event: a wait does not change it. A semaphore has a count of 0 or 1, which a wait takes.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are calls of Windows; extmem.manager imports the modules of this system")

import _winapi
import ctypes
from collections.abc import Sequence

from extmem.handles._win32.calls import StatusError, attributes, check, handle_from
from extmem.handles._win32.tables import kernel32, ntdll

__all__ = [
    "ALL",
    "INTERRUPTED",
    "MOST",
    "MODIFY",
    "OPEN_IF",
    "QUERY",
    "SYNCHRONIZE",
    "TIMED_OUT",
    "create_event",
    "create_mutex",
    "create_semaphore",
    "open_event",
    "open_semaphore",
    "release",
    "release_mutex",
    "reset",
    "set_event",
    "take",
    "wait_any",
]

QUERY, MODIFY = 0x1, 0x2
"""EVENT_QUERY_STATE and SEMAPHORE_QUERY_STATE; EVENT_MODIFY_STATE and SEMAPHORE_MODIFY_STATE."""
SYNCHRONIZE = 0x0010_0000
ALL = 0x001F_0003
"""EVENT_ALL_ACCESS and SEMAPHORE_ALL_ACCESS."""
OPEN_IF = 0x80
"""OBJ_OPENIF: open an existing object of that name and type in place of creating one."""
TIMED_OUT, INTERRUPTED = -1, -2
MOST = 62
"""Handles that `wait_any` accepts: the kernel accepts 64, one of which Python uses to be woken by Ctrl-C."""
_NOTIFICATION = 0
_MUTANT_QUERY = 0x1
_ABANDONED = 0x80
_LIMIT_EXCEEDED = 0xC000_0047
_WAIT_TIMEOUT = 258
_LONGEST = 0x7FFF_FFFF


def create_event(path: str | None, *, signaled: bool, security: int = 0, flags: int = 0, access: int = ALL) -> int:
    """Create an event: NtCreateEvent. security: address of a security descriptor, 0 for the token's default."""
    return handle_from(ntdll.NtCreateEvent, access, attributes(path, security, flags), _NOTIFICATION, signaled)


def open_event(path: str, access: int, flags: int = 0) -> int:
    """Return a handle to the event of this full path, after an access check: NtOpenEvent."""
    return handle_from(ntdll.NtOpenEvent, access, attributes(path, 0, flags))


def set_event(event: int) -> None:
    """Signal an event: SetEvent. Errors: StatusError without the right to modify it."""
    if not kernel32.SetEvent(event):
        raise StatusError(ntdll.RtlGetLastNtStatus() & 0xFFFF_FFFF)


def reset(event: int) -> bool:
    """Reset an event, and return whether it was signaled: NtResetEvent. Errors: as `set_event`."""
    before = ctypes.c_long()
    check(ntdll.NtResetEvent(event, ctypes.byref(before)))
    return before.value != 0


def create_semaphore(path: str | None, *, count: int, security: int = 0, flags: int = 0) -> int:
    """Create a semaphore with a count of 0 or 1 and the limit 1: NtCreateSemaphore."""
    return handle_from(ntdll.NtCreateSemaphore, ALL, attributes(path, security, flags), count, 1)


def open_semaphore(path: str, access: int, flags: int = 0) -> int:
    """Return a handle to the semaphore of this full path, after an access check: NtOpenSemaphore."""
    return handle_from(ntdll.NtOpenSemaphore, access, attributes(path, 0, flags))


def release(semaphore: int) -> bool:
    """Add 1 to a semaphore: NtReleaseSemaphore. Return False if its count is 1 already. Errors: as `set_event`."""
    status = ntdll.NtReleaseSemaphore(semaphore, 1, None) & 0xFFFF_FFFF
    if status == _LIMIT_EXCEEDED:
        return False
    if status & 0x8000_0000:
        raise StatusError(status)
    return True


def create_mutex(path: str, *, security: int = 0, flags: int = 0) -> int:
    """Create a mutex that no thread owns: NtCreateMutant. A wait by `wait_any` owns it until `release_mutex`."""
    return handle_from(ntdll.NtCreateMutant, SYNCHRONIZE | _MUTANT_QUERY, attributes(path, security, flags), False)


def release_mutex(mutex: int) -> None:
    """Release a mutex that this thread owns: NtReleaseMutant."""
    check(ntdll.NtReleaseMutant(mutex, None))


def take(handle: int) -> bool:
    """Return whether the object is signaled; of a semaphore, take its count: WaitForSingleObject.

    Errors: StatusError without the right SYNCHRONIZE.
    """
    answer = kernel32.WaitForSingleObject(handle, 0)
    if answer not in (0, _WAIT_TIMEOUT):
        raise StatusError(ntdll.RtlGetLastNtStatus() & 0xFFFF_FFFF)
    return bool(answer == 0)


def wait_any(handles: Sequence[int], milliseconds: int) -> int:
    """Wait until one of the objects is signaled, and return its index: WaitForMultipleObjects.

    At most `MOST` handles. TIMED_OUT if none is in time; INTERRUPTED in the main thread at Ctrl-C, whose handler Python
    runs after the return. Errors: OSError for an invalid handle, or one without the right SYNCHRONIZE.
    """
    try:
        answer = _winapi.WaitForMultipleObjects(handles, False, min(milliseconds, _LONGEST))
    except InterruptedError:
        return INTERRUPTED
    return TIMED_OUT if answer == _WAIT_TIMEOUT else answer & ~_ABANDONED
