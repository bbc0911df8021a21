"""`TimelinePage`: a mapped page of a timeline, by which processes signal a value and wait for it.

How this works. `sharing.timeline_page` has the layout, `page_signals` the signals. A signal adds 1 to the sequence and
wakes all who sleep on it, in one call of the kernel. A wait reads the sequence, then the value, and sleeps while the
sequence does not change: a signal between the two reads changes the sequence, so it is not missed. The kernel enforces
the right to signal: without it the file is open, and mapped, for reading only.

One process has one `TimelinePage` for a file and a right, however often it imports the payload, until its last user has
ended. The memory is unmapped when the last reference to it ends; a method that runs has one, so its addresses stay
valid.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

from extmem.devices.host import memfd
from extmem.devices.host._libc import ffi
from extmem.devices.host.futex import Words, add_and_wake, sleep, wake
from extmem.devices.host.mapping import FileMapping, map_file
from extmem.devices.host.page_signals import PageSignals, lock
from extmem.errors import HandleStateError
from extmem.owning import OwnedFd
from extmem.sharing import timeline_page as layout
from extmem.sharing.terms import ShareTerms
from extmem.wire.process_start import start_time

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

import fcntl

__all__ = ["FILE_SIZE", "TimelinePage", "create_companion_page", "create_page", "open_page", "sleep_on_pages"]

FILE_SIZE: Final = memfd.file_size(layout.PAGE_SIZE)
"""Bytes of the file of a page, its self-description included."""

_SEQUENCE, _STATE = layout.SEQUENCE // 4, layout.STATE // 4
_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 100, 0.001

_Key = tuple[int, int, bool, int]
_pages: WeakValueDictionary[_Key, TimelinePage] = WeakValueDictionary()


def create_page(value: int = 0, descriptor: bytes = b"", terms: ShareTerms | None = None) -> OwnedFd:
    """Create the file of a page with this value. Return its fd, which the caller owns; open it by `open_page`.

    terms: unused: the object manager names it.
    Errors: OutOfMemoryError; ValueError for a long descriptor.
    """
    file = memfd.create(layout.PAGE_SIZE, descriptor)
    if value:
        os.pwrite(file.fd, value.to_bytes(8, sys.byteorder), layout.VALUE)
    return file


def create_companion_page(terms: ShareTerms | None, value: int = 0) -> OwnedFd:
    """Create the file of a companion page, whose rights are those of its payload. terms: unused, as in `create_page`.

    Errors: OutOfMemoryError.
    """
    return create_page(value)


def open_page(file: OwnedFd, writable: bool = True, offset: int = 0) -> TimelinePage:
    """Return the page of a file, mapped. The file is borrowed, and held while it is used; it may be closed afterwards.

    writable: whether to signal; the file must be open for writing then. The caller has examined the file: its size is
    sealed. offset: of the page in the file. Errors: AccessDeniedError; OutOfMemoryError; OSError.
    """
    with file.use(), lock:
        status = os.fstat(file.fd)
        key = (status.st_dev, status.st_ino, writable, offset)
        page = _pages.get(key)
        if page is None:
            page = _pages[key] = TimelinePage(map_file(file.fd, layout.PAGE_SIZE, writable, offset), key)
        if writable and page._file is None and not page._claims:
            page._file = file
        return page


class TimelinePage(PageSignals):
    """A mapped page; see the module. Made by `open_page`."""

    __slots__ = ("_file", "_key", "_users")

    _ring = staticmethod(add_and_wake)

    def __init__(self, mapping: FileMapping, key: _Key) -> None:
        """key: of `_pages`."""
        view = memoryview(ffi.buffer(ffi.cast("char *", mapping.address), layout.PAGE_SIZE)).cast("B")
        super().__init__(mapping, view if mapping.writable else view.toreadonly())
        self._file: OwnedFd | None = None
        """The file, until this process has entered itself into the table."""
        self._key = key
        self._users = 0

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

    def sleep(self, expected: int, deadline: int | None = None) -> bool:
        """Sleep while the sequence has the expected number, for half a second at most. Return False after the deadline.

        It may return early. deadline: as `wait`.
        """
        return sleep(self.sequence, expected, deadline)

    def nudge(self) -> None:
        """See `PageSignals`."""
        wake(self.sequence)

    def barrier(self) -> None:
        """Order the reads before this call before those after it, on every processor (FUTEX_WAKE has a full barrier).

        Nobody sleeps on the word that is used, so nobody is woken.
        """
        wake(self.address + layout.UNUSED)

    def own_facts(self) -> tuple[int, int, int]:
        """Return pid and start time of this process, and the inode of its pid namespace."""
        return os.getpid(), start_time(os.getpid()), _pid_namespace()

    def has_ended(self, pid: int, start: int, namespace: int) -> bool:
        """Return whether a process has ended, as far as this process can see: it sees its own pid namespace."""
        return bool(pid) and namespace == _pid_namespace() and start_time(pid) != start

    def add_user(self) -> None:
        """See `PageSignals`."""
        with lock:
            self._users += 1

    def drop_user(self) -> None:
        """See `PageSignals`. The object manager removes this process from the table, once it has no reference left.

        A wait that still runs keeps the page. So a later import gets another one, and enters the process again.
        """
        with lock:
            self._users -= 1
            if self._users <= 0:
                self._file = None  # which whoever still refers to the page would keep open
                if _pages.get(self._key) is self:
                    del _pages[self._key]

    def _start_time(self) -> int:
        return start_time(os.getpid())

    def _table_locked(self) -> _TableLock:
        """See `PageSignals`. If the file was closed by another import, the table is used without a lock."""
        file, self._file = self._file, None
        return _TableLock(file)


def _pid_namespace() -> int:
    """Return the inode of the pid namespace; 0 where it cannot be read."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def sleep_on_pages(pages: Sequence[tuple[TimelinePage, int]], deadline: int | None = None) -> bool:
    """Sleep while the sequences of all these pages have the expected numbers; see `futex.Words.sleep`."""
    words = Words([page.sequence for page, _ in pages])
    words.expected = [expected for _, expected in pages]
    return words.sleep(deadline)


class _TableLock:
    """Excludes other processes that enter the table, in a block: a lock of the file's bytes.

    A process with the right to signal can hold it for ever, so this waits a tenth of a second at most. The lock is the
    process's: if an exception prevents its release, it ends when the process closes the file.
    """

    __slots__ = ("_file", "_hold")

    def __init__(self, file: OwnedFd | None) -> None:
        self._file = file
        self._hold: memoryview | None = None

    def __enter__(self) -> None:
        file = self._file
        if file is None:
            return
        try:
            self._hold = file.hold()
        except HandleStateError:
            return
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, layout.PAGE_SIZE, layout.TABLE)
                break
            except OSError:
                time.sleep(_LOCK_PAUSE_S)

    def __exit__(self, *_: object) -> None:
        file = self._file
        if file is not None and self._hold is not None:
            fcntl.lockf(file.fd, fcntl.LOCK_UN, layout.PAGE_SIZE, layout.TABLE)
            self._hold = None


def _forget_after_fork() -> None:
    """A forked child signals as a process of its own: it opens its own pages."""
    _pages.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
