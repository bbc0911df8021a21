"""`PageSleep` on Windows: the sleep of a thread on several timeline pages and on an alarm of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from extmem.devices.host.windows_timeline_page import SLICE_NS, TimelinePage, sleep_on_pages
from extmem.errors import HandleStateError
from extmem.handles._win32 import calls, waitables
from extmem.manager.windows import status_errors
from extmem.owning import OwnedDescriptor

if sys.platform != "win32":
    raise ImportError("these are objects of Windows; extmem.devices.host picks what the platform has")

__all__ = ["SLICE_NS", "Alarm", "PageSleep"]


class Alarm:
    """A semaphore of the kernel, by which other threads wake one that sleeps: a wait takes it."""

    __slots__ = ("number", "owner")

    def __init__(self) -> None:
        """Errors: OutOfMemoryError; InternalError for another failure of the kernel."""
        try:
            self.owner = OwnedDescriptor(waitables.create_semaphore(None, count=0))
        except calls.StatusError as error:
            raise status_errors.out_of_memory(error, "vkWaitSemaphores", "the alarm of a wait") or status_errors.other(
                error, "The alarm of a wait cannot be created."
            ) from None
        self.number = 0
        """How often it rang, to be read before what the thread looks at."""

    def ring(self) -> None:
        """Wake the thread, also if it is going to sleep. Nothing happens when it has ended."""
        self.number += 1
        with contextlib.suppress(HandleStateError), self.owner.use():
            waitables.release(self.owner.fd)

    def close(self) -> None:
        """Close the handle."""
        self.owner.end()


class PageSleep:
    """See the module."""

    __slots__ = ("_alarm", "_pages")

    def __init__(self, alarm: Alarm, pages: Sequence[TimelinePage]) -> None:
        self._alarm = alarm
        self._pages = pages

    def sleep(self, expected: list[int], deadline: int) -> None:
        """Sleep while the alarm and the sequences have the expected numbers, until the deadline at most."""
        if self._alarm.number == expected[0]:
            with self._alarm.owner.use():
                alarm = self._alarm.owner.fd
                sleep_on_pages(list(zip(self._pages, expected[1:], strict=True)), deadline, alarm)
