"""Waits for timeline pages in asyncio, by an io_uring that the event loop polls, or by a thread for all coroutines.

How this works. A coroutine adds a `Watch` to a list, checks its page itself, and awaits a future. On Linux 6.7 and
later, where io_uring is allowed, the list is that of its event loop (`ring_waits`). Else it is that of the thread. The
thread sleeps on the sequences of all pages of the list, and on an alarm of its own, by which it learns of new pages.
When it wakes, it completes the futures whose value is reached, or whose signaler has ended.

A page stays armed, which means that the thread sleeps on it, for `_LINGER_NS` after its last watch. A wait for an armed
page does not wake the thread: it adds its watch, and then reads the value. If the value comes after that, the sequence
of the armed page changes after that, too, and the thread looks at the list. `_arm` first removes pages, then takes the
watches of the list; a wait first adds the watch, then looks whether its page is armed: so one of the two finds the
other.

The thread ends when no page is armed, and before a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from typing import Final, cast

from extmem.devices.host.page_signals import PageSignals
from extmem.devices.host.page_waits import wait_pages
from extmem.devices.host.page_watch import RingWatch, Watch
from extmem.devices.host.sync_system import SLICE_NS, Alarm, PageSleep, TimelinePage, waits_of_loop
from extmem.owning import Lock, join_thread

__all__ = ["sleep_async", "sleep_until_over", "wait_pages_async"]

_LINGER_NS: Final = 200_000_000
_JOIN_S: Final = 0.2
_POLL: Final = 0


class _Sleeper:
    """The thread, and what it sleeps on. There is one in a process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set the state of a new process."""
        self._watches: dict[Watch, None] = {}
        self._armed: dict[PageSignals, int] = {}
        """Page → the time until which it stays armed without a watch."""
        self._thread: threading.Thread | None = None
        self._alarm: Alarm | None = None
        """Wakes the thread; None while there is none."""
        self._lock = Lock(reentrant=True)
        self._stop_requested = False
        self._changed = True
        """Whether a page must be armed."""
        self._next_look = 0
        """When to look which pages are not waited for any more; of `time.monotonic_ns`."""

    def add(self, watch: Watch) -> None:
        """Complete the watch when it is over. The caller checks it once more after this."""
        self._watches[watch] = None
        if self._thread is None:
            self.start()
        elif watch.page not in self._armed:
            self._changed = True
            self._ring()

    def _ring(self) -> None:
        alarm = self._alarm
        if alarm is not None:
            alarm.ring()

    def remove(self, watch: Watch) -> None:
        """Forget a watch, completed or not."""
        self._watches.pop(watch, None)

    def start(self) -> None:
        """Start the thread, unless it is running."""
        with self._lock:
            if self._thread is None:
                alarm = Alarm()
                thread = threading.Thread(target=self._run, args=(alarm,), name="extmem-timelines", daemon=True)
                self._changed = True  # it has armed nothing yet
                self._alarm, self._thread = alarm, thread
                thread.start()

    def _run(self, alarm: Alarm) -> None:
        sleep = PageSleep(alarm, ())
        pages: list[TimelinePage] = []
        while True:
            # Few steps lead from a wake to the next sleep: the event loop waits for the GIL meanwhile.
            expected = [alarm.number]
            for page in pages:
                expected.append(page.sequence_number)
            self._complete()
            now = time.monotonic_ns()
            if self._changed or now >= self._next_look:
                self._arm(now)
                if (not self._armed or self._stop_requested) and self._ends():
                    alarm.close()
                    return
                pages = cast("list[TimelinePage]", list(self._armed))
                sleep = PageSleep(alarm, pages)
                continue
            sleep.sleep(expected, self._next_look)

    def _arm(self, now: int) -> None:
        """Disarm the pages that were not waited for lately, and arm those that are waited for."""
        armed = self._armed
        for page in [page for page, until in armed.items() if until <= now]:
            del armed[page]
        self._changed = False
        watched = {watch.page for watch in list(self._watches)}
        for page in watched:
            armed[page] = now + _LINGER_NS
        unused = (until for page, until in armed.items() if page not in watched)
        self._next_look = min(unused, default=now + SLICE_NS)

    def _complete(self) -> None:
        """Complete the watches that are over."""
        for watch in list(self._watches):
            if watch.is_over() and watch in self._watches:
                self.remove(watch)
                watch.complete()

    def _ends(self) -> bool:
        """Whether the thread ends now: there is nothing to wait for, or a fork is to come."""
        with self._lock:
            thread, self._thread = self._thread, None
            # A wait adds its watch before it looks for the thread, so one that found it is in the list by now.
            if self._watches and not self._stop_requested:
                self._thread = thread
                return False
            return True

    def stop(self) -> None:
        """End the thread before a fork."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._stop_requested = self._changed = True
            self._ring()
            join_thread(thread, _JOIN_S)

    def restart(self) -> None:
        """Start the thread again after a fork, in the parent."""
        if self._stop_requested:
            self._stop_requested = False
            if self._watches:
                self.start()


_sleeper = _Sleeper()


async def wait_pages_async(waits: Sequence[tuple[TimelinePage, int]], *, any_of: bool = False) -> None:
    """Wait until all the values are reached, or any of them, while the event loop runs.

    Cancelled, it leaves nothing behind. Its thread ends some tenths of a second after the last wait.
    Errors: PeerGoneError as `wait_pages`.
    """
    loop = asyncio.get_running_loop()
    while True:
        marks = [page.marks for page, _ in waits]
        if wait_pages(waits, any_of=any_of, deadline=_POLL):
            return
        future: asyncio.Future[None] = loop.create_future()
        watches = [
            Watch(page, value, known, future)
            for (page, value), known in zip(waits, marks, strict=True)
            if page.value < value
        ]
        await _until_over(watches, future, None)


async def sleep_until_over(watch: Watch, future: asyncio.Future[None], seconds: float | None) -> None:
    """Sleep until somebody wakes those who wait for the page of a watch and it is over, unless it is.

    It may return early. future: of the watch. seconds: at most; None for no limit. Cancelled, it leaves nothing behind.
    """
    await _until_over([watch], future, seconds)


async def sleep_async(page: TimelinePage, expected: int, seconds: float | None) -> None:
    """Sleep until somebody wakes those who wait for the page, unless its sequence is not the expected one any more.

    As `sleep_until_over`.
    """
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await _until_over([RingWatch(page, expected, future)], future, seconds)


async def _until_over(watches: Sequence[Watch], future: asyncio.Future[None], seconds: float | None) -> None:
    """Wait until one of the watches of this future is over."""
    ring = waits_of_loop(future.get_loop())
    try:
        for watch in watches:
            if ring is None or not ring.add(watch):
                _sleeper.add(watch)
        if not watches or any(watch.is_over() for watch in watches):
            await asyncio.sleep(
                0
            )  # a process that changes the page all the time does not keep the loop from other work
        elif seconds is None:
            await future
        else:
            await asyncio.wait((future,), timeout=seconds)
    finally:
        for watch in watches:
            _sleeper.remove(watch)
            if ring is not None:
                ring.remove(watch)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_sleeper.stop, after_in_parent=_sleeper.restart, after_in_child=_sleeper.reset)
