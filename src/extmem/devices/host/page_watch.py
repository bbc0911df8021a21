"""`Watch`: a value that a coroutine waits for, as those who sleep for it see it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from extmem.devices.host.page_signals import PageSignals

if TYPE_CHECKING:
    import asyncio

__all__ = ["RingWatch", "Watch"]


class Watch:
    """A value that a coroutine waits for."""

    __slots__ = ("_future", "_loop", "_marks", "page", "value")

    def __init__(self, page: PageSignals, value: int, marks: int, future: asyncio.Future[None]) -> None:
        """marks: how often the page was marked before the coroutine looked at it."""
        self.page = page
        self.value = value
        self._future = future
        self._loop = future.get_loop()
        self._marks = marks

    def is_over(self) -> bool:
        """Whether the value is reached, or the end of a signaler is news."""
        page = self.page
        return page.value >= self.value or page.marks != self._marks

    def complete(self) -> None:
        """Let the coroutine go on; called in the thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.finish)

    def finish(self) -> None:
        """Let the coroutine go on; called in its event loop."""
        if not self._future.done():
            self._future.set_result(None)


class RingWatch(Watch):
    """Any change of a page that a coroutine waits for: whoever writes there wakes those who wait."""

    __slots__ = ()

    def __init__(self, page: PageSignals, expected: int, future: asyncio.Future[None]) -> None:
        """expected: the sequence of the page when the coroutine looked at it."""
        super().__init__(page, expected, 0, future)

    def is_over(self) -> bool:
        """Whether somebody has woken those who wait."""
        return self.page.sequence_number != self.value
