"""`TimelinePage`: a mapped page of a timeline, by which processes signal a value and wait for it.

How this works. `sharing.timeline_page` has the layout. A signal stores the value, adds 1 to the sequence and wakes all
who sleep on it, in one call of the kernel. A wait reads the sequence, then the value, and sleeps while the sequence
does not change: a signal between the two reads changes the sequence, so it is not missed. The kernel enforces the right
to signal: without it the file is open, and mapped, for reading only.

The value only grows, also if several threads and processes signal at once, without a lock, which a process could hold
when it is killed. Python has no atomic maximum. So each signaler first announces its value, each process in a word of
its own in the page (`RAISED`), each thread in a dict of its process. Then it stores the value, and wakes, which is a
full barrier. Then it reads what the others have announced. If that is more than the value, its store has overwritten
theirs, and it stores the maximum and wakes again. The last store is checked in this way too, so the value ends at the
maximum; for some microseconds, others can see a lower one. Vulkan forbids such signals: they must be in order (03258).

The process makes these reads only if another thread or process has signaled the page at all. A process enters itself
into the table of the page before its first signal: the object manager needs to know whose end to announce.

One process has one `TimelinePage` for a file and a right, however often it imports the payload. The memory is unmapped
when the last reference to it ends; a method that runs has one, so its addresses stay valid.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from threading import get_ident
from typing import Final
from weakref import WeakValueDictionary

from extmem import vk
from extmem.devices.host import memfd
from extmem.devices.host._libc import ffi
from extmem.devices.host.futex import add_and_wake, sleep
from extmem.devices.host.mapping import FileMapping, map_file
from extmem.errors import DriverError, HandleStateError, PeerGoneError
from extmem.owning import Lock, OwnedFd, late_imports
from extmem.sharing import timeline_page as layout
from extmem.wire.process_start import start_time

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

import fcntl

__all__ = ["FILE_SIZE", "TimelinePage", "create_page", "deadline_after", "gone_error", "no_right", "open_page"]

FILE_SIZE: Final = memfd.file_size(layout.PAGE_SIZE)
"""Bytes of the file of a page, its self-description included."""

_SEQUENCE, _STATE, _ENTRIES = layout.SEQUENCE // 4, layout.STATE // 4, layout.ENTRIES // 4
_RAISED = layout.RAISED // 8
_WITHOUT_ENTRY = _RAISED + layout.SIGNALERS
"""The word for values of processes for which the table has no room: nobody reads it."""
_MANY_THREADS = 64
_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 100, 0.001

_pages: WeakValueDictionary[tuple[int, int, bool], TimelinePage] = WeakValueDictionary()
_lock = Lock(reentrant=True)


def create_page(value: int = 0, descriptor: bytes = b"") -> OwnedFd:
    """Create the file of a page with this value. Return its fd, which the caller owns; open it by `open_page`.

    Errors: OutOfMemoryError; ValueError for a long descriptor.
    """
    file = memfd.create(layout.PAGE_SIZE, descriptor)
    if value:
        os.pwrite(file.fd, value.to_bytes(8, sys.byteorder), layout.VALUE)
    return file


def open_page(file: OwnedFd, writable: bool = True) -> TimelinePage:
    """Return the page of a file, mapped. The file is borrowed, and held while it is used; it may be closed afterwards.

    writable: whether to signal; the file must be open for writing then. The caller has examined the file: its size is
    sealed. Errors: AccessDeniedError; OutOfMemoryError; OSError.
    """
    with file.use(), _lock:
        status = os.fstat(file.fd)
        key = (status.st_dev, status.st_ino, writable)
        page = _pages.get(key)
        if page is None:
            page = _pages[key] = TimelinePage(map_file(file.fd, layout.PAGE_SIZE, writable))
        page._file = file if writable else None
        return page


def deadline_after(timeout_ns: int | None) -> int | None:
    """Return the deadline, of `time.monotonic_ns`, after a timeout; None for one without end (2**63 ns and more)."""
    if timeout_ns is None or timeout_ns >= 1 << 63:
        return None
    return time.monotonic_ns() + timeout_ns


class TimelinePage:
    """A mapped page; see the module. Made by `open_page`."""

    __slots__ = ("__weakref__", "_claims", "_file", "_mapping", "_slot", "_values", "_words", "address", "sequence")

    def __init__(self, mapping: FileMapping) -> None:
        self._mapping = mapping
        self.address = mapping.address
        """Address of the page, and of its 64-bit value."""
        self.sequence = mapping.address + layout.SEQUENCE
        """Address of the futex word."""
        view = memoryview(ffi.buffer(ffi.cast("char *", mapping.address), layout.PAGE_SIZE)).cast("B")
        if not mapping.writable:
            view = view.toreadonly()
        self._values = view.cast("Q")
        self._words = view.cast("I")
        self._file: OwnedFd | None = None
        """The file, until this process has entered itself into the table."""
        self._slot = _WITHOUT_ENTRY
        """The index, in `_values`, of what this process has announced."""
        self._claims: dict[int, int] = {}
        """What each thread of this process has announced. 0 is for threads that have ended."""

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
    def facts(self) -> layout.Facts:
        """Everything that is written in the page, apart from the table of signalers."""
        return layout.read(self._words.cast("B"))

    # Signaling.

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
        add_and_wake(self.sequence)
        if words[_ENTRIES] > 1 or len(claims) > 1:
            self._settle()
        return True

    def wake(self) -> None:
        """Wake all waiters, because a device has written the value. Errors: AccessDeniedError."""
        self.prepare_to_signal()
        add_and_wake(self.sequence)

    def announce_signal(self) -> None:
        """Record that this process signals what the page accompanies. Errors: AccessDeniedError."""
        self.prepare_to_signal()
        if self._words[_STATE]:
            layout.mark_repaired(self._words.cast("B"))

    def prepare_to_signal(self) -> None:
        """Enter this process into the table of signalers, as the first signal does. For devices that write the value.

        Errors: AccessDeniedError without the right to signal.
        """
        if not self._claims:
            self._admit(get_ident())

    def _settle(self) -> None:
        """Store the maximum of what is announced, until it is the value."""
        values, claims = self._values, self._claims
        while True:
            most = max(claims.values())
            if values[self._slot] < most:
                values[self._slot] = most
            most = max(most, *values[_RAISED:_WITHOUT_ENTRY])
            if values[0] >= most:
                return
            values[0] = most
            add_and_wake(self.sequence)

    def _admit(self, thread: int) -> None:
        """Prepare the first signal of this thread."""
        if not self.writable:
            raise no_right()
        claims = self._claims
        with _lock:
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
        file, page = self._file, self._words.cast("B")
        process, started = os.getpid(), start_time(os.getpid())
        with contextlib.ExitStack() as stack:
            if file is not None:
                with contextlib.suppress(HandleStateError):  # closed by another import: the table is used without lock
                    stack.enter_context(_table_locked(stack.enter_context(file.use()).fd))
            if layout.enter(page, process, started):
                mine, others = _places(page, process, started)
                self._slot = _RAISED + mine
            else:
                others = True
            # A process that finds another one in the table makes both of them read what the other has announced.
            self._words[_ENTRIES] = max(self._words[_ENTRIES], 1 + others)
        self._file = None

    # Waiting.

    def wait(self, value: int, deadline: int | None = None) -> bool:
        """Wait until the value is reached. Return whether it is; False after the deadline.

        deadline: of `time.monotonic_ns`; one that has passed polls, None is no limit. Signal handlers run meanwhile.
        Errors: PeerGoneError if the value is not reached, and the process that would signal it has ended.
        """
        values = self._values
        if values[0] >= value:
            return True
        words = self._words
        while True:
            expected = words[_SEQUENCE]
            if values[0] >= value:
                return True
            if words[_STATE]:
                self.check_signaler(value)
            if not sleep(self.sequence, expected, deadline):
                return values[0] >= value

    def check_signaler(self, value: int) -> None:
        """Raise PeerGoneError if the value is not reached, and the process that would signal it has ended."""
        facts = self.facts
        if facts.abandoned and self.value < value:
            raise gone_error(facts, value)


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
        event = f"process {facts.pid} declared {what} invalid"
    elif facts.closed:
        event = f"process {facts.pid}, the last that could signal {what}, closed it"
    else:
        event = f"process {facts.pid}, which signaled {what}, ended"
    when = f"{event} {max(0, time.monotonic_ns() - facts.since) / 1e9:.3f} s ago"
    if value is None:
        return PeerGoneError(f"{when}, and it is not signaled; make a new one, or signal it in another process")
    return PeerGoneError(
        f"{when}: its value is {facts.value}, and the value {value} that is waited for was not signaled; "
        f"signal({value}) by a process with the right to signal lets the waiters go on, or make a new timeline"
    )


def no_right() -> Exception:
    """Return the error to raise for a signal without the right to signal."""
    with late_imports():
        from extmem.objects import Status, error_for

    return error_for(
        Status.ACCESS_DENIED,
        "a signal is refused: the object was opened or imported for waiting only (right 0x1); ask its owner for the "
        "right to signal (0x2)",
    )


@contextlib.contextmanager
def _table_locked(fd: int) -> Iterator[None]:
    """Exclude other processes that enter the table: a lock of the file's bytes, which ends with the process.

    A process with the right to signal can hold it for ever, so this waits a tenth of a second at most.
    """
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, layout.PAGE_SIZE, layout.TABLE)
            break
        except OSError:
            time.sleep(_LOCK_PAUSE_S)
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN, layout.PAGE_SIZE, layout.TABLE)


def _forget_after_fork() -> None:
    """A forked child signals as a process of its own: it opens its own pages."""
    _pages.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
