"""Facts for the rules of semaphores and fences: a device, objects and payloads; and functions that make a call."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import (
    ExternalSyncFacts,
    FenceFacts,
    GetSyncFacts,
    ImportSyncFacts,
    SemaphoreFacts,
    SyncDeviceFacts,
    SyncPayloadFacts,
    SyncRefusal,
    Violation,
)
from tests.rules.world import CLOSED, DRIVER_UUID, GPU, GPU_UUID, link

S = vk.ExternalSemaphoreHandleTypeFlagBits
F = vk.ExternalFenceHandleTypeFlagBits
TEMPORARY = 1
EXPORTABLE, IMPORTABLE = 1, 2
LUID, OTHER_LUID = b"\x01" * 8, b"\x02" * 8


def can(features: int, *types: int, compatible: int = 0, again: int = 0) -> Any:
    """Return answers for these types: features, compatible types, types of imports that they are exported from."""
    mask = compatible
    for kind in types:
        mask |= int(kind)
    return {int(kind): ExternalSyncFacts(features, again, mask) for kind in types}


BOTH = EXPORTABLE | IMPORTABLE
DEVICE = SyncDeviceFacts(
    GPU,
    timeline_semaphore=True,
    max_timeline_difference=1 << 31,
    luid=LUID,
    binary_types=can(BOTH, *S, again=int(sum(S))),
    timeline_types=can(BOTH, S.OPAQUE_FD, S.OPAQUE_WIN32, S.D3D12_FENCE) | can(0, S.SYNC_FD, S.OPAQUE_WIN32_KMT),
    fence_types=can(BOTH, *F, again=int(sum(F))),
)
CLOSED_DEVICE = replace(DEVICE, device=CLOSED)
PLAIN_DEVICE = replace(DEVICE, timeline_semaphore=False)
BINARY, TIMELINE = SemaphoreFacts(False, "semaphore 1"), SemaphoreFacts(True, "timeline 1")
FENCE = FenceFacts("fence 1")
NOT_FOUND = SyncRefusal("STATUS_OBJECT_NAME_NOT_FOUND", "no live object is named 'frames'.")
WRONG_TYPE = SyncRefusal("STATUS_OBJECT_TYPE_MISMATCH", "0x1c refers to shared memory.")


def timeline(value: Any = 0, p_next: Any = None) -> vk.SemaphoreTypeCreateInfo:
    """The type of a timeline semaphore."""
    return vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE, value, p_next)


def create(*chain: Any, flags: Any = 0, facts: SyncDeviceFacts = DEVICE) -> list[Violation]:
    """Create a semaphore with this chain."""
    return rules.check_create_semaphore(vk.SemaphoreCreateInfo(flags, link(*chain)), facts)


def create_fence(*chain: Any, flags: Any = 0, facts: SyncDeviceFacts = DEVICE) -> list[Violation]:
    """Create a fence with this chain."""
    return rules.check_create_fence(vk.FenceCreateInfo(flags, link(*chain)), facts)


def ask(handle_type: Any = S.OPAQUE_FD, *chain: Any) -> list[Violation]:
    """Query whether semaphores can be shared as this type."""
    return rules.check_external_semaphore_info(vk.PhysicalDeviceExternalSemaphoreInfo(handle_type, link(*chain)))


def ask_fence(handle_type: Any = F.OPAQUE_FD, *chain: Any) -> list[Violation]:
    """Query whether fences can be shared as this type."""
    return rules.check_external_fence_info(vk.PhysicalDeviceExternalFenceInfo(handle_type, link(*chain)))


def payload(kinds: int = S.OPAQUE_FD | S.OPAQUE_WIN32, timeline: bool | None = False, **facts: Any) -> SyncPayloadFacts:
    """A payload that a semaphore of GPU 0 exported; `facts` replace those of its descriptor."""
    defaults: dict[str, Any] = {"flags": 0, "device_uuid": GPU_UUID, "driver_uuid": DRIVER_UUID}
    return SyncPayloadFacts("semaphore", int(kinds), timeline, **{**defaults, **facts})


def of_fence(kinds: int = F.OPAQUE_FD | F.OPAQUE_WIN32, **facts: Any) -> SyncPayloadFacts:
    """A payload that a fence of GPU 0 exported."""
    return replace(payload(), object_kind="fence", handle_types=int(kinds), timeline=None, flags=None, **facts)


def of_direct3d(luid: bytes) -> SyncPayloadFacts:
    """A Direct3D 12 fence of the adapter with this LUID."""
    return SyncPayloadFacts("semaphore", int(S.D3D12_FENCE), luid=luid, made_by_vulkan=False)


def _facts(into: Any, device: SyncDeviceFacts, known: Any, refusal: Any) -> ImportSyncFacts:
    return ImportSyncFacts(device, into, known, refusal)


def import_fd(
    kind: Any = S.OPAQUE_FD,
    flags: Any = 0,
    *,
    number: Any = 7,
    p_next: Any = None,
    into: SemaphoreFacts = BINARY,
    device: SyncDeviceFacts = DEVICE,
    known: SyncPayloadFacts | None = None,
) -> list[Violation]:
    """Import an fd into a semaphore."""
    info = vk.ImportSemaphoreFdInfoKHR(1, flags, kind, number, p_next)
    return rules.check_import_semaphore_fd(info, _facts(into, device, known, None))


def import_fence_fd(
    kind: Any = F.OPAQUE_FD,
    flags: Any = 0,
    *,
    number: Any = 7,
    p_next: Any = None,
    into: FenceFacts = FENCE,
    device: SyncDeviceFacts = DEVICE,
    known: SyncPayloadFacts | None = None,
) -> list[Violation]:
    """Import an fd into a fence."""
    info = vk.ImportFenceFdInfoKHR(1, flags, kind, number, p_next)
    return rules.check_import_fence_fd(info, _facts(into, device, known, None))


def import_win32(
    kind: Any = S.OPAQUE_WIN32,
    flags: Any = 0,
    *,
    handle: Any = None,
    name: Any = None,
    p_next: Any = None,
    into: SemaphoreFacts = BINARY,
    device: SyncDeviceFacts = DEVICE,
    known: SyncPayloadFacts | None = None,
    refusal: SyncRefusal | None = None,
) -> list[Violation]:
    """Import an NT handle, a KMT number or a name into a semaphore."""
    info = vk.ImportSemaphoreWin32HandleInfoKHR(1, flags, kind, handle, name, p_next)
    return rules.check_import_semaphore_win32_handle(info, _facts(into, device, known, refusal))


def import_fence_win32(
    kind: Any = F.OPAQUE_WIN32,
    flags: Any = 0,
    *,
    handle: Any = None,
    name: Any = None,
    p_next: Any = None,
    into: FenceFacts = FENCE,
    device: SyncDeviceFacts = DEVICE,
    known: SyncPayloadFacts | None = None,
    refusal: SyncRefusal | None = None,
) -> list[Violation]:
    """Import an NT handle, a KMT number or a name into a fence."""
    info = vk.ImportFenceWin32HandleInfoKHR(1, flags, kind, handle, name, p_next)
    return rules.check_import_fence_win32_handle(info, _facts(into, device, known, refusal))


_SIGNALED: dict[str, Any] = {"signaled": True}


def get_fd(
    kind: Any = S.OPAQUE_FD, *, device: SyncDeviceFacts = DEVICE, p_next: Any = None, **facts: Any
) -> list[Violation]:
    """Export an fd of a signaled semaphore that was created for it; `facts` replace those of the semaphore."""
    known = {"export_types": int(S.OPAQUE_FD | S.SYNC_FD), **_SIGNALED, **facts}
    source = replace(BINARY, **known)
    return rules.check_get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(1, kind, p_next), GetSyncFacts(device, source))


def get_win32(
    kind: Any = S.OPAQUE_WIN32, *, device: SyncDeviceFacts = DEVICE, p_next: Any = None, **facts: Any
) -> list[Violation]:
    """Export a Win32 handle of a semaphore that was created for it."""
    source = replace(BINARY, **{"export_types": int(S.OPAQUE_WIN32 | S.OPAQUE_WIN32_KMT), **facts})
    info = vk.SemaphoreGetWin32HandleInfoKHR(1, kind, p_next)
    return rules.check_get_semaphore_win32_handle(info, GetSyncFacts(device, source))


def get_fence_fd(
    kind: Any = F.OPAQUE_FD, *, device: SyncDeviceFacts = DEVICE, p_next: Any = None, **facts: Any
) -> list[Violation]:
    """Export an fd of a signaled fence that was created for it."""
    source = replace(FENCE, **{"export_types": int(F.OPAQUE_FD | F.SYNC_FD), **_SIGNALED, **facts})
    return rules.check_get_fence_fd(vk.FenceGetFdInfoKHR(1, kind, p_next), GetSyncFacts(device, source))


def get_fence_win32(
    kind: Any = F.OPAQUE_WIN32, *, device: SyncDeviceFacts = DEVICE, p_next: Any = None, **facts: Any
) -> list[Violation]:
    """Export a Win32 handle of a fence that was created for it."""
    source = replace(FENCE, **{"export_types": int(F.OPAQUE_WIN32 | F.OPAQUE_WIN32_KMT), **facts})
    info = vk.FenceGetWin32HandleInfoKHR(1, kind, p_next)
    return rules.check_get_fence_win32_handle(info, GetSyncFacts(device, source))
