"""Facts of semaphores and fences: what their rules need besides the structs of the call.

How this works. The rules are pure. `core.sync_state` records what this process did with a semaphore or fence, and makes
`SemaphoreFacts` and `FenceFacts` of it; the device is asked for counters and for the status of fences. Another process
may use a shared payload at the same time, and what it has submitted is unknown here. Therefore a fact that depends on
it is None, and the rules that need it report nothing: valid usage binds a process's own operations.

The *current payload* is the imported one while an import is in force. Its creator is the semaphore or fence that it was
exported from, which decides the export types and the semaphore type of the payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from extmem.rules.device_facts import DeviceFacts
from extmem.vk.handle_types import FenceHandleType, SemaphoreHandleType, SyncHandleType

__all__ = [
    "BatchFacts",
    "ExternalSyncFacts",
    "FenceFacts",
    "GetSyncFacts",
    "ImportSyncFacts",
    "SemaphoreFacts",
    "SubmitFacts",
    "SyncDeviceFacts",
    "SyncPayloadFacts",
    "SyncRefusal",
    "Unsubmitted",
]


class ExternalSyncFacts(msgspec.Struct, frozen=True):
    """VkExternalSemaphoreProperties or VkExternalFenceProperties, as the device reports them for one handle type."""

    features: int
    """VkExternalSemaphoreFeatureFlags or VkExternalFenceFeatureFlags: 1 exportable, 2 importable."""
    export_from_imported: int
    compatible: int


class SyncDeviceFacts(msgspec.Struct, frozen=True):
    """A logical device, and what it supports of semaphores and fences."""

    device: DeviceFacts
    timeline_semaphore: bool | None = None
    """Whether the feature timelineSemaphore was enabled; None if unknown."""
    max_timeline_difference: int | None = None
    """maxTimelineSemaphoreValueDifference; None if unknown."""
    luid: bytes = b""
    """The adapter's locally unique id (8 bytes), which Direct3D identifies it by; empty if there is none."""
    binary_types: Mapping[int, ExternalSyncFacts] = msgspec.field(default_factory=dict)
    """What the device reports for binary semaphores, by handle type bit; unasked types are absent."""
    timeline_types: Mapping[int, ExternalSyncFacts] = msgspec.field(default_factory=dict)
    """The same for timeline semaphores: asked with VkSemaphoreTypeCreateInfo in the query's chain."""
    fence_types: Mapping[int, ExternalSyncFacts] = msgspec.field(default_factory=dict)
    """The same for fences."""

    def semaphore_types(self, timeline: bool) -> Mapping[int, ExternalSyncFacts]:
        """Return what the device reports for semaphores of this type."""
        return self.timeline_types if timeline else self.binary_types

    @property
    def group_size(self) -> int:
        """Number of physical devices in the logical device."""
        return len(self.device.device_group) or 1


class Unsubmitted(msgspec.Struct, frozen=True):
    """A signal operation that a submitted operation depends on, and that nothing submitted here performs."""

    name: str
    """The semaphore, as messages name it."""
    value: int
    """The value that a submitted wait needs; 0 for a binary semaphore."""


class SemaphoreFacts(msgspec.Struct, frozen=True):
    """A tracked VkSemaphore and its current payload, as far as this process knows."""

    timeline: bool
    """Whether it was created as VK_SEMAPHORE_TYPE_TIMELINE."""
    name: str = "the semaphore"
    """Its name in messages."""
    identity: int = 0
    """Number that is unique among the semaphores of one process; 0 if unknown."""
    alive: bool = True
    device_identity: int = 0
    """The `identity` of the device that it was created on; 0 if unknown."""
    flags: int = 0
    """VkSemaphoreCreateInfo::flags."""

    export_types: SemaphoreHandleType | int | None = 0
    """Handle types that the creator of the current payload was created with; None if unknown (no descriptor)."""
    import_type: SemaphoreHandleType | int = 0
    """Handle type by which the current payload was imported; 0 for its own payload."""
    temporary: bool = False
    """Whether the current payload is a temporary one."""
    exported_nt_types: SemaphoreHandleType | int = 0
    """NT handle types that vkGetSemaphoreWin32HandleKHR was already called with for the current payload."""
    external: bool = False
    """Whether others can signal or wait for the payload: it was exported or imported with reference transference."""

    in_use: bool = False
    """Whether an unfinished submission of this process refers to it."""
    waiting_queue: int | None = None
    """The queue of this process (any number that identifies it) with an unfinished wait for it; None if none has."""

    signaled: bool | None = False
    """Binary: whether a signal was submitted (or came with an import) that no submitted wait has consumed.

    None if unknown: the payload is external, and another process may have signaled it or waited for it.
    """
    unsubmitted: tuple[Unsubmitted, ...] = ()
    """Binary: signal operations that its submitted signal depends on, and that are not submitted.

    Empty if all are submitted, or if others can perform them (external payloads).
    """

    value: int | None = None
    """Timeline: the counter at the time of the call (a device query); None if unknown."""
    pending_signals: tuple[tuple[int, int], ...] = ()
    """Timeline: (queue, value) of each unfinished signal operation of this process, in the order of submission."""
    pending_waits: tuple[tuple[int, int], ...] = ()
    """Timeline: (queue, value) of each unfinished wait operation of this process' queues."""


