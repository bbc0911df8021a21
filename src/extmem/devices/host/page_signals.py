"""`PageSignals`: the value and the signals of a mapped timeline page, which are the same on every system.

How this works. A signal stores the value, adds 1 to the sequence and wakes all who wait for a change of it.

The value only grows, also if several threads and processes signal at once, without a lock, which a process could hold
when it is killed. Python has no atomic maximum. So each signaler first announces its value, each process in a word of
its own in the page (`RAISED`), each thread in a dict of its process. Then it stores the value, and wakes, which is a
full barrier. Then it reads what the others have announced. If that is more than the value, its store has overwritten
theirs, and it stores the maximum and wakes again. The last store is checked in this way too, so the value ends at the
maximum; for some microseconds, others can see a lower one. Vulkan forbids such signals: they must be in order (03258).

The process makes these reads only if another thread or process has signaled the page at all. A process enters itself
into the table of the page before its first signal, because waiters need to know whose end concerns them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

import msgspec

from extmem import vk
from extmem.devices.host import page_exits
from extmem.devices.host.system import FileMapping
from extmem.errors import DriverError, PeerGoneError
from extmem.owning import Lock, late_imports
from extmem.sharing import timeline_page as layout

__all__ = ["PageSignals", "deadline_after", "gone_error", "lock", "no_right"]

_SEQUENCE, _STATE, _MARKS, _ENTRIES = (at // 4 for at in (layout.SEQUENCE, layout.STATE, layout.MARKS, layout.ENTRIES))
_RAISED = layout.RAISED // 8
_WITHOUT_ENTRY = _RAISED + layout.SIGNALERS
"""The word for values of processes for which the table has no room: nobody reads it."""
_MANY_THREADS = 64
_MOST_ROUNDS = 1000

lock: Final = Lock(reentrant=True)
"""Held while a page is opened, and while a thread or this process prepares its first signal."""


def deadline_after(timeout_ns: int | None) -> int | None:
    """Return the deadline, of `time.monotonic_ns`, after a timeout; None for one without end (2**63 ns and more)."""
    if timeout_ns is None or timeout_ns >= 1 << 63:
        return None
    return time.monotonic_ns() + timeout_ns


class PageSignals:
    """A mapped page; see the module. The system's `TimelinePage` adds how waiters sleep and are woken."""

    __slots__ = (
        "__weakref__",
        "_bell",
        "_claims",
        "_mapping",
        "_slot",
        "_values",
        "_words",
        "address",
        "label",
        "sequence",
    )

    def __init__(self, mapping: FileMapping, view: memoryview) -> None:
        """view: the bytes of the mapping, read-only for one that may not be written."""
        self._bell: Any = mapping.address + layout.SEQUENCE
        self._mapping = mapping
        self.address = mapping.address
        """Address of the page, and of its 64-bit value."""
        self.label = "the timeline"
        """What errors call it: with its name, once that is known."""
        self.sequence = mapping.address + layout.SEQUENCE
        """Address of the futex word."""
        self._values = view.cast("Q")
        self._words = view.cast("I")
        self._slot = _WITHOUT_ENTRY
        """The index, in `_values`, of what this process has announced."""
        self._claims: dict[int, int] = {}
        """What each thread of this process has announced. 0 is for threads that have ended."""
        if mapping.writable:
            page_exits.watch(self)

    @property
    def bell(self) -> Any:
        """The argument of `ring`."""
        return self._bell

    @property
    def ring(self) -> Callable[[Any], None]:
        """The function that adds 1 to the sequence and wakes all waiters, for the shortest paths. A full barrier."""
        return self._ring

    @property
    def keeper(self) -> FileMapping:
        """The owner of the mapping, for code that uses `address` outside a method (a GPU)."""
        return self._mapping

    @property
    def writable(self) -> bool:
        """Whether it can signal."""
        return self._mapping.writable

    @property
    def value(self) -> int:
        """The value. A process with the right to signal can have written any number."""
        return self._values[0]

    @property
    def sequence_number(self) -> int:
        """The futex word, to be read before the value."""
        return self._words[_SEQUENCE]

    @property
    def marked(self) -> bool:
        """Whether the page is marked: a signaler has ended. `facts` tells which."""
        return self._words[_STATE] != 0

    @property
    def marks(self) -> int:
        """How often the page was marked."""
        return self._words[_MARKS]

    @property
    def facts(self) -> layout.Facts:
        """Everything that is written in the page, apart from the table of signalers."""
        return layout.read(self._words.cast("B"))

    @property
    def contents(self) -> memoryview:
        """The bytes of the page, read-only where it may not be written."""
        return self._words.cast("B")

    @property
    def signalers(self) -> list[int]:
        """The ids of the processes that signal it or created it, and have not ended."""
        return [one.pid for one in layout.signalers(self._words.cast("B")) if not one.dead]

    # Signaling.

    def poison(self) -> None:
        """Declare the timeline invalid: what this process was to signal is not signaled. Wakes all waiters.

        Errors: AccessDeniedError without the right to signal.
        """
        if not self.writable:
            raise no_right()
        page = self._words.cast("B")
        layout.mark_gone(page, os.getpid(), time.monotonic_ns(), state=layout.State.POISONED)
        self._ring(self._bell)

    @staticmethod
    def _ring(bell: Any, /) -> None:
        """Add 1 to the sequence and wake all waiters. A full barrier. bell: `_bell`."""
        raise NotImplementedError

    def signal(self, value: int) -> None:
        """Set the value to a greater one, and wake all waiters: vkSignalSemaphore.

        Errors: DriverError for a value that is not greater; AccessDeniedError without the right to signal.
        """
        if not self.raise_to(value):
            raise DriverError(
                f"vkSignalSemaphore: the timeline has value {self.value} and {value} is to be signaled; "
                "signal a greater value",
                result=vk.Result.ERROR_UNKNOWN,
                command="vkSignalSemaphore",
            )

    def raise_to(self, value: int) -> bool:
        """Signal the value, unless it is reached. Return whether it was signaled. Errors: AccessDeniedError."""
        claims, values = self._claims, self._values
        thread = get_ident()
        if thread not in claims:
            self._admit(thread)
        if value <= values[0]:
            return False
        claims[thread] = values[self._slot] = value
        words = self._words
        if words[_STATE]:
            layout.mark_repaired(words.cast("B"))
        values[0] = value
        self._ring(self._bell)
        if words[_ENTRIES] > 1 or len(claims) > 1:
            self._settle()
        return True

    def store(self, value: int) -> None:
        """Store a value as the only process that may store one now, which is not entered into the table.

        What was stored in memory before is visible before the value, and the value before what is stored later.
        The caller ensures that the page is writable.
        """
        self._ring(self._bell)
        words = self._words
        if words[_STATE]:
            layout.mark_repaired(words.cast("B"))
        self._values[0] = value
        self._ring(self._bell)

    def wake(self) -> None:
        """Wake all waiters, because a device has written the value. Errors: AccessDeniedError."""
        self.prepare_to_signal()
        self._ring(self._bell)

    def wake_all(self) -> None:
        """Wake all waiters, as the only process that may write to the page now. The caller ensures that it may."""
        self._ring(self._bell)

    def announce_signal(self) -> None:
        """Record that this process signals what the page accompanies. Errors: AccessDeniedError."""
        self.prepare_to_signal()
        if self._words[_STATE]:
            layout.mark_repaired(self._words.cast("B"))

    def mark_leaving(self) -> None:
        """Record that this process is about to end normally, if it signals the page or created it."""
        layout.mark_leaving(self._words.cast("B"), os.getpid(), self._start_time())

    def prepare_to_signal(self) -> None:
        """Enter this process into the table of signalers, as the first signal does. For devices that write the value.

        Errors: AccessDeniedError without the right to signal.
        """
        if not self._claims:
            self._admit(get_ident())

    def _settle(self) -> None:
        """Store the maximum of what is announced, until it is the value.

        A faulty process could lower the value again and again: after some rounds it is left with that.
        """
        values, claims = self._values, self._claims
        for _ in range(_MOST_ROUNDS):
            most = max(claims.values())
            if values[self._slot] < most:
                values[self._slot] = most
            most = max(most, *values[_RAISED:_WITHOUT_ENTRY])
            if values[0] >= most:
                return
            values[0] = most
            self._ring(self._bell)

    def _admit(self, thread: int) -> None:
        """Prepare the first signal of this thread."""
        if not self.writable:
            raise no_right()
        claims = self._claims
        with lock:
            if not claims:
                self._enter()
            if len(claims) > _MANY_THREADS:
                running = {one.ident for one in threading.enumerate()}
                for ended in [one for one in claims if one and one not in running]:
                    claims[0] = max(claims.get(0, 0), claims[ended])
                    del claims[ended]
            claims[thread] = 0

    def _enter(self) -> None:
        """Enter this process into the table. Without room, its end is not announced."""
        page = self._words.cast("B")
        process, started = os.getpid(), self._start_time()
        with self._table_locked():
            if layout.enter(page, process, started):
                mine, others = _places(page, process, started)
                self._slot = _RAISED + mine
            else:
                others = True
            # A process that finds another one in the table makes both of them read what the other has announced.
            self._words[_ENTRIES] = max(self._words[_ENTRIES], 1 + others)

    def _start_time(self) -> int:
        """Return the start time of this process, which distinguishes it from others of the same pid."""
        raise NotImplementedError

    def _table_locked(self) -> contextlib.AbstractContextManager[None]:
        """Exclude other processes that enter the table."""
        raise NotImplementedError

    # For the control pages of memory, which Linux has.

    def barrier(self) -> None:
        """Order the reads before this call before those after it, on every processor."""
        raise NotImplementedError

    def own_facts(self) -> tuple[int, int, int]:
        """Return pid and start time of this process, and the identity of its pid namespace, 0 for none."""
        return os.getpid(), self._start_time(), 0

    def has_ended(self, pid: int, start: int, namespace: int) -> bool:
        """Return whether a process has ended, as far as this process can see."""
        return False

    def add_user(self) -> None:
        """Count one more object of this process that has the page."""
        raise NotImplementedError

    def drop_user(self) -> None:
        """End what `add_user` began: without users, this process is no signaler any more."""
        raise NotImplementedError

    # Waiting.

    def sleep(self, expected: int, deadline: int | None = None) -> bool:
        """Sleep while the sequence has the expected number, for half a second at most. Return False after the deadline.

        It may return early. deadline: of `time.monotonic_ns`; None for none.
        """
        raise NotImplementedError

    def nudge(self) -> None:
        """Wake those who sleep on the sequence, without changing it: they look again. Without the right to signal, too.

        Who is just about to sleep may miss it, and sleeps until the end of its slice.
        """

    def check_signaler(self, value: int) -> None:
        """Raise PeerGoneError if the value is not reached, and the process that would signal it has ended."""
        facts = self.abandoned_below(value)
        if facts is not None:
            raise gone_error(facts, value, self.label)

    def abandoned_below(self, value: int) -> layout.Facts | None:
        """Return the facts of a page whose value is not reached, and has no signaler any more; None for others."""
        facts = self.facts
        if not facts.abandoned:
            return None
        reached = self.value  # after the state: it may have been signaled before the end
        return msgspec.structs.replace(facts, value=reached) if reached < value else None


