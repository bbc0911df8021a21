"""`DeviceMemory.freeze`: from then on nobody writes to the memory any more.

How this works. The process that freezes gets the lease, so no update runs. The object manager refuses while other
memory objects have the right to write, and from then on gives that right to nobody. Then this process ends its own
mappings and seals the files against writing: that of a host payload, and the control page. The kernel refuses the seal
while anybody has mapped the file for writing, or a driver uses its pages. After the seal nobody can write, map the file
for writing, or undo it. When the lease ends, the object manager looks at the seals: they alone decide whether the
memory is frozen, so nothing is left half frozen by a process that was killed, and the next broker finds the same.

The files of a driver's payload have no seals. There the sealed control page says that the memory is frozen. The object
manager gives the right to write to nobody, and extmem writes in no process.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from extmem.core import changes
from extmem.errors import HandleStateError, LiveViewError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.manager import manager
from extmem.sharing.kinds import PageRole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from extmem.core.memory_object import MemoryObject
    from extmem.core.memory_record import MemoryRecord

__all__ = ["freeze"]


def freeze(memory: MemoryObject, timeout: float | None, finish: Callable[[], None] | None) -> None:
    """`DeviceMemory.freeze`. finish: waits for the work of the device on the memory."""
    seconds = changes.checked_timeout(timeout)
    deadline = None if seconds is None else time.monotonic() + seconds
    with memory.use() as record:
        record.check_process()
        if record.is_frozen():
            return
        record.check_writable("freeze")
        _refuse_system(record)
        _refuse_lent(record)
        changes.control_of(record)
        if finish is not None:
            finish()
        lease = changes.obtain(record, deadline)
        owner = record.manager or manager()
        numbers = [reference.number for reference in record.references if reference.number]
        del record
    try:
        with memory.use() as record:
            page = changes.control_of(record)
            page.settled(changes.nanoseconds_of(changes.left_of(deadline)), record.what())
            writers = owner.freeze(numbers)
            if writers:
                raise _in_use(
                    record,
                    f"it is open for writing {_named(writers)}; close it there, or open it there with Access.READ",
                )
            page.announce_freeze(True)
            del page, record
        sealed = False
        try:
            sealed = memory.alone(_seal, "freeze")
        finally:
            if not sealed:
                with memory.use() as record:
                    _take_back(record)
        if not sealed:
            with memory.use() as record:
                raise _in_use(
                    record,
                    "a process or a driver that the object manager does not know has mapped its file for writing; have "
                    "it unmap it",
                )
        # A broker that has begun meanwhile looks at the seals. Another thread may have closed the memory by now.
        with suppress(HandleStateError), memory.use():
            owner.freeze(numbers)
    finally:
        lease.close()


def _seal(record: MemoryRecord) -> bool:
    """Seal the files of memory that nothing else of this process uses.

    Return False if somebody has mapped one for writing. Errors: UnsupportedError for a file that takes no seals.
    """
    record.control = record.pattern = None
    pages = record.pages
    companion = pages if pages is not None and PageRole.CONTROL in pages else None
    allocation: Any = record.allocation
    try:
        if record.device.kind != "host":
            if companion is None or not companion.seal(PageRole.CONTROL):
                return False
        else:
            if not allocation.freeze():
                return False
            if companion is not None:  # if it is refused, the memory is frozen all the same
                companion.seal(PageRole.CONTROL)
    except PermissionError as error:
        raise UnsupportedError(
            f"the file of this memory ({record.what()}) takes no more seals, so the kernel cannot keep writers out: "
            "another program or an older version of extmem has made it; share a copy",
            requires_one_of=["memory that this version of extmem allocated"],
        ) from error
    record.writable = False
    return True


def _take_back(record: MemoryRecord) -> None:
    """Announce that the memory is not frozen, unless the kernel has sealed it before an exception came."""
    pages = record.pages
    sealed = pages is not None and PageRole.CONTROL in pages and pages.look_at_seal(PageRole.CONTROL)
    if record.device.kind == "host":  # the seal of its file decides, and not that of its page
        allocation: Any = record.allocation
        sealed = allocation.look_at_seal()
    if sealed:
        record.writable = False
    else:
        changes.control_of(record).announce_freeze(False)


def _refuse_system(record: MemoryRecord) -> None:
    if not (record.manager or manager()).has_broker:
        raise UnsupportedError(
            f"this memory ({record.what()}) cannot be frozen: Windows has no seals, so nothing keeps processes from "
            "writing that have it open for writing, and no object manager knows them; open it with Access.READ where "
            "it is only read",
            requires_one_of=["Linux"],
        )


def _refuse_lent(record: MemoryRecord) -> None:
    pages = record.pages
    if record.moved is not None or (pages is not None and PageRole.LIFELINE in pages):
        raise UnsupportedError(
            f"this memory ({record.what()}) is lent by a framework, whose tensor can be written to as before; share a "
            "copy (copy=True), and freeze that",
            requires_one_of=["copy=True"],
        )


def _in_use(record: MemoryRecord, why: str) -> LiveViewError:
    return LiveViewError(f"cannot freeze this memory ({record.what()}): {why}")


def _named(pids: Sequence[int]) -> str:
    """Return where it is open, with the pids that are known."""
    own = current_process.pid
    others = [str(pid) for pid in pids if pid not in (0, own)]
    places = [f"in process{'es' * (len(others) > 1)} {', '.join(others)}"] if others else []
    if own in pids:
        places.append("as another memory object of this process")
    if 0 in pids:
        places.append("in a process of another pid namespace")
    return " and ".join(places)
