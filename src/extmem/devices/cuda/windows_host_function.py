"""`host_function` on Windows: a stream sets an event, and a thread of this process raises the value and wakes waiters.

How this works. Waiters on Windows sleep on events whose paths change with each signal (`host.wake_events`), so no
function of one argument can wake them. CUDA calls SetEvent of kernel32 when the stream reaches the signal
(cuLaunchHostFunc), which needs neither the GIL nor a thread of the program. A thread for each call waits for that
event, raises the value, and wakes whoever waits for it. It runs before the stream gets the call, so that no exception
can come between the two.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("SetEvent is Windows's; on Linux the function is machine code (host_function)")

import contextlib
import ctypes
import threading
from typing import Any, Final

from extmem import vk
from extmem.devices.host.sync_system import TimelinePage
from extmem.errors import HandleStateError, OutOfMemoryError
from extmem.handles._win32 import calls, waitables
from extmem.handles._win32.tables import kernel32
from extmem.manager.windows import status_errors
from extmem.owning import Lock, OwnedDescriptor

__all__ = ["Call", "function_address", "prepare", "release"]

_INFINITE: Final = 0xFFFF_FFFF


class Call:
    """One call of the function, and the thread that waits for it."""

    __slots__ = ("_event", "_hold", "_lock", "_over", "_page", "_value", "address")

    def __init__(self, page: TimelinePage, value: int, event: OwnedDescriptor) -> None:
        """event: closed by the thread."""
        self._page = page
        self._hold = page.keeper.hold()
        self._value = value
        self._event = event
        self._lock = Lock()
        self._over = False
        self.address = event.fd
        """What the function takes: the handle of the event."""

    @property
    def done(self) -> bool:
        """Whether the page is not used any more: the value is raised, or is not going to be.

        Whoever asks after the function was called does not wait for the thread, but raises the value itself.
        """
        if not self._over:
            with contextlib.suppress(HandleStateError), self._event.use():  # closed: the thread has done it
                if waitables.take(self._event.fd):
                    self._raise()
        return self._over

    def cancel(self) -> None:
        """State that the function is not going to be called."""
        with self._lock:
            self._over = True
        kernel32.SetEvent(self.address)

    def wait_and_raise(self) -> None:
        """Wait until the function is called, and raise the value. The thread runs it."""
        try:
            kernel32.WaitForSingleObject(self.address, _INFINITE)
            self._raise()
        finally:
            self._over = True
            self._hold.release()
            self._event.close()

    def _raise(self) -> None:
        with self._lock:
            if self._over:
                return
            # The stream itself has written the value of a page that is the payload: then the waiters are woken.
            if not self._page.raise_to(self._value):
                self._page.wake()
            self._over = True


def prepare(page: TimelinePage, value: int) -> Call:
    """Return a call that raises the value of the page to `value`, and wakes who waits for it. Its thread runs.

    The caller has announced the signal, and keeps the page mapped until the call is done. Errors: OutOfMemoryError.
    """
    try:
        event = OwnedDescriptor(waitables.create_event(None, signaled=False))
    except calls.StatusError as error:
        raise status_errors.out_of_memory(error, "NtCreateEvent", "the event of a signal") or status_errors.other(
            error, "The event of a signal cannot be created."
        ) from None
    made = Call(page, value, event)
    try:
        threading.Thread(target=made.wait_and_raise, name="extmem signal", daemon=True).start()
    except RuntimeError as error:
        event.close()
        raise OutOfMemoryError(
            f"no thread can be started that tells the host of the value {value} ({error}); end some threads, or free "
            "some memory",
            result=int(vk.Result.ERROR_OUT_OF_HOST_MEMORY),
            command="cuLaunchHostFunc",
        ) from error
    return made


def release(call: Call) -> None:
    """Do nothing: the thread has released what the call needed."""


def function_address() -> int:
    """The address of SetEvent (as a CUhostFn)."""
    function: Any = ctypes.cast(kernel32.SetEvent, ctypes.c_void_p)
    return int(function.value)
