"""Other processes: opening one to duplicate a handle, and checking that it is the intended one.

How this works. A pid is reused when its process has ended. So a process is identified by pid and creation time. It is
opened with PROCESS_DUP_HANDLE only. While that handle is open, its pid is not reused, and its creation time is read
through a second handle that permits nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from extmem.handles._win32 import calls
from extmem.handles._win32.tables import CURRENT_PROCESS, kernel32
from extmem.manager.windows import status_errors
from extmem.objects import Status, error_for

__all__ = ["ended", "open_to_wait", "process_name", "opened_process", "start_time"]

_DUP_HANDLE = 0x0040
_QUERY_LIMITED = 0x1000
_SYNCHRONIZE = 0x0010_0000


@contextlib.contextmanager
def opened_process(pid: int, created: int | None = None) -> Iterator[int]:
    """Provide a handle with PROCESS_DUP_HANDLE to a process within the block.

    created: the creation time that it must have. Errors: InvalidHandleError (INVALID_CID) if it has ended;
    AccessDeniedError.
    """
    own = pid == os.getpid()
    try:
        process = CURRENT_PROCESS if own else calls.open_process(pid, _DUP_HANDLE)
    except calls.StatusError as error:
        raise status_errors.of_process(error, pid) from None
    try:
        if created is not None and created != start_time(pid):
            raise error_for(
                Status.INVALID_CID,
                f"Process {pid} is another one than the intended one, which has ended; its pid was reused.",
            )
        yield process
    finally:
        if not own:
            calls.close_handle(process)


def start_time(pid: int) -> int:
    """Return the creation time of a process (100 ns since 1601), to distinguish it from a later one of the same pid.

    0 if it has ended or cannot be opened.
    """
    if pid == os.getpid():
        return calls.creation_time(CURRENT_PROCESS)
    try:
        process = calls.open_process(pid, _QUERY_LIMITED)
    except calls.StatusError:
        return 0
    try:
        return calls.creation_time(process)
    finally:
        calls.close_handle(process)


def open_to_wait(pid: int) -> int:
    """Return a handle that is signaled when the process ends, which the caller owns. Errors: as `opened_process`."""
    try:
        return calls.open_process(pid, _SYNCHRONIZE)
    except calls.StatusError as error:
        raise status_errors.of_process(error, pid, "SYNCHRONIZE") from None


def ended(process: int) -> bool:
    """Return whether the process of a handle from `open_to_wait` has ended."""
    return bool(kernel32.WaitForSingleObject(process, 0) == 0)


def process_name(pid: int) -> str:
    """Return the file name of a process's program; empty if it has ended or cannot be opened."""
    try:
        process = calls.open_process(pid, _QUERY_LIMITED)
    except calls.StatusError:
        return ""
    try:
        return calls.image_path(process).rpartition("\\")[2]
    finally:
        calls.close_handle(process)
