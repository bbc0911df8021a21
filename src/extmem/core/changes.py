"""Changes of memory in place: `DeviceMemory.update`, `generation`, `stable`, `wait`, `torn`.

How this works. The count of changes is in the control page of the payload (`devices.host.control_page`). Who updates
gets the lease of the object manager first, which one process has at a time, and loses with its end. What is read does
not stop a writer: the reader compares the count before and after.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Self, TypeAlias
from weakref import WeakValueDictionary

from extmem.arguments import a_type
from extmem.core import exporting, naming, tables
from extmem.devices.host import late
from extmem.errors import HandleStateError, PeerGoneError, UnsupportedError, WaitTimeoutError
from extmem.handles.process_id import current_process
from extmem.owning import late_imports
from extmem.sharing import control_page as layout
from extmem.sharing.kinds import PageRole

if TYPE_CHECKING:
    from types import TracebackType

    from extmem.core.memory_record import MemoryRecord
    from extmem.devices.host.control_page import ControlPage
    from extmem.manager import Lease

__all__ = [
    "Stable",
    "Update",
    "checked_timeout",
    "control_of",
    "generation_of",
    "is_last",
    "is_torn",
    "left_of",
    "nanoseconds_of",
    "obtain",
    "wait",
    "wait_async",
]


Finish: TypeAlias = Callable[[], None]

_running: WeakValueDictionary[tuple[object, int], Update] = WeakValueDictionary()
"""The updates that run in this process, by their page and thread."""


def checked_timeout(timeout: float | None) -> float | None:
    """Return a timeout in seconds. Errors: TypeError; ValueError for a negative one, and NaN."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is {timeout!r}, {a_type(timeout)}; give seconds, or None")
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout}; give 0 or more seconds, or None for no limit")
    return None if timeout == float("inf") else float(timeout)


def control_of(record: MemoryRecord) -> ControlPage:
    """Return the control page of memory that is in use, mapped at the first call.

    Errors: UnsupportedError for memory without one; OutOfMemoryError.
    """
    found = record.control
    if found is None:
        found = record.control = _find(record)
    return found


def _find(record: MemoryRecord) -> ControlPage:
    pages = record.pages
    if pages is not None and PageRole.CONTROL in pages:
        file, writable = pages.file(PageRole.CONTROL), pages.is_writable(PageRole.CONTROL)
        return late.control_page.ControlPage(file, writable, 0, pages.map(PageRole.CONTROL))
    if record.device.kind == "host":
        own = getattr(record.allocation, "file", None)
        found = None if own is None else late.control_page.in_file_of(own, record.writable)
        if found is not None:
            return found
    raise UnsupportedError(
        f"this memory ({record.what()}) has no control page, in which changes are counted: it is of a device or a "
        "program that makes none, or was imported without it; use extmem.share or allocate on the host device, and "
        "open the memory there, or order the accesses with extmem.timeline",
        requires_one_of=["memory of the host device"],
    )


def is_torn(record: MemoryRecord) -> bool:
    """`DeviceMemory.torn`."""
    return control_of(record).torn


def wait(record: MemoryRecord, after: int | None, timeout: float | None) -> int:
    """`DeviceMemory.wait`."""
    seconds = checked_timeout(timeout)
    page = control_of(record)
    known = page.generation if after is None else _generation(after)
    return page.wait(known, nanoseconds_of(seconds), lambda: is_last(record), record.what())


async def wait_async(record: MemoryRecord, after: int | None, timeout: float | None) -> int:
    """`DeviceMemory.wait_async`."""
    with late_imports():
        import asyncio

    seconds = checked_timeout(timeout)
    page = control_of(record)
    known = page.generation if after is None else _generation(after)
    found = page.newer(known, lambda: is_last(record), record.what())
    if found is not None:
        return found
    try:
        async with asyncio.timeout(seconds) as scope:
            return await page.wait_async(known, lambda: is_last(record), record.what())
    except TimeoutError:
        if not scope.expired():
            raise
    return page.wait(known, nanoseconds_of(0), lambda: is_last(record), record.what())


