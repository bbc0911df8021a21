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

import msgspec

from extmem.core.sync_state import sync_states
from extmem.errors import HandleStateError
from extmem.handles.process_id import current_process
from extmem.objects import Status, error_for
from extmem.owning import Held
from extmem.rules.sync_facts import FenceFacts, SemaphoreFacts

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.devices.sync import NativeFence, NativeSemaphore
    from extmem.manager import Manager, Reference
    from extmem.sharing.descriptor.sync import SyncDescriptor
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["ClosedSync", "FenceRecord", "HeldSync", "SemaphoreRecord", "SharedPayload", "SyncRecord"]

_SIGNALED = 0x1
"""VK_FENCE_CREATE_SIGNALED_BIT."""
_NT_TYPES = 0x2 | 0x8
"""OPAQUE_WIN32, and D3D12_FENCE of semaphores (of fences, 0x8 is SYNC_FD, which copies)."""


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


class ClosedSync(msgspec.Struct, frozen=True):
    """The facts of a closed object. Its fields have the names of members of `SyncRecord` and `SemaphoreRecord`."""

    device: DeviceState
    descriptor: SyncDescriptor
    name: str | None
    writable: bool
    page: Any = None
    pid: int = 0
    pending: Any = None


class SyncRecord(Held):
    """The references behind one semaphore or fence. Not public; `Semaphore`, `Timeline` and `Fence` are."""

    __slots__ = (
        "device",
        "native",
        "page",
        "permanent",
        "pid",
        "state",
        "temporary",
        "watch",
        "word",
    )
    native: Any

    def __init__(self, device: DeviceState, native: Any, permanent: SharedPayload, word: str, state: int) -> None:
        super().__init__()
        self.device = device
        self.word = word
        """What messages call it: timeline, semaphore or fence."""
        self.state = state
        """Its number in `sync_states`, which knows the operations of this process on it."""
        self.native = native
        self.permanent = permanent
        self.page: Any = None
        """The page that is the payload of a timeline of the host, for the shortest way to it; None for others."""
        self.temporary: SharedPayload | None = None
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
        for one in replaced:
            if one is not None:
                one.give_back()

    def facts(self) -> SemaphoreFacts | FenceFacts:
        """Return the tracked state, as the rules take it. The device is asked for its value or status."""
        raise AssertionError(f"{type(self).__name__} defines facts")  # pragma: no cover

    def note_import(
        self,
        handle_type: SyncHandleType,
        export_types: SyncHandleType | None,
        *,
        temporary: bool,
        copied: bool,
        signaled: bool | None,
    ) -> None:
        """Record an import for the rules. export_types: of the payload's creator; None if unknown."""
        sync_states().imported(
            self.state,
            handle_type,
            temporary=temporary,
            copied=copied,
            signaled=signaled,
            timeline=self.descriptor.timeline,
            export_types=export_types,
            key=self.key,
        )

    def note_export(self, handle_type: SyncHandleType, *, copied: bool) -> None:
        """Record an export for the rules."""
        sync_states().exported(
            self.state, handle_type, copied=copied, nt=bool(handle_type & _NT_TYPES) and not copied, key=self.key
        )

    @property
    def key(self) -> object:
        """What identifies the payload in this process, for the rules; None if that is not known."""
        return self.payload.identity or self.native.stated_identity or None

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

    def check_writable(self) -> None:
        """Raise AccessDeniedError if this process may only wait for it."""
        if not self.payload.writable:
            raise error_for(
                Status.ACCESS_DENIED,
                f"cannot signal this {self.word} ({self.what()}): it was imported without the right to signal (0x2); "
                "open it with Access.READ_WRITE, which its owner must grant",
            )

    def gone(self) -> Exception:
        """See `Held`."""
        return HandleStateError(f"this {self.word} ({self.what()}) is closed; create or open it again")

    def what(self) -> str:
        """Return its name, if any, for messages."""
        return repr(self.name) if self.name is not None else "unnamed"

    def give_back(self) -> None:
        """See `Held`. In a forked child, release only what the child owns.

        The native object comes first: the page of a timeline has no user any more when the object manager learns that
        this process has closed it.
        """
        try:
            self.native.close()
        finally:
            if self.pid == current_process.pid:
                self.permanent.give_back()
                if self.temporary is not None:
                    self.temporary.give_back()
        sync_states().remove(self.state)
        self.device.sync_records.discard(self.watch)


