"""`SyncBackend`: what the layers above need of a device's semaphores and fences, in the specification's terms.

A device that has them implements this beside `Backend`, in a file `sync` of its own; callers find out by `isinstance`.
It creates semaphores and fences, moves payloads in and out of them, and submits work that waits for and signals them.
It has no part in names, the object manager or rules: its callers have checked each call. It still proves an fd enough
that a driver cannot be damaged by it.

How this works. A `NativeSemaphore` is one VkSemaphore, or what another device has for one: it *has* a payload, its
permanent one, or a temporary one until the next wait (a fence: until the next reset). `import_payload` replaces the
permanent payload or sets a temporary one. All objects that have one payload behave as one (reference transference),
except after an import of a copying type (SYNC_FD), which takes a snapshot.

Host waits are bounded by their callers, in slices, so that signal handlers run between two. A wait never holds a lock
that a signal needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.backend import Allocation, Recorder
    from extmem.devices.types import ExaminedFd
    from extmem.owning import Held, OwnedFd, Uses
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms
    from extmem.vk.handle_types import FenceHandleType, SemaphoreHandleType, SyncHandleType

__all__ = [
    "Batch",
    "FenceSpec",
    "NativeFence",
    "NativeSemaphore",
    "SemaphoreSignal",
    "SemaphoreSpec",
    "SemaphoreWait",
    "SyncBackend",
    "SyncSource",
]


class SemaphoreSpec(msgspec.Struct, frozen=True):
    """A semaphore to create (VkSemaphoreCreateInfo with its chain)."""

    timeline: bool
    """VK_SEMAPHORE_TYPE_TIMELINE; else binary."""
    initial_value: int = 0
    export_types: SemaphoreHandleType | int = 0
    """VkExportSemaphoreCreateInfo::handleTypes."""
    terms: ShareTerms | None = None
    """Name, security and rights, for devices that give them when the object is created (Windows)."""
    descriptor: bytes = b""
    """The self-description, for payloads that can contain one (host timelines)."""


class FenceSpec(msgspec.Struct, frozen=True):
    """A fence to create (VkFenceCreateInfo with its chain)."""

    signaled: bool = False
    export_types: FenceHandleType | int = 0
    terms: ShareTerms | None = None
    descriptor: bytes = b""


class SyncSource(msgspec.Struct, frozen=True):
    """A payload to import. Exactly one of fd, handle, name and payload says where it is.

    Ownership: everything is borrowed; `payload` is the object's from its success on. The device duplicates what its
    driver consumes, so that a failed import leaves the caller's fd open.
    """

    handle_type: SyncHandleType
    """One VkExternal(Semaphore|Fence)HandleTypeFlagBits, by the kind of the importing object."""
    temporary: bool = False
    """VK_…_IMPORT_TEMPORARY_BIT."""
    timeline: bool = False
    """Whether the payload is a timeline's, by its descriptor or, without one, by the importing object."""
    fd: ExaminedFd | None = None
    signaled: bool = False
    """SYNC_FD with fd -1: a payload that is signaled already."""
    handle: int = 0
    """An NT handle or a KMT number (drivers of Windows)."""
    name: str | None = None
    """A name for the driver (drivers of Windows)."""
    payload: PayloadFd | None = None
    """An import through the object manager, with its companion pages."""
    identity: int = 0
    """The `stated_identity` of the object that was shared; 0 where the kernel distinguishes payloads."""
    writable: bool = True
    """Whether the handle carries the right to signal (0x2)."""
    device_uuid: bytes | None = None
    """deviceUUID of the payload's device, by its descriptor; None for payloads of the host, or if it is not known."""
    luid: bytes | None = None
    """deviceLUID of that device, where its driver reports one."""
    device_name: str = ""
    """For error messages."""
    host: bool = False
    """Whether the payload is extmem's own (`SyncDescriptor.host`): a page or an event of the host."""


class NativeSync(Protocol):
    """What semaphores and fences of a device have in common. Ownership: until `close`."""

    @property
    def keeper(self) -> Held:
        """What an operation holds while it uses the object."""

    @property
    def raw(self) -> int:
        """The VkSemaphore or VkFence as a number; 0 for a device without a driver."""

    @property
    def fd(self) -> int | None:
        """The fd of the payload to share through the object manager, borrowed, exported at the first use; on Windows
        the HANDLE. None if it has none.
        """

    @property
    def pages(self) -> Sequence[Any]:
        """The companion pages of the payload (`sharing.payload.Page`): the host word of a driver's timeline."""

    @property
    def stated_identity(self) -> int:
        """The number that distinguishes the payload where the kernel does not; 0 where it does."""

    @property
    def temporary(self) -> bool:
        """Whether a temporary payload is in force."""

    def import_payload(self, source: SyncSource) -> None:
        """Import a payload. Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; OutOfMemoryError."""

    def export_fd(self, handle_type: SyncHandleType) -> OwnedFd | None:
        """Return a new fd of the current payload, owned by the caller; None for SYNC_FD's -1 ("signaled already").

        A copying type acts on the object: a wait of the semaphore, a reset of the fence.
        """

    def export_win32(self, handle_type: SyncHandleType) -> int:
        """Return an NT handle, owned by the caller, or a KMT number (drivers of Windows).

        Errors: UnsupportedError elsewhere.
        """

    def close(self) -> None:
        """Destroy it, once. Safe to call twice."""