class FenceFacts(msgspec.Struct, frozen=True):
    """A tracked VkFence and its current payload, as far as this process knows."""

    name: str = "the fence"
    """Its name in messages."""
    identity: int = 0
    """Number that is unique among the fences of one process; 0 if unknown."""
    alive: bool = True
    device_identity: int = 0
    """The `identity` of the device that it was created on; 0 if unknown."""
    flags: int = 0
    """VkFenceCreateInfo::flags."""

    export_types: FenceHandleType | int | None = 0
    """Handle types that the creator of the current payload was created with; None if unknown (no descriptor)."""
    import_type: FenceHandleType | int = 0
    """Handle type by which the current payload was imported; 0 for its own payload."""
    temporary: bool = False
    """Whether the current payload is a temporary one."""
    exported_nt_types: FenceHandleType | int = 0
    """NT handle types that vkGetFenceWin32HandleKHR was already called with for the current payload."""
    external: bool = False
    """Whether others can signal or reset the payload."""

    pending: bool = False
    """Whether an unfinished submission of this process is to signal it."""
    signaled: bool | None = False
    """Its status at the time of the call (a device query where the payload is external); None if unknown."""


class SyncPayloadFacts(msgspec.Struct, frozen=True):
    """What the descriptor of a payload to import says; None if it does not say."""

    object_kind: Literal["semaphore", "fence"]
    handle_types: SyncHandleType | int
    """Handle types that its creator was created with (SemaphoreHandleType or FenceHandleType by `object_kind`)."""
    timeline: bool | None = None
    """Whether a timeline semaphore exported it. None if unknown, and for fences of Direct3D, which have no type."""
    flags: int | None = None
    """Create flags of the exporter (VkSemaphoreCreateInfo::flags)."""
    device_uuid: bytes | None = None
    driver_uuid: bytes | None = None
    luid: bytes | None = None
    made_by_vulkan: bool = True
    """False for payloads of other producers (Direct3D fences, sync_files of the kernel)."""
    signaled: bool | None = None
    """Whether a copied payload (SYNC_FD) is signaled or will be."""
    device_name: str = ""
    """Name of the exporter's device, for messages only."""


class SyncRefusal(msgspec.Struct, frozen=True):
    """Why a handle, name or number could not be resolved: the NTSTATUS name and the object manager's message."""

    status: str
    detail: str


class ImportSyncFacts(msgspec.Struct):
    """All facts of vkImport(Semaphore|Fence)(Fd|Win32Handle)KHR besides its struct."""

    device: SyncDeviceFacts
    target: SemaphoreFacts | FenceFacts
    """The semaphore or fence that gets the payload."""
    payload: SyncPayloadFacts | None = None
    """The payload; None if it was not resolved, or has no descriptor."""
    refusal: SyncRefusal | None = None
    """Why it could not be resolved; None if it was resolved or not tried."""
    fd_is_valid: bool | None = None
    """Whether the fd is open and of the handle type; None if not determined."""


class GetSyncFacts(msgspec.Struct):
    """All facts of vkGet(Semaphore|Fence)(Fd|Win32Handle)KHR besides its struct."""

    device: SyncDeviceFacts
    source: SemaphoreFacts | FenceFacts
    """The semaphore or fence whose payload is exported."""


class BatchFacts(msgspec.Struct, frozen=True):
    """The semaphores of one VkSubmitInfo or VkSubmitInfo2, each in the order of the struct's lists.

    The facts of each are as of the turn of its operation: after the batches before this one, after the operations
    before it in its list, and for a signal after the waits of the batch. None for a semaphore of other code, about
    which nothing is known.
    """

    waits: tuple[SemaphoreFacts | None, ...] = ()
    signals: tuple[SemaphoreFacts | None, ...] = ()


class SubmitFacts(msgspec.Struct):
    """All facts of vkQueueSubmit and vkQueueSubmit2 besides their structs."""

    device: SyncDeviceFacts
    queue: int = 0
    """The queue: any number that identifies it among the queues of this process."""
    batches: tuple[BatchFacts, ...] = ()
    """One for each submit info."""
    fence: FenceFacts | None = None
    """The fence of the submission; None without one, or if nothing is known about it."""
    mutexes: Mapping[int, tuple[object, ...]] = msgspec.field(default_factory=dict)
    """By the index of a batch: facts of the memories of its VkWin32KeyedMutexAcquireReleaseInfoKHR
    (`rules.MemoryFacts` or None), the acquired ones first.
    """
