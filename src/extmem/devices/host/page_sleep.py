"""`PageSleep`: the sleep of a thread on several timeline pages and on an alarm of its own, prepared once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from extmem.devices.host._libc import ffi
from extmem.devices.host.futex import SLICE_NS, Words, add_and_wake
from extmem.devices.host.timeline_page import TimelinePage

if sys.platform != "linux":
    raise ImportError("futexes are Linux's; extmem.devices.host picks what the platform has")

__all__ = ["SLICE_NS", "Alarm", "PageSleep"]


class Alarm:
    """A word of this process, by which other threads wake one that sleeps."""

    __slots__ = ("_word", "address")

    def __init__(self) -> None:
        self._word = ffi.new("unsigned int[1]")
        self.address = int(ffi.cast("uintptr_t", self._word))

    @property
    def number(self) -> int:
        """The word, to be read before what the thread looks at."""
        return int(self._word[0])

    def ring(self) -> None:
        """Wake the thread, also if it is going to sleep."""
        add_and_wake(self.address)

    def close(self) -> None:
        """Do nothing: it is memory of this process."""


class PageSleep:
    """See the module."""

    __slots__ = ("_pages", "_words")

    def __init__(self, alarm: Alarm, pages: Sequence[TimelinePage]) -> None:
        self._pages = pages
        self._words = Words([alarm.address, *(page.sequence for page in pages)])

    def sleep(self, expected: list[int], deadline: int) -> None:
        """Sleep while the alarm and the sequences have the expected numbers, until the deadline at most."""
        self._words.expected = expected
        self._words.sleep(deadline)