def _generation(after: object) -> int:
    if isinstance(after, bool) or not isinstance(after, int):
        raise TypeError(f"after is {after!r}, {a_type(after)}; give a generation, which is an int, or None")
    return after


def is_last(record: MemoryRecord) -> bool:
    """Return whether no newer generation will come: the memory is superseded or frozen."""
    return naming.is_superseded(record) or record.is_frozen()


def nanoseconds_of(seconds: float | None) -> int | None:
    """Return the deadline after so many seconds from now, as waits for pages take it. None is without limit."""
    return late.control_page.deadline_after(None if seconds is None else round(seconds * 1e9))


def left_of(deadline: float | None) -> float | None:
    """Return the seconds until a deadline of `time.monotonic`, at least 0; None is without limit."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Update:
    """The block in which a process changes the contents of memory: `with memory.update():`. Made by `update`.

    Ownership: it has the lease while the block runs; the lease ends with this object in any case. It is used once.
    """

    __slots__ = (
        "__weakref__",
        "_arrays",
        "_finish",
        "_generation",
        "_key",
        "_lease",
        "_page",
        "_pid",
        "_record",
        "_timeout",
    )

    def __init__(
        self, record: MemoryRecord, names: Iterable[str] | None, timeout: float | None, finish: Finish | None
    ) -> None:
        """names: those of the arrays that are to be changed; None: all. finish: waits for the work of the block, at its
        end. Errors: AccessDeniedError for read-only memory;
        KeyError for an unknown name; ValueError for names of memory without named arrays; as `control_of`.
        """
        self._finish = finish
        self._arrays = None if names is None else _numbers_of(record, names)
        record.check_writable("update")
        record.check_source()
        self._timeout = checked_timeout(timeout)
        self._record: MemoryRecord | None = record
        control_of(record)  # what is wrong with the memory is reported before the block
        self._page: ControlPage | None = None
        self._pid = current_process.pid
        self._lease: Lease | None = None
        self._key: tuple[object, int] | None = None
        self._generation = 0

    @property
    def generation(self) -> int:
        """The generation that the block finishes; 0 before it has begun."""
        return self._generation

    def __enter__(self) -> Self:
        record, self._record = self._record, None
        if record is None:
            raise HandleStateError("this update has begun already; call memory.update() for each")
        with record.use():
            record.check_process()
            record.check_writable("update")
            deadline = None if self._timeout is None else time.monotonic() + self._timeout
            lease = obtain(record, deadline)
            page = control_of(record)
            try:
                _await_end(page, record, deadline)
                if layout.is_running(page.generation):
                    self._arrays = None  # nobody knows which arrays the update changed that was not finished
                self._key = page.page, get_ident()
                _running[self._key] = self
                self._generation = page.begin()
            except BaseException:
                self._end()
                lease.close()  # an update that has begun is marked as torn then
                raise
            self._page, self._lease = page, lease
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, page = self._lease, self._page
        if lease is None or page is None or self._pid != current_process.pid:
            return  # a forked child does not end the update of its parent
        try:
            if kind is None:
                if self._finish is not None:
                    _wait_for_work(page, self._finish)
                page.finish(self._generation, self._arrays)
            else:
                page.abandon()
        finally:
            self._end()
            lease.close()

    def _end(self) -> None:
        """Keep neither the page, whose mapping would prevent `freeze`, nor the entry of the thread."""
        key, self._key = self._key, None
        if key is not None:
            _running.pop(key, None)
        self._page = None


def _wait_for_work(page: ControlPage, finish: Finish) -> None:
    """Wait for the work of the block. After an error the update is not finished."""
    try:
        finish()
    except BaseException:
        page.abandon()
        raise


def _await_end(page: ControlPage, record: MemoryRecord, deadline: float | None) -> None:
    """Wait for an update that a process began whose lease was lost with a broker that was killed."""
    if layout.is_running(page.generation) and not page.torn:
        with contextlib.suppress(PeerGoneError):  # the process has ended
            page.settled(nanoseconds_of(left_of(deadline)), record.what())


def _numbers_of(record: MemoryRecord, names: Iterable[str]) -> list[int]:
    if not tables.describes_table(record.descriptor):
        raise ValueError(
            f"names are given, and this memory ({record.what()}) has no named arrays; omit them, or share a dictionary "
            "of arrays"
        )
    numbers = tables.table_of(record).numbers
    if not isinstance(names, Iterable):
        raise TypeError(f"names is {names!r}, {a_type(names)}; give the names of arrays, or None for all of the memory")
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in numbers:
            raise KeyError(f"there is no array {name!r} in this memory ({record.what()}); keys() lists the names")
    return [numbers[name] for name in chosen]


def generation_of(record: MemoryRecord, name: str) -> int:
    """Return the generation of a part: of a named array, the last one whose update named it, or no array."""
    page = control_of(record)
    if not name or not tables.describes_table(record.descriptor):
        return page.generation
    return page.generation_of(tables.table_of(record).numbers[name])


def obtain(record: MemoryRecord, deadline: float | None) -> Lease:
    """Return the lease of the memory, which this process has.

    deadline: of `time.monotonic`. Errors: WaitTimeoutError; HandleStateError in a block of this thread that updates the
    memory; as `Manager.lease`.
    """
    page = control_of(record)
    if (page.page, get_ident()) in _running:
        raise HandleStateError(
            f"this thread (or another coroutine in it) updates this memory ({record.what()}) already, and would wait "
            "for itself; leave that block first"
        )
    while True:
        lease = page.lease() or _lease_of_manager(record)
        has_it: bool | None = False
        try:
            has_it = lease.obtain(left_of(deadline))
        finally:
            if not has_it:
                lease.close()
        if has_it:
            return lease
        if has_it is False and deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeoutError(
                f"another process or thread has been updating this memory ({record.what()}) all the time; give a "
                "longer timeout"
            )


def _lease_of_manager(record: MemoryRecord) -> Lease:
    exporting.share_on_demand(record)
    owner = record.manager
    numbers = [reference.number for reference in record.references if reference.number]
    if owner is None or not numbers:
        raise UnsupportedError(
            f"this memory ({record.what()}) is not known to the object manager, which lets one process at a time "
            "update: it was imported by file descriptor, or cannot be shared; open it by name, NT handle or pickle",
            requires_one_of=["memory of the object manager"],
        )
    return owner.lease(numbers[-1])


class Stable:
    """The block in which a reader looks at contents: `with memory.stable() as look:`. Made by `stable`."""

    __slots__ = ("_deadline_s", "_finish", "_page", "_record", "changed", "generation")

    def __init__(self, record: MemoryRecord, timeout: float | None, finish: Finish | None) -> None:
        """finish: waits for the work of the block, at its end. Errors: as `control_of`."""
        self._finish = finish
        self._deadline_s = checked_timeout(timeout)
        control_of(record)  # what is wrong with the memory is reported before the block
        self._record = record
        self._page: ControlPage | None = None
        """The page during the block: its mapping would prevent `freeze`."""
        self.changed: bool | None = None
        """After the block: whether the contents may have changed in it, so that what was read is to be read again."""
        self.generation = 0
        """The generation that was read."""

    def __enter__(self) -> Self:
        self.changed = None
        record = self._record
        with record.use():
            page = control_of(record)
        self.generation = page.settled(nanoseconds_of(self._deadline_s), record.what())
        self._page = page
        return self

    def __exit__(self, *exception: object) -> None:
        page, self._page = self._page, None
        if page is None:
            return
        if self._finish is not None:
            self._finish()
        page.barrier()
        self.changed = page.generation != self.generation
