"""`ControlPage`: the mapped control page of memory, in which an update is counted and waited for.

How this works. `sharing.control_page` has the meaning of the count. The page is mapped as that of a timeline
(`TimelinePage`), with the rights of the import: the kernel enforces that a reader does not change it. Python has no
memory barriers, so each order that matters here is made by a call of the kernel that has one: a wake with an atomic
addition when the count is stored, and a wake without sleepers when a reader has read the count, or is about to.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from extmem import vk
from extmem.devices.host import system
from extmem.devices.host.page_signals import deadline_after
from extmem.devices.host.sync_system import TimelinePage, lease_of, open_page, sleep_on_pages
from extmem.errors import DriverError, PeerGoneError, WaitTimeoutError
from extmem.owning import late_imports
from extmem.sharing import control_page as layout
from extmem.sharing.timeline_page import State

if TYPE_CHECKING:
    from extmem.devices.backend import Mapping
    from extmem.manager import Lease
    from extmem.owning import OwnedFd

__all__ = ["ControlPage", "deadline_after", "in_file_of"]


_SEALED_SOON: Final = 0.01
"""Seconds after which a waiter looks again whether memory is frozen that is about to be."""
_ALIVE: Final = 0.5
"""Seconds after which a waiter looks again whether the process lives that updates."""


def _earlier(deadline: int | None, other: int) -> int:
    return other if deadline is None else min(deadline, other)


class ControlPage:
    """See the module. It stays mapped as long as this object is alive. Threads: every method from any thread."""

    __slots__ = ("_page", "_stamps")

    def __init__(self, file: OwnedFd, writable: bool, offset: int, whole: Mapping | None = None) -> None:
        """file: borrowed; its size is sealed. whole: the mapping of all of it, for a companion page.

        Errors: AccessDeniedError; OutOfMemoryError; OSError.
        """
        self._page: TimelinePage = open_page(file, writable, offset)
        self._stamps = None if whole is None else _stamps_of(whole)

    @property
    def page(self) -> TimelinePage:
        """The page as that of a timeline, whose value is the generation."""
        return self._page

    @property
    def generation(self) -> int:
        """The count: odd while an update runs."""
        return self._page.value

    @property
    def torn(self) -> bool:
        """Whether the last update was not finished, and never will be."""
        page = self._page
        if not layout.is_running(page.value):
            return False
        return page.facts.abandoned or page.has_ended(*layout.updater(page.contents))

    # Updating: by the process that has the lease.

    def lease(self) -> Lease | None:
        """Return the lease of the page; None where the object manager gives it."""
        lease: Lease | None = lease_of(self._page)
        return lease

    def begin(self) -> int:
        """Count the beginning of an update, before its first byte. Return the generation that it will finish.

        Errors: DriverError if the page cannot be true.
        """
        before = self.generation
        if before > layout.MOST:
            raise DriverError(
                f"the control page of this memory has generation {before:#x}, which no number of updates can reach; a "
                "process with the right to write has overwritten it: share the memory anew",
                result=vk.Result.ERROR_UNKNOWN,
                command="vkMapMemory",
            )
        begun = layout.begun(before)
        layout.enter_updater(self._page.contents, layout.Updater(*self._page.own_facts()))
        self._page.store(begun)
        return begun + 1

    def finish(self, generation: int, arrays: Iterable[int] | None = None) -> None:
        """Count the end of the update, after its last byte, and wake all who wait.

        arrays: the numbers of the named arrays that were changed; None: all of the memory.
        """
        if arrays is None:
            self._page.contents.cast("Q")[layout.WHOLE // 8] = generation
        elif self._stamps is not None:
            for number in arrays:
                self._stamps[number] = generation
        self._page.store(generation)

    def generation_of(self, number: int) -> int:
        """Return the generation of the last finished update of a named array."""
        stamps = self._stamps
        whole = self._page.contents.cast("Q")[layout.WHOLE // 8]
        return whole if stamps is None or number >= len(stamps) else max(whole, stamps[number])

    def abandon(self) -> None:
        """Record that the update is left without its end, and wake all who wait."""
        self._page.poison()

    # Freezing: by the process that has the lease.

    def announce_freeze(self, frozen: bool) -> None:
        """Wake all who wait, because the memory is about to be frozen, or (False) is not after all."""
        self._page.contents.cast("Q")[layout.FROZEN // 8] = frozen
        self._page.wake_all()

    # Reading.

    def barrier(self) -> None:
        """Order the reads before this call before those after it."""
        self._page.barrier()

    def settled(self, deadline: int | None, what: str) -> int:
        """Wait until no update runs, and return the generation, which was read before what is read later.

        deadline: of `time.monotonic_ns`; None for no limit. Errors: PeerGoneError if the memory is torn;
        WaitTimeoutError.
        """
        page = self._page
        while True:
            expected = page.sequence_number
            generation = page.value
            if not layout.is_running(generation):
                page.barrier()
                return generation
            if self.torn:
                raise self._torn_error(what)
            if not sleep_on_pages([(page, expected)], deadline):
                raise WaitTimeoutError(
                    f"an update of this memory ({what}) has been running all the time (generation {generation}); "
                    "give a longer timeout, or find out what the process does that updates it"
                )

    def wait(self, after: int, deadline: int | None, is_last: Callable[[], bool], what: str) -> int:
        """Wait for finished contents that are newer, or until there will be none: `is_last`. Return their generation.

        Errors: as `settled`.
        """
        page = self._page
        while True:
            expected = page.sequence_number
            found = self.newer(after, is_last, what)
            if found is not None:
                return found
            look_at = self.look_again()
            until = deadline if look_at is None else _earlier(deadline, time.monotonic_ns() + round(look_at * 1e9))
            if not sleep_on_pages([(page, expected)], until) and until == deadline:
                raise self._late_error(after, what)

    async def wait_async(self, after: int, is_last: Callable[[], bool], what: str) -> int:
        """As `wait` without limit, while other coroutines run. Cancelled, it leaves nothing behind."""
        with late_imports():
            from extmem.devices.host.sync_async import sleep_async

        page = self._page
        while True:
            expected = page.sequence_number
            found = self.newer(after, is_last, what)
            if found is not None:
                return found
            await sleep_async(page, expected, self.look_again())

    def newer(self, after: int, is_last: Callable[[], bool], what: str) -> int | None:
        """Return the generation of finished contents that are newer, or of the last ones; None if there are none yet.

        Errors: PeerGoneError if the memory is torn.
        """
        page = self._page
        generation = page.value
        if generation >= layout.after(after) or is_last():
            page.barrier()
            return layout.finished(generation)
        if self.torn:
            raise self._torn_error(what)
        return None

    def look_again(self) -> float | None:
        """Return the seconds after which a waiter looks at the page again, though nobody has woken it; None: never."""
        page = self._page
        if page.contents.cast("Q")[layout.FROZEN // 8]:
            return _SEALED_SOON  # the memory is sealed after that was announced, and the seal wakes nobody
        return _ALIVE if layout.is_running(page.value) else None

    def _late_error(self, after: int, what: str) -> WaitTimeoutError:
        return WaitTimeoutError(
            f"this memory ({what}) has generation {self._page.value}, and none after {after} was finished in time; "
            "give a longer timeout, or start the process that updates it"
        )

    def _torn_error(self, what: str) -> PeerGoneError:
        facts = self._page.facts
        pid = facts.pid if facts.abandoned else layout.updater(self._page.contents).pid
        who = "this process" if pid == os.getpid() else f"process {pid}"
        event = "left an update by an exception" if facts.state == State.POISONED else "ended during an update"
        when = f" {max(0, time.monotonic_ns() - facts.since) / 1e9:.3f} s ago" if facts.abandoned else ""
        return PeerGoneError(
            f"this memory ({what}) is torn: {who} {event}{when}, after generation {layout.finished(facts.value)}, so "
            "some bytes are old and others new; update it again, in any process that may write it, or share it anew "
            "with replace=True"
        )


def _stamps_of(whole: Mapping) -> memoryview:
    """Return the stamps in a mapped companion page, one u64 for each named array."""
    octets: Any = (ctypes.c_ubyte * whole.size).from_address(whole.address)
    octets.keeper = whole  # as long as the memoryview is alive
    return memoryview(octets).cast("B")[layout.PAGE_SIZE :].cast("Q")


def in_file_of(file: OwnedFd, writable: bool) -> ControlPage | None:
    """Return the control page in the file of a host payload, which is borrowed; None if the file has none.

    Errors: as `ControlPage`.
    """
    with file.use():
        offset = system.control_page_at(file.fd)
    return None if offset is None else ControlPage(file, writable, offset)
