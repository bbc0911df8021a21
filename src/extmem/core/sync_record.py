"""`SyncRecord`: everything that this process holds for one VkSemaphore or VkFence; it is released once.

::

    Semaphore ──> SemaphoreRecord ──> NativeSemaphore   (the backend's: owns the VkSemaphore or the host's page)
                        ├───────────> SharedPayload     (the permanent payload: references in the object manager)
                        └───────────> SharedPayload     (a temporary one, until the next wait or reset)

How this works. A semaphore *has* a payload. An import replaces it, or sets a temporary one before it (S6 to S8). The
references in the object manager belong to the payload, and so they are released with it. The public object has a hold
on the record, and so has each call while it runs and each submission until it is done; the last hold that ends releases
everything, as for memory.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from extmem.errors import HandleStateError
from extmem.handles.process_id import current_process
from extmem.owning import Held

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.sync_state import FenceState, SemaphoreState
    from extmem.devices.sync import NativeFence, NativeSemaphore
    from extmem.manager import Manager, Reference
    from extmem.sharing.descriptor.sync import SyncDescriptor

__all__ = ["ClosedSync", "FenceRecord", "HeldSync", "SemaphoreRecord", "SharedPayload", "SyncRecord"]


class SharedPayload:
    """What is known of a payload, and this process's references to it in the object manager."""

    __slots__ = (
        "descriptor",
        "identity",
        "kmt",
        "lazy_share",
        "manager",
        "name",
        "object_id",
        "references",
        "share_reference",
        "writable",
    )

    def __init__(
        self,
        descriptor: SyncDescriptor,
        *,
        references: tuple[Reference, ...] = (),
        manager: Manager | None = None,
        name: str | None = None,
        object_id: int = 0,
        kmt: int = 0,
        identity: int = 0,
        writable: bool = True,
    ) -> None:
        self.descriptor = descriptor
        self.references = references
        """References in the object manager, the imported one first."""
        self.manager = manager
        self.name = name
        """The name that it was exported with or opened by, as a program passes it."""
        self.object_id = object_id
        self.kmt = kmt
        self.identity = identity
        """The `stated_identity` of the imported payload; 0 if the native object has it."""
        self.writable = writable
        """Whether this process may signal it."""
        self.share_reference = 0
        """The number of the object that was exported with NT or KMT handles; 0 if there is none."""
        self.lazy_share = False
        """Whether an unnamed NT share is made when a handle is first requested."""

    def give_back(self) -> None:
        """Release the references. Safe to repeat, also after an error."""
        for reference in self.references:
            reference.give_back()


class ClosedSync(NamedTuple):
    """The facts of a closed object. Its fields have the names of members of `SyncRecord`."""

    device: DeviceState
    descriptor: SyncDescriptor
    name: str | None
    writable: bool


class SyncRecord(Held):
    """The references behind one semaphore or fence. Not public; `Semaphore`, `Timeline` and `Fence` are."""

    __slots__ = (
        "device",
        "exported_nt_types",
        "lookup_keys",
        "native",
        "object_id",
        "permanent",
        "pid",
        "temporary",
        "watch",
        "word",
    )
    native: Any

    def __init__(self, device: DeviceState, native: Any, permanent: SharedPayload, word: str) -> None:
        super().__init__()
        self.device = device
        self.word = word
        """What messages call it: timeline, semaphore or fence."""
        self.object_id = permanent.object_id
        self.lookup_keys: tuple[str | int, ...] = ()
        """The names and object numbers under which it is in `OpenPayloads`."""
        self.native = native
        self.permanent = permanent
        self.temporary: SharedPayload | None = None
        self.exported_nt_types = 0
        """NT types that the specification's call has exported already."""
        self.pid = current_process.pid
        self.watch: weakref.ref[Held] = weakref.ref(self, device.sync_records.discard)
        """The reference by which the device tracks it."""
        device.sync_records.add(self.watch)

    @property
    def payload(self) -> SharedPayload:
        """The payload that is in force."""
        return self.temporary or self.permanent

    @property
    def descriptor(self) -> SyncDescriptor:
        """The descriptor of the payload in force."""
        return self.payload.descriptor

    @property
    def name(self) -> str | None:
        """The name of the payload in force."""
        return self.payload.name

    @property
    def writable(self) -> bool:
        """Whether this process may signal the payload in force."""
        return self.payload.writable

    def replace_payload(self, payload: SharedPayload, *, temporary: bool) -> None:
        """Record the result of an import, and release the references of the payload that it replaced."""
        replaced = [self.temporary]
        if temporary:
            self.temporary = payload
        else:
            replaced.append(self.permanent)
            self.permanent, self.temporary = payload, None
            self.exported_nt_types = 0
        for one in replaced:
            if one is not None:
                one.give_back()

    def restore_payload(self) -> None:
        """End a temporary import: after the submission of a wait (S7), or with a reset (S9)."""
        ended, self.temporary = self.temporary, None
        if ended is not None:
            ended.give_back()

    def closed_facts(self) -> ClosedSync:
        """Return the facts that remain after it is closed."""
        return ClosedSync(self.device, self.descriptor, self.name, self.writable)

    def check_process(self) -> None:
        """Raise HandleStateError in a forked child."""
        if self.pid != current_process.pid:
            raise HandleStateError(
                f"this {self.word} belongs to process {self.pid}, and this is its forked child {current_process.pid}; "
                f"start children with spawn and pass the {self.word}, or open its name again"
            )

    def gone(self) -> Exception:
        """See `Held`."""
        return HandleStateError(f"this {self.word} ({self.what()}) is closed; create or open it again")

    def what(self) -> str:
        """Return its name, if any, for messages."""
        return repr(self.name) if self.name is not None else "unnamed"

    def give_back(self) -> None:
        """See `Held`. In a forked child, release only what the child owns."""
        self.device.open_payloads.forget(self)
        try:
            if self.pid == current_process.pid:
                self.permanent.give_back()
                if self.temporary is not None:
                    self.temporary.give_back()
        finally:
            self.native.close()
        self.device.sync_records.discard(self.watch)


class SemaphoreRecord(SyncRecord):
    """The record of a VkSemaphore."""

    __slots__ = ("state", "timeline")
    native: NativeSemaphore

    def __init__(
        self, device: DeviceState, native: NativeSemaphore, permanent: SharedPayload, state: SemaphoreState
    ) -> None:
        self.timeline = native.timeline
        super().__init__(device, native, permanent, "timeline" if self.timeline else "semaphore")
        self.state = state
        """The operations of this process on it, as the rules need them."""


class FenceRecord(SyncRecord):
    """The record of a VkFence."""

    __slots__ = ("state",)
    native: NativeFence

    def __init__(self, device: DeviceState, native: NativeFence, permanent: SharedPayload, state: FenceState) -> None:
        super().__init__(device, native, permanent, "fence")
        self.state = state


class HeldSync(NamedTuple):
    """The result of an operation: a record, and a hold on it, which the program's object takes over."""

    record: Any
    hold: memoryview
