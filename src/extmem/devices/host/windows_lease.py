"""The lease of a control page on Windows: a mutex of the kernel, which a thread owns for the update.

How this works. The name of the mutex contains the random id of the page. A mutex belongs to a thread. A block can end
in another thread than that in which it began, or be lost, so each lease has a thread of its own, which waits for the
mutex, owns it until it is told to stop, marks the page if the update is not finished, and releases the mutex. If the
process ends meanwhile, the kernel gives the mutex to the next that waits, as abandoned: the count in the page is odd
then, by which the next update sees what has happened. Who may only read the page knows the id, too, and could own the
mutex for ever; so the updater gives its own timeout.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from extmem.devices.host import wake_events
from extmem.handles._win32 import calls, waitables
from extmem.handles._win32.tables import kernel32
from extmem.manager.api import Lease
from extmem.manager.windows import status_errors
from extmem.owning import OwnedDescriptor, Owner, join_thread
from extmem.sharing import control_page

if sys.platform != "win32":
    raise ImportError("a mutex that the kernel abandons is Windows's; extmem.devices.host picks what the platform has")

if TYPE_CHECKING:
    from extmem.devices.host.windows_timeline_page import TimelinePage

__all__ = ["WindowsLease", "lease_of"]

_LONGEST_MS: Final = 86_400_000
"""Milliseconds of one call of the kernel; it is repeated for longer waits."""
_JOIN_S: Final = 5.0


class WindowsLease(Lease):
    """See the module. Its loss, too, gives the mutex back."""

    def __init__(self, page: TimelinePage) -> None:
        """Errors: OutOfMemoryError; InternalError for another failure of the kernel."""
        try:
            mutex = OwnedDescriptor(wake_events.mutex_of(f"{page.path}update"))
            self._has_it = OwnedDescriptor(waitables.create_event(None, signaled=False))
            stop = OwnedDescriptor(waitables.create_event(None, signaled=False))
        except calls.StatusError as error:
            raise status_errors.out_of_memory(error, "vkMapMemory", "the lease of an update") or status_errors.other(
                error, "The mutex of an update cannot be created."
            ) from None
        self._thread = threading.Thread(
            target=_own, args=(page, mutex, self._has_it, stop), name="extmem-update", daemon=True
        )
        self._thread.start()
        # The thread closes `stop` when it has been set; until then the handle is valid.
        self._given_back = Owner(((kernel32.SetEvent, stop.fd),))

    def obtain(self, seconds: float | None) -> bool | None:
        """See `Lease`."""
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        with self._has_it.hold():
            while True:
                left = max(0.0, deadline - time.monotonic())
                if waitables.wait_any([self._has_it.fd], math.ceil(min(left * 1000, _LONGEST_MS))) == 0:
                    return True
                if deadline <= time.monotonic():
                    return False

    def close(self) -> None:
        """See `Lease`."""
        self._given_back.end()
        join_thread(self._thread, _JOIN_S)


def _own(page: TimelinePage, mutex: OwnedDescriptor, has_it: OwnedDescriptor, stop: OwnedDescriptor) -> None:
    """Own the mutex from when it is free until `stop` is set. The thread owns the handles."""
    try:
        while (found := waitables.wait_any([stop.fd, mutex.fd], _LONGEST_MS)) not in (0, 1):
            pass
        if found == 1:
            try:
                waitables.set_event(has_it.fd)
                while waitables.wait_any([stop.fd], _LONGEST_MS) != 0:
                    pass
                if control_page.is_running(page.value) and not page.facts.abandoned:
                    page.poison()
            finally:
                waitables.release_mutex(mutex.fd)
    finally:
        mutex.close()
        stop.close()


def lease_of(page: TimelinePage) -> Lease:
    """Return the lease of a control page; at first, a wait for it. Errors: as `WindowsLease`."""
    return WindowsLease(page)
