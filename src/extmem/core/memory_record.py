"""`MemoryRecord`: everything that this process holds for one vkAllocateMemory; it is released once.

::

    DeviceMemory ──┐
    DeviceMemory ──┼──> MemoryRecord ──> Allocation   (the backend's: owns or borrows the payload's fd; maps it)
    view (array) ──┘          └──────> references in the object manager

How this works. The specification's calls create one `DeviceMemory` for each `MemoryRecord`. `extmem.open` of a payload
that is open in this process already creates another `DeviceMemory` for the same record. Each of them has a hold on it
(`Held.hold`), and so has each view, each GPU array, each command that waits to be submitted, and each method while it
runs. `close()` marks the memory as closed and releases its hold; the last hold that is released releases everything.

Its parts are owners (`extmem.owning`). If a record is garbage-collected, its parts are too, and each of them releases
its own resource. What could not be released (the broker does not reply, an interrupt) stays owed: `owning.work_off` and
a second `close()` try again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from extmem import rules
from extmem.errors import HandleStateError, StaleSourceError
from extmem.handles.process_id import current_process
from extmem.owning import Held, late_imports
from extmem.sharing.kinds import PageRole
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

if TYPE_CHECKING:
    from collections.abc import Callable

    from extmem.core.companion_pages import CompanionPages
    from extmem.core.deferred import Dedicated, DeferredImport
    from extmem.core.device_state import DeviceState
    from extmem.devices.backend import Allocation
    from extmem.devices.host.control_page import ControlPage
    from extmem.manager import Manager, Reference
    from extmem.sharing.descriptor import Descriptor

__all__ = ["Closed", "HeldMemory", "Made", "Make", "MemoryRecord"]


class OwnedResource(Protocol):
    """The part of a buffer or image that a memory object needs to end it."""

    @property
    def closed(self) -> bool:
        """Return whether it is destroyed."""

    def close(self) -> None:
        """Destroy it."""


class Closed(msgspec.Struct, frozen=True):
    """The facts of closed memory. Its fields have the names of those of `MemoryRecord`."""

    device: DeviceState
    descriptor: Descriptor
    name: str | None
    size: int
    memory_type_index: int
    writable: bool


class MemoryRecord(Held):
    """The references behind one memory object. Not public; `DeviceMemory` is."""

    __slots__ = (
        "allocation",
        "companion",
        "control",
        "copied",
        "dedicated",
        "deferred",
        "descriptor",
        "device",
        "export_handle_types",
        "exported_nt_types",
        "identity",
        "import_handle_type",
        "kmt",
        "lookup_keys",
        "lazy_share",
        "manager",
        "memory_type_index",
        "moved",
        "name",
        "object_id",
        "pages",
        "pattern",
        "pid",
        "references",
        "resource",
        "share_reference",
        "size",
        "watch",
        "writable",
    )

    allocation: Allocation
    dedicated: rules.ResourceFacts | None
    resource: OwnedResource | None

    def __init__(
        self,
        device: DeviceState,
        allocation: Allocation | None,
        descriptor: Descriptor,
        size: int,
        memory_type_index: int,
        *,
        dedicated: rules.ResourceFacts | None = None,
        references: tuple[Reference, ...] = (),
        manager: Manager | None = None,
        name: str | None = None,
        object_id: int = 0,
        kmt: int = 0,
        import_handle_type: MemoryHandleType = NO_TYPES,
        writable: bool = True,
        export_handle_types: MemoryHandleType = NO_TYPES,
        identity: int = 0,
        pages: CompanionPages | None = None,
        deferred: DeferredImport | None = None,
    ) -> None:
        # Without `super()`: each open creates one.
        self._gate = bytearray(1)
        self.closing = False
        self.device = device
        self.deferred = deferred
        """The import, if it is yet to be made; `allocation`, `dedicated` and `resource` are missing until then."""
        if allocation is not None:
            self.allocation = allocation
            self.dedicated = dedicated
            self.resource = None
            """The buffer or image that it is dedicated to, if the high-level API made it: it ends with the memory."""
        self.descriptor = descriptor
        self.size = size
        self.memory_type_index = memory_type_index
        self.references = references
        """References in the object manager, the imported one first."""
        self.manager = manager
        self.name = name
        """The name that it was exported with or opened by, as a program passes it."""
        self.object_id = object_id
        self.kmt = kmt
        self.import_handle_type = import_handle_type
        self.writable = writable
        self.export_handle_types = export_handle_types
        self.exported_nt_types = NO_TYPES
        self.identity = identity
        """The `stated_identity` of the payload of an `FdHandle` of extmem; 0 if the allocation has it."""
        self.pages = pages
        """Its companion pages; None if it has none, or if it came without them (by fd)."""
        self.share_reference = 0
        """The number of the object that was exported with NT or KMT handles; 0 if there is none."""
        self.lazy_share = False
        """Whether an unnamed NT share is made when a handle is first requested."""
        self.lookup_keys: tuple[str | int, ...] = ()
        """The names and object numbers under which it is in `OpenPayloads`."""
        self.companion: Allocation | None = None
        """CUDA's import of the memory of a Vulkan device, for GPU arrays. It ends before the memory."""
        self.pattern: Any = None
        """The GPU array that the descriptor describes, after the first was made. It keeps nothing alive."""
        self.moved: Callable[[], str] | None = None
        """Returns how the tensor whose memory this is has got other memory since; empty if it has not. None for memory
        that no framework has lent.
        """
        self.copied: str | bool = False
        """Why `extmem.share` copied the contents; False if it did not, and for other memory."""
        self.control: ControlPage | None = None
        """Its control page, once it is used."""
        self.pid = current_process.pid
        self.watch: weakref.ref[Held] = weakref.ref(self, device.records.discard)
        """The reference by which the device tracks it."""
        device.records.add(self.watch)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Called for missing attributes alone: those of an import that is yet to be made.
            if name in ("allocation", "dedicated", "resource"):
                deferred = self.deferred
                if deferred is not None:
                    deferred.complete(self)
                return object.__getattribute__(self, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def imported_as(self, allocation: Allocation, dedicated: Dedicated | None) -> None:
        """Complete a deferred import. The record owns both from then on."""
        self.dedicated = dedicated.facts if dedicated is not None else None
        self.resource = dedicated
        self.allocation = allocation
        self.deferred = None

    def facts(self) -> rules.MemoryFacts:
        """Return the tracked state, as the rules take it."""
        return rules.MemoryFacts(
            size=self.size,
            memory_type_index=self.memory_type_index,
            export_handle_types=self.export_handle_types,
            import_handle_type=self.import_handle_type,
            dedicated=self.dedicated,
            device_uuid=self.device.uuid,
            exported_nt_types=self.exported_nt_types,
            device_identity=self.device.facts.identity,
        )

    def closed_facts(self) -> Closed:
        """Return the facts that remain after the memory is closed."""
        return Closed(self.device, self.descriptor, self.name, self.size, self.memory_type_index, self.writable)

    def gone(self) -> HandleStateError:
        """See `Held`."""
        if not self.closing:
            return HandleStateError("another thread freezes this memory at this moment; use it when that has returned")
        return HandleStateError("this memory was closed by another thread at this moment; allocate or open it again")

    def check_process(self) -> None:
        """Raise HandleStateError in a forked child, which does not own its parent's references."""
        if self.pid != current_process.pid:
            raise HandleStateError(
                f"this memory belongs to process {self.pid}, and this is its forked child {current_process.pid}; "
                "start children with spawn and pass the memory, or open its name again"
            )

    def check_source(self) -> None:
        """Raise StaleSourceError if the tensor that was shared has other memory now, so that its changes are not
        shared.
        """
        how = self.moved() if self.moved is not None else ""
        if how:
            raise StaleSourceError(
                f"this memory ({self.what()}) was shared from {how}; others see the memory that it had then. Share the "
                "tensor again, under another name or with replace=True"
            )

    def check_writable(self, verb: str) -> None:
        """Raise AccessDeniedError if this process may only read the memory."""
        if not self.writable:
            with late_imports():
                from extmem.objects import Status, error_for

            if self.is_frozen():
                why = "it was frozen, so nobody may write to it any more; share a copy"
            else:
                why = "it is read-only in this process; open it with Access.READ_WRITE, which its owner must grant"
            raise error_for(Status.ACCESS_DENIED, f"cannot {verb} this memory ({self.what()}): {why}")

    def is_frozen(self) -> bool:
        """Return whether nobody may write to it any more (`freezing`). False for memory that cannot be frozen."""
        if self.device.kind == "host":
            return bool(getattr(self.allocation, "frozen", False))  # of host memory alone
        pages = self.pages
        return pages is not None and PageRole.CONTROL in pages and pages.is_sealed(PageRole.CONTROL)

    def what(self) -> str:
        """Return its name, if any, and its payload's size, for messages."""
        return f"{self.name!r}, " * (self.name is not None) + f"{self.descriptor.payload_size} bytes"

    def give_back(self) -> None:
        """See `Held`. In a forked child, release only what the child owns."""
        self.device.open_payloads.forget(self)
        try:
            if self.pid == current_process.pid:
                for reference in self.references:
                    reference.give_back()
        finally:
            if self.companion is not None:
                self.companion.close()
            deferred = self.deferred
            if deferred is None and self.resource is not None:
                self.resource.close()
            self.control = None
            if self.pages is not None:
                self.pages.close()
            if deferred is None:
                self.allocation.close()
            else:
                deferred.payload.close()
        self.device.records.discard(self.watch)


class HeldMemory(NamedTuple):
    """The result of an operation: a record, and a hold on it, which the program's `DeviceMemory` takes over."""

    record: MemoryRecord
    hold: memoryview


Made = TypeVar("Made")
Make = Callable[[MemoryRecord, memoryview], Made]
"""Makes the program's object of a record and a hold on it. An operation that consumes an fd does so after this call, so
that no exception comes between the two.
"""