class SemaphoreRecord(SyncRecord):
    """The record of a VkSemaphore."""

    __slots__ = ("companions", "pending", "timeline", "told_page")
    native: NativeSemaphore

    def __init__(
        self, device: DeviceState, native: NativeSemaphore, permanent: SharedPayload, name: str | None = None
    ) -> None:
        """name: for messages, of one that is about to be published."""
        self.timeline = native.timeline
        self.companions: dict[DeviceState, SemaphoreRecord] = {}
        """The imports of this payload into other devices, for their streams. They end before it."""
        self.told_page: Any = None
        """The page on which the end of a signaler is told: the payload, or the companion page of a driver's."""
        self.pending: set[object] = set()
        """The submissions of this process that wait for it or signal it, and are not done."""
        said = permanent.descriptor
        word = "timeline" if self.timeline else "semaphore"
        state = sync_states().add(
            f"the {word}" if name is None else f"the {word} {name!r}",
            timeline=self.timeline,
            initial_value=said.initial_value if self.timeline else 0,
            export_types=said.handle_types,
            flags=said.flags,
            device=device.facts.identity,
            external=name is not None,
        )
        super().__init__(device, native, permanent, word, state)
        self.find_page()
        self._name_page(name or permanent.name)

    def find_page(self) -> None:
        """Set `page` and `told_page`, of a new payload."""
        if not self.timeline:
            return
        native: Any = self.native
        self.told_page = getattr(getattr(native, "host_word", native), "page", None)
        self.page = self.told_page if not native.raw and hasattr(self.told_page, "raise_to") else None

    def _name_page(self, name: str | None) -> None:
        """Let the errors of waits name the timeline."""
        if self.told_page is not None and name is not None:
            self.told_page.label = f"the timeline {name!r}"

    def give_back(self) -> None:
        """See `Held`."""
        while self.companions:
            _, companion = self.companions.popitem()
            companion.end()
        super().give_back()

    def replace_payload(self, payload: SharedPayload, *, temporary: bool) -> None:
        """See `SyncRecord`."""
        self.find_page()
        self._name_page(payload.name)
        while self.companions:
            _, companion = self.companions.popitem()
            companion.end()
        super().replace_payload(payload, temporary=temporary)

    def facts(self) -> SemaphoreFacts:
        """Return the tracked state, as the rules take it. A timeline is asked for its value."""
        value = self.native.counter() if self.timeline else None
        return sync_states().semaphore(self.state, value) or SemaphoreFacts(self.timeline, alive=False)

    def note_export(self, handle_type: SyncHandleType, *, copied: bool) -> None:
        """See `SyncRecord`. A copying type acts as a wait: a temporary import ends."""
        super().note_export(handle_type, copied=copied)
        if copied:
            self.restore_payload()


class FenceRecord(SyncRecord):
    """The record of a VkFence."""

    __slots__ = ()
    native: NativeFence

    def __init__(self, device: DeviceState, native: NativeFence, permanent: SharedPayload, flags: int = 0) -> None:
        """flags: VkFenceCreateInfo::flags."""
        state = sync_states().add(
            "the fence",
            signaled=bool(flags & _SIGNALED),
            export_types=permanent.descriptor.handle_types,
            flags=flags,
            device=device.facts.identity,
        )
        super().__init__(device, native, permanent, "fence", state)

    def facts(self) -> FenceFacts:
        """Return the tracked state, as the rules take it. The device is asked for its status."""
        return sync_states().fence(self.state, self.native.status()) or FenceFacts(alive=False)


class HeldSync(NamedTuple):
    """The result of an operation: a record, and a hold on it, which the program's object takes over."""

    record: Any
    hold: memoryview