class NativeSemaphore(NativeSync, Protocol):
    """A semaphore of a device."""

    @property
    def timeline(self) -> bool:
        """Whether it is a timeline semaphore."""

    def counter(self) -> int:
        """VkGetSemaphoreCounterValue: the value of a timeline."""

    def signal(self, value: int) -> None:
        """vkSignalSemaphore: set the value of a timeline on the host. Errors: AccessDeniedError without the right."""


class NativeFence(NativeSync, Protocol):
    """A fence of a device."""

    def status(self) -> bool:
        """vkGetFenceStatus: whether it is signaled."""

    def reset(self) -> None:
        """vkResetFences of this fence; ends a temporary import first (S10)."""


class SemaphoreWait(msgspec.Struct, frozen=True):
    """A semaphore that a batch waits for."""

    semaphore: NativeSemaphore
    value: int = 0
    """Of a timeline, or of a D3D12 fence."""
    stage_mask: int = 0x10000
    """VkPipelineStageFlags2 at which the wait happens; ALL_COMMANDS by default."""


class SemaphoreSignal(msgspec.Struct, frozen=True):
    """A semaphore that a batch signals when it is done."""

    semaphore: NativeSemaphore
    value: int = 0
    stage_mask: int = 0x10000


class Batch(msgspec.Struct):
    """One VkSubmitInfo or VkSubmitInfo2: waits, then commands, then signals."""

    waits: Sequence[SemaphoreWait] = ()
    record: Callable[[Recorder], None] | None = None
    """Records the commands; None for an empty batch, or for command buffers of the caller."""
    command_buffers: Sequence[int] = ()
    """VkCommandBuffers that other code recorded."""
    signals: Sequence[SemaphoreSignal] = ()
    owners: Sequence[tuple[Allocation, bool]] = ()
    """As in `Backend.submit`."""
    chain: Sequence[Any] = msgspec.field(default_factory=tuple)
    """Further structs of the pNext chain, resolved (VkWin32KeyedMutexAcquireReleaseInfoKHR, …D3D12FenceSubmitInfoKHR).
    """
    abandoned: bool = False
    """Set by the device before it ends the holds, or raises an error: it is not executed, because what it waits for is
    not going to happen, or because of an earlier submission.
    """


@runtime_checkable
class SyncBackend(Protocol):
    """A device with semaphores and fences."""

    @property
    def max_timeline_difference(self) -> int:
        """VkPhysicalDeviceTimelineSemaphoreProperties::maxTimelineSemaphoreValueDifference."""

    @property
    def timelines(self) -> str:
        """How timelines are shared: "driver" (exportable timelines of the driver), or "host" (a page of the host, for
        which queue waits and signals are bridged by the host).
        """

    @property
    def fences(self) -> str:
        """What the payloads of its fences are: "driver" for the driver's, or "host"."""

    def external_semaphore_properties(
        self, info: vk.PhysicalDeviceExternalSemaphoreInfo
    ) -> vk.ExternalSemaphoreProperties:
        """vkGetPhysicalDeviceExternalSemaphoreProperties, by the semaphore type in the chain; without bits if the type
        is unsupported. Never an error.
        """

    def external_fence_properties(self, info: vk.PhysicalDeviceExternalFenceInfo) -> vk.ExternalFenceProperties:
        """vkGetPhysicalDeviceExternalFenceProperties."""

    def create_semaphore(self, spec: SemaphoreSpec) -> NativeSemaphore:
        """vkCreateSemaphore. Errors: DriverError, OutOfMemoryError, UnsupportedError."""

    def create_fence(self, spec: FenceSpec) -> NativeFence:
        """vkCreateFence. Errors as `create_semaphore`."""

    def examine_sync_fd(
        self,
        fd: int,
        handle_type: SyncHandleType,
        *,
        fence: bool = False,
        timeline: bool = False,
        trusted: bool = False,
    ) -> ExaminedFd:
        """Return what an fd is, and whether it can be imported as this type; it is not changed.

        trusted: this library exported it for this user, so that no proof is made at its import; see
        `Backend.examine_fd`. A driver that an unproven fd damages is asked on a device of its own, at the import. Its
        `descriptor` is what the payload says of itself (host timelines).
        """

    def wait_semaphores(
        self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0
    ) -> bool:
        """vkWaitSemaphores of timelines: whether the values are reached within the time; 0 polls."""

    def wait_fences(self, fences: Sequence[NativeFence], *, any_of: bool = False, timeout_ns: int = 0) -> bool:
        """vkWaitForFences: whether all (or any) are signaled within the time; 0 polls."""

    def submit_batches(
        self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses, *, wait: bool = False
    ) -> None:
        """vkQueueSubmit: submit the batches, and return; with `wait`, wait until they are done.

        uses: what they use; held until they are done. fence: signaled when all are done. On a device without a queue
        (the host), waits block, commands run, and signals are done in the calling thread.
        Errors: DriverError (VK_TIMEOUT of a keyed mutex), OutOfMemoryError. After a DriverError of a device with a
        queue nothing was submitted. Without a queue, what comes before the operation that failed is done.
        """
