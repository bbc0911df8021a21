"""Other processes: reaching into one for a handle, and making sure that it is still the one that was meant.

How this works. A pid is used again when its process is gone. So a process is named by pid and creation time. It is
opened for PROCESS_DUP_HANDLE alone; while that handle is open nobody else gets the pid, and then its creation time is
looked at through a second handle, which can do nothing else.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are Windows's processes; extmem.manager selects what the system has")

import contextlib
import os
from collections.abc import Iterator

from extmem.handles._win32 import calls
from extmem.handles._win32.calls import StatusError
from extmem.handles._win32.tables import CURRENT_PROCESS, kernel32
from extmem.manager.windows import status_errors
from extmem.objects import Status, error_for

__all__ = ["ended", "open_to_wait", "process_name", "reached", "start_time"]

_DUP_HANDLE = 0x0040
_QUERY_LIMITED = 0x1000
_SYNCHRONIZE = 0x0010_0000


@contextlib.contextmanager
def reached(pid: int, created: int | None = None) -> Iterator[int]:
    """A handle with PROCESS_DUP_HANDLE to a process, for the block. `created`: only if it is the one of that time.

    Errors: InvalidHandleError (INVALID_CID) where it is gone; AccessDeniedError.
    """
    if pid == os.getpid():
        if created is not None and created != start_time(pid):
            raise _another(pid)
        yield CURRENT_PROCESS
        return
    try:
        process = calls.open_process(pid, _DUP_HANDLE)
    except StatusError as error:
        raise status_errors.of_process(error, pid) from None
    try:
        if created is not None and created != start_time(pid):
            raise _another(pid)
        yield process
    finally:
        calls.close_handle(process)


def _another(pid: int) -> Exception:
    return error_for(
        Status.INVALID_CID, f"Process {pid} is another one than was meant: that has ended, and its pid is used again."
    )


def start_time(pid: int) -> int:
    """When a process was created (100 ns since 1601), to tell it from a later one of the same pid; 0 where it is gone,
    or not ours to ask.
    """
    if pid == os.getpid():
        return calls.creation_time(CURRENT_PROCESS)
    try:
        process = calls.open_process(pid, _QUERY_LIMITED)
    except StatusError:
        return 0
    try:
        return calls.creation_time(process)
    finally:
        calls.close_handle(process)


def open_to_wait(pid: int) -> int:
    """A handle that is signaled when the process ends, owned by the caller. Errors: as `reached`."""
    try:
        return calls.open_process(pid, _SYNCHRONIZE)
    except StatusError as error:
        raise status_errors.of_process(error, pid, "SYNCHRONIZE") from None


def ended(process: int) -> bool:
    """Whether the process of a handle from `open_to_wait` has ended."""
    return bool(kernel32.WaitForSingleObject(process, 0) == 0)


def process_name(pid: int) -> str:
    """The file name of a process's program; empty where it is gone or not ours to ask."""
    try:
        process = calls.open_process(pid, _QUERY_LIMITED)
    except StatusError:
        return ""
    try:
        return calls.image_path(process).rpartition("\\")[2]
    finally:
        calls.close_handle(process)