def _places(page: memoryview, process: int, started: int) -> tuple[int, bool]:
    """Return the place of a process in the table, and whether another process there may have signaled."""
    mine, others = layout.SIGNALERS, False
    for one in layout.signalers(page):
        if (one.pid, one.start) == (process, started) and not one.dead:
            mine = one.place
        else:
            others = others or not one.creator
    return mine, others


def gone_error(facts: layout.Facts, value: int | None = None, what: str = "the timeline") -> PeerGoneError:
    """Return the error to raise for a signal that nobody is going to make. value: that is waited for, of a timeline."""
    if facts.state == layout.State.POISONED:
        event = (
            f"process {facts.pid} declared {what} invalid, because work that was to signal it failed or was not done"
        )
    elif facts.exited:
        event = f"process {facts.pid}, the last that signaled or created {what}, ended normally"
    elif facts.closed:
        event = f"process {facts.pid}, the last that could signal {what}, closed it"
    else:
        event = f"process {facts.pid}, which could signal {what}, ended without closing it"
    when = f"{event} {max(0, time.monotonic_ns() - facts.since) / 1e9:.3f} s ago"
    if value is None:
        return PeerGoneError(f"{when}, and it is not signaled; create a new one, or signal it in another process")
    return PeerGoneError(
        f"{when}: it has value {facts.value}, and the value {value}, which is waited for, was not signaled; call "
        f"signal({value}) in a process that may signal, so that the waits return, or create a new timeline"
    )


def no_right() -> Exception:
    """Return the error to raise for a signal without the right to signal."""
    with late_imports():
        from extmem.objects import Status, error_for

    return error_for(
        Status.ACCESS_DENIED,
        "a signal is refused: the object was opened or imported without the right to signal (0x2); open it with "
        "Access.READ_WRITE, which its owner must grant",
    )
