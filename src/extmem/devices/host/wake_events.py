r"""Events by which the signalers of a timeline page wake its waiters on Windows, which has no futexes for processes.

How this works. Each step of the page's sequence has an event, whose name contains the number of the sequence before the
step and a random id of the page::

    \BaseNamedObjects\extmem.wait.<id>.<sequence>

A waiter reads the sequence, creates the event of that number (or opens it), reads the sequence again, and waits if the
number is the same. A signaler adds 1 to the sequence, and then sets the event of the number before, if there is one.
Creating and opening a name exclude each other in the kernel: if the signaler did not find the event, the waiter created
it later, and reads the new number. So nothing is missed, however many waiters there are, and no signaler sees anything
of a waiter that has ended: the event ends with its last waiter. A waiter needs no right to write the page.

Two signalers that add to the sequence at once can make the same step; then they set the same event. A waiter looks at
the page again after half a second in any case.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from extmem.handles._win32 import calls, waitables
from extmem.handles._win32.tables import advapi32
from extmem.manager.windows import names
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import Status

if sys.platform != "win32":
    raise ImportError("these are events of Windows; extmem.devices.host picks what the platform has")

import ctypes

__all__ = [
    "ID_SIZE",
    "event_of_step",
    "mutex_of",
    "nudge_step",
    "path_of",
    "set_event_of_step",
    "table_locked",
]

ID_SIZE: Final = 16
"""Bytes of the id of a page."""
_DIRECTORY: Final = names.session_directory(0)
_SECURITY: Final = "D:(A;;GA;;;OW)(A;;0x00100003;;;WD)"
"""Whoever knows the id may wait and wake: it is in the page, which only users with the right to wait can read."""
_LOCK_MS = 100


def path_of(page_id: bytes) -> str:
    """Return the common part of the paths of a page's events."""
    return f"{_DIRECTORY}extmem.wait.{page_id.hex()}."


def event_of_step(path: str, sequence: int) -> int:
    """Return a handle to the event of a step, which the caller owns. Errors: StatusError."""
    return waitables.create_event(
        f"{path}{sequence:08x}",
        signaled=False,
        security=_security(),
        flags=waitables.OPEN_IF,
        access=waitables.SYNCHRONIZE,
    )


def set_event_of_step(path: str, sequence: int) -> None:
    """Wake those who wait for a step. Errors: StatusError."""
    try:
        event = waitables.open_event(f"{path}{sequence:08x}", waitables.MODIFY)
    except calls.StatusError as error:
        if error.status == Status.OBJECT_NAME_NOT_FOUND:
            return  # nobody waits
        raise
    try:
        waitables.set_event(event)
    finally:
        calls.close_handle(event)


def nudge_step(path: str, sequence: int, now: Callable[[], int]) -> None:
    """Wake those who wait for a step that has not been made. Who begins to wait for it now is not woken.

    now: returns the sequence. If the step has been made meanwhile, its event stays set. Errors: StatusError.
    """
    try:
        event = waitables.open_event(f"{path}{sequence:08x}", waitables.MODIFY)
    except calls.StatusError as error:
        if error.status == Status.OBJECT_NAME_NOT_FOUND:
            return  # nobody waits
        raise
    try:
        waitables.set_event(event)
        waitables.reset(event)
        if now() != sequence:
            waitables.set_event(event)  # the reset may have come after the event was set for the step
    finally:
        calls.close_handle(event)


def mutex_of(path: str) -> int:
    """Return a handle to a mutex of the page, which the caller owns. path: its whole path. Errors: StatusError."""
    return waitables.create_mutex(path, security=_security(), flags=waitables.OPEN_IF)


@contextlib.contextmanager
def table_locked(path: str) -> Iterator[None]:
    """Exclude other processes that enter a page's table: a mutex, which the kernel releases if its owner is killed.

    A process that knows the id can hold it for ever, so this waits a tenth of a second at most. If there is no memory
    for it, the table is used without.
    """
    try:
        mutex = mutex_of(f"{path}table")
    except calls.StatusError:
        yield
        return
    try:
        owned = waitables.wait_any([mutex], _LOCK_MS) == 0
        try:
            yield
        finally:
            if owned:
                waitables.release_mutex(mutex)
    finally:
        calls.close_handle(mutex)


@cache
def _security() -> int:
    """Return the address of a security descriptor for the events, which is kept."""
    with security_descriptor(_SECURITY) as address:
        kept = ctypes.create_string_buffer(ctypes.string_at(address, advapi32.GetSecurityDescriptorLength(address)))
        _kept.append(kept)
        return ctypes.addressof(kept)


_kept: Final[list[ctypes.Array[ctypes.c_char]]] = []
