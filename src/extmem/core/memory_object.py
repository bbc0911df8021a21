"""`MemoryObject`: a program's hold on a memory object, until it is closed. `extmem.DeviceMemory` adds the methods."""

from __future__ import annotations

import sys
import warnings
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from weakref import ref

from extmem.arguments import MadeByFunctions
from extmem.core.memory_record import Closed, MemoryRecord
from extmem.errors import HandleStateError, LiveViewError
from extmem.handles.process_id import current_process
from extmem.owning import Use, late_imports, unsettled

if TYPE_CHECKING:
    from collections.abc import Callable

    from extmem.core.device_state import DeviceState
    from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["MemoryObject"]

Result = TypeVar("Result")

_NOT_GIVEN: Any = object()
"""The default of arguments that the library always gives."""


class MemoryObject(MadeByFunctions):
    """A program's memory object: one hold on its record, until `close()`.

    Ownership: see `extmem.DeviceMemory`. Made from the result of an operation (`HeldMemory`).
    """

    __slots__ = ("__weakref__", "_arrays", "_closed", "_facts", "_gpu_holds", "_hold", "_left")
    _made_by = "Device.allocate(…), extmem.open(…) or Device.allocate_memory(…)"
    _made_of: ClassVar[type] = MemoryRecord

    def __init__(self, record: MemoryRecord = _NOT_GIVEN, hold: memoryview = _NOT_GIVEN, *more: Any) -> None:
        self._closed = True  # until it is complete
        if not isinstance(record, MemoryRecord) or hold is _NOT_GIVEN or more:
            raise self._refusal(tuple(one for one in (record, hold, *more) if one is not _NOT_GIVEN), {})
        self._facts: MemoryRecord | Closed = record
        self._hold = hold
        self._arrays: list[ref[Any]] = []
        """The exporters of its memoryviews, while there are any."""
        self._gpu_holds: list[ref[Any]] = []
        self._left: ref[MemoryRecord] | None = None
        """The record that a view keeps, if the block that closes the memory ended with an exception."""
        self._closed = False

    @property
    def device(self) -> DeviceState:
        """The device that it belongs to."""
        return self._facts.device

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the payload, as its exporter wrote it."""
        return self._facts.descriptor

    @property
    def name(self) -> str | None:
        """The name it was exported under or opened by, None for unnamed memory."""
        return self._facts.name

    @property
    def size(self) -> int:
        """The payload's size in bytes, as the exporter requested it (`allocation_size` may be larger)."""
        return self.descriptor.payload_size

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    @property
    def superseded(self) -> bool:
        """Whether other memory has got its name since (`replace=True`); what is open stays as it is. False once closed.

        Errors: HandleStateError in a forked child; PeerGoneError.
        """
        facts = self._facts  # the reason, for memory that could not be received
        if self._closed or isinstance(facts, Closed):
            return False
        with late_imports():
            from extmem.core import naming

        with self.use() as record:
            return naming.is_superseded(record)

    @property
    def record(self) -> MemoryRecord:
        """The record (for the library itself), which `use` keeps. Raises HandleStateError once closed."""
        facts = self._facts
        if self._closed or isinstance(facts, Closed):
            raise HandleStateError(f"this memory ({self.what()}) is closed; allocate or open it again")
        return facts

    def use(self) -> Use[MemoryRecord]:
        """Return a block in which the record is not released (for the library itself): `with memory.use() as record:`.

        Errors: HandleStateError once closed, and in a forked child.
        """
        record = self.record
        if record.pid != current_process.pid:
            record.check_process()
        return record.use()

    @property
    def gpu_holds(self) -> list[ref[Any]]:
        """References to the holds that GPU arrays of it share, while there are any (for the library itself)."""
        return self._gpu_holds

    def map_part(self, start: int, size: int) -> memoryview:
        """Return `size` bytes from `start` of the allocation, not of the payload (for the library itself)."""
        record = self.record
        record.check_process()
        with late_imports():
            from extmem.core import views  # with ctypes, which opening a device does not need

        return views.view_of_all(record, self._arrays)[start : start + size]

    def alone(self, action: Callable[[MemoryRecord], Result], verb: str) -> Result:
        """Call a function of the record while nothing else of this process uses it (for the library itself).

        Other threads that begin to use it meanwhile get HandleStateError. verb: for messages. Errors: LiveViewError if
        it is in use; HandleStateError once closed.
        """
        record = self.record
        record.check_process()
        self._hold.release()
        try:
            try:
                record.reserve()
            except BufferError:
                raise LiveViewError(
                    f"cannot {verb} this memory ({self.what()}) while this process uses it: delete its arrays and "
                    "memoryviews, close other memory objects of it, and let commands and other threads finish"
                ) from None
            try:
                return action(record)
            finally:
                if not record.closing:
                    record.reopen()
        finally:
            if not self._closed:
                self._hold = record.hold()

    def close(self) -> None:
        """Free it (vkFreeMemory). Safe to call twice. The payload lives on while any handle or other memory holds it.

        If another thread uses it meanwhile, that thread frees it when its operation ends. After an error, `close`
        can be called again.
        Errors: LiveViewError while an array or memoryview of it is alive; nothing has changed then. PeerGoneError if
        the object manager does not reply; memory and fds are released then, the name is not.
        """
        if self._has_views() and (not self._closed or self._left is not None):
            raise LiveViewError(
                f"an array or memoryview of this memory is still alive ({self.what()}); "
                "delete it (or let it go out of scope) before closing, or copy what you need"
            )
        record = self._facts
        if isinstance(record, Closed):
            return
        # No call, and so no signal handler, runs between the two: the record of memory marked as closed is released.
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
        if kind is not None and self._has_views():
            # The exception holds the frame that holds the view; an error about open memory must not replace it.
            self.leave_to_views()
            return
        self.close()

    def _has_views(self) -> bool:
        """Return whether a memoryview or array over the memory is alive."""
        return bool(self._arrays or self._gpu_holds)

    def live_views(self) -> list[ref[Any]]:
        """Return references to exporters of views and holds of GPU arrays, which are alive (for the library itself)."""
        return [one for one in (*self._arrays, *self._gpu_holds) if one() is not None]

    def listing_views(self, exporters: list[ref[Any]]) -> Self:
        """List its exporters of views and holds of GPU arrays in this list, which may have others, too. Return itself.

        It is new: it has none yet (for the library itself).
        """
        self._arrays = self._gpu_holds = exporters
        return self

    def leave_to_views(self) -> None:
        """End the hold. The record is released with the last view (for the library itself)."""
        record = self._facts
        if not isinstance(record, Closed):
            self._closed = True
            self._left = ref(record)
            self._hold.release()
            self._facts = record.closed_facts()

    def what(self) -> str:
        """Return its name, if any, and its size, for messages (for the library itself)."""
        return f"{self.name!r}, " * (self.name is not None) + f"{self.size} bytes"

    def __del__(self) -> None:
        # It only warns: the hold releases the record by itself.
        if not getattr(self, "_closed", True) and not sys.is_finalizing() and not self._has_views():
            # The source is not the memory itself: a warning that is kept must not keep the memory open.
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self._arrays, stacklevel=2)
