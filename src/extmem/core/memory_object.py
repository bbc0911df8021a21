"""`MemoryObject`: a program's hold on a memory object, and its end. `extmem.DeviceMemory` adds the verbs to it."""

from __future__ import annotations

import sys
import warnings
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from extmem.core.memory_record import Closed, MemoryRecord
from extmem.errors import HandleStateError, LiveViewError
from extmem.handles.process_id import current_process
from extmem.owning import Use, late_imports, unsettled

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["MemoryObject"]


class MemoryObject:
    """What a program holds of a memory object: one hold on its record, until `close()`.

    Ownership: see `extmem.DeviceMemory`. Made from what an operation gives (`HeldMemory`).
    """

    __slots__ = ("__weakref__", "_arrays", "_closed", "_facts", "_gpu_holds", "_hold", "_left")

    def __init__(self, record: MemoryRecord, hold: memoryview) -> None:
        self._closed = True  # until whoever makes it hands it out
        self._facts: MemoryRecord | Closed = record
        self._hold = hold
        self._arrays: list[ref[Any]] = []
        """The exporters of its memoryviews, while there are any."""
        self._gpu_holds: list[ref[Any]] = []
        self._left: ref[MemoryRecord] | None = None
        """What a view kept, where the block that closes the memory ended with an exception."""
        self._closed = False

    @property
    def device(self) -> DeviceState:
        """The device that it belongs to."""
        return self._facts.device

    @property
    def descriptor(self) -> Descriptor:
        """The payload's self-description, as its exporter wrote it."""
        return self._facts.descriptor

    @property
    def name(self) -> str | None:
        """The name it was exported under or opened by, None for unnamed memory."""
        return self._facts.name

    @property
    def size(self) -> int:
        """The payload's size in bytes: what the exporter asked for (`allocation_size` may be larger)."""
        return self.descriptor.payload_size

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    @property
    def record(self) -> MemoryRecord:
        """The references behind it (for the library itself), which `use` keeps. Raises HandleStateError once closed."""
        facts = self._facts
        if self._closed or isinstance(facts, Closed):
            raise HandleStateError(f"this memory ({self.what()}) is closed; allocate or open it again")
        return facts

    def use(self) -> Use[MemoryRecord]:
        """A block in which nothing of it is given back (for the library itself): `with memory.use() as record:`.

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
        """`size` bytes from `start` of the allocation, wherever the payload begins (for the library itself)."""
        record = self.record
        if record.pid != current_process.pid:
            record.check_process()
        with late_imports():
            from extmem.core import views  # with ctypes, which opening a device does not need

        return views.view_of_all(record, self._arrays)[start : start + size]

    def close(self) -> None:
        """Free it (vkFreeMemory). Safe to call twice. The payload lives on while any handle or other memory holds it.

        Where another thread uses it at this moment, that one frees it when it is done. Called again after it raised,
        it tries again.
        Errors: LiveViewError while an array or memoryview still looks at it; nothing has changed then. PeerGoneError
        where the object manager does not answer; memory and descriptors are given back then, the name is not yet.
        """
        if self._looked_at() and (not self._closed or self._left is not None):
            raise LiveViewError(
                f"an array or memoryview still looks at this memory ({self.what()}); "
                "delete it (or let it go out of scope) before closing, or copy what you need"
            )
        record = self._facts
        if isinstance(record, Closed):
            return
        # No call between the two, so no signal handler either: what is marked as closed, somebody gives back.
        here = get_ident()
        unsettled[record] = here
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
        if kind is not None and self._looked_at():
            # The error in flight holds the frame that holds the view; it matters more than the open memory.
            self._leave_to_the_view()
            return
        self.close()

    def _looked_at(self) -> bool:
        """Whether a memoryview or array over the memory is still alive."""
        return bool(self._arrays or self._gpu_holds)

    def _leave_to_the_view(self) -> None:
        """Let go; when the last view is lost, everything is given back."""
        record = self._facts
        if not isinstance(record, Closed):
            self._closed = True
            self._left = ref(record)
            self._hold.release()
            self._facts = record.closed_facts()

    def what(self) -> str:
        """Its name, if it has one, and its size, for messages (for the library itself)."""
        return f"{self.name!r}, " * (self.name is not None) + f"{self.size} bytes"

    def __del__(self) -> None:
        # It warns, and nothing more: what the memory holds gives itself back.
        if not getattr(self, "_closed", True) and not sys.is_finalizing() and not self._looked_at():
            # The source was made with it: a warning that is kept must not keep the memory open.
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self._arrays, stacklevel=2)
