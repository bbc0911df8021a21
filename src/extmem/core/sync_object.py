"""`SyncObject`: a program's hold on a semaphore or fence, until it is closed. `api` adds the methods."""

from __future__ import annotations

import sys
import warnings
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, NoReturn, Self, TypeVar

from extmem.arguments import CheckedWhenMade
from extmem.core.sync_record import ClosedSync, FenceRecord, SemaphoreRecord, SyncRecord
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import Use, unsettled

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.sharing.descriptor.sync import SyncDescriptor

__all__ = ["FenceObject", "SemaphoreObject", "SyncObject"]

R = TypeVar("R", bound=SyncRecord)


class SyncObject(CheckedWhenMade, Generic[R]):
    """A program's semaphore or fence: one hold on its record, until `close()`.

    Made from the result of an operation (`HeldSync`).
    """

    __slots__ = ("__weakref__", "_closed", "_facts", "_hold")
    _word = "semaphore"
    _made_by = "Device.create_semaphore(…)"
    _made_of: ClassVar[type] = SyncRecord

    def __init__(self, record: R, hold: memoryview) -> None:
        self._closed = True  # until it is complete
        self._facts: R | ClosedSync = record
        self._hold = hold
        self._closed = False

    @property
    def device(self) -> DeviceState:
        """The device that it belongs to."""
        return self._facts.device

    @property
    def name(self) -> str | None:
        """The name it was exported under or opened by; None for an unnamed one."""
        return self._facts.name

    @property
    def descriptor(self) -> SyncDescriptor:
        """The descriptor of its payload, as its exporter wrote it."""
        return self._facts.descriptor

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    @property
    def read_only(self) -> bool:
        """Whether it was imported without the right to signal (0x2)."""
        return not self._facts.writable

    @property
    def record(self) -> R:
        """The record (for the library itself), which `use` keeps. Raises HandleStateError once closed."""
        facts = self._facts
        if self._closed or isinstance(facts, ClosedSync):
            raise HandleStateError(f"this {self._word} ({self.what()}) is closed; create or open it again")
        return facts

    def use(self) -> Use[R]:
        """Return a block in which the record is not released (for the library itself): `with thing.use() as record:`.

        Errors: HandleStateError once closed, and in a forked child.
        """
        record = self.record
        if record.pid != current_process.pid:
            record.check_process()
        return record.use()

    def close(self) -> None:
        """Destroy it (vkDestroySemaphore, vkDestroyFence). Safe to call twice.

        The payload lives on while any handle or other object of any process refers to it. If submitted work or another
        thread uses it meanwhile, it is destroyed when they are done. After an error, `close` can be called again.
        Errors: PeerGoneError if the object manager does not reply.
        """
        record = self._facts
        if isinstance(record, ClosedSync):
            return
        # No call, and so no signal handler, runs between the two: the record of what is marked as closed is released.
        this_thread = get_ident()
        unsettled[record] = this_thread
        self._closed = True
        self._hold.release()
        record.end()
        self._facts = record.closed_facts()

    def __enter__(self) -> Self:
        self.record.check_process()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def what(self) -> str:
        """Return its name, if any, for messages (for the library itself)."""
        return repr(self.name) if self.name is not None else "unnamed"

    def __copy__(self) -> NoReturn:
        raise UnsupportedError(
            f"the copy module does not copy a {self._word} ({self.what()}): two objects would own one; open its name, "
            "or duplicate a handle of it",
            requires_one_of=["export_handle()", "a name"],
        )

    def __deepcopy__(self, memo: dict[int, object]) -> NoReturn:
        self.__copy__()

    def __dir__(self) -> list[str]:
        # Completion and debuggers read every listed attribute, and `record` raises once it is closed.
        return [name for name in super().__dir__() if name != "record"]

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ", read-only" if self.read_only else ""
        return f"<{type(self).__name__} {self.what()} on {self.device.name}{state}>"

    def __del__(self) -> None:
        # It only warns: the hold releases the record by itself.
        if not getattr(self, "_closed", True) and not sys.is_finalizing():
            # The source is neither the object nor its hold: a warning that is kept must not keep the payload.
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self._hold.obj, stacklevel=2)


class SemaphoreObject(SyncObject[SemaphoreRecord]):
    """A program's VkSemaphore. `extmem.Semaphore` adds the methods."""

    __slots__ = ()


class FenceObject(SyncObject[FenceRecord]):
    """A program's VkFence. `extmem.Fence` adds the methods."""

    __slots__ = ()
    _word = "fence"
    _made_by = "Device.fence() or Device.create_fence(…)"
