"""Which external handle types semaphores and fences of the host device can have. Pure.

As for memory (`capabilities`), every type is compatible with every other one, except that an NT handle and a KMT number
for one payload would need two kinds of share. SYNC_FD exists only as fd -1, of a payload that is signaled (S18), and
never for timelines (S2). On Windows a timeline has no KMT number (S63), as with drivers, and there are no fds.
"""

from __future__ import annotations

from extmem import vk
from extmem.devices.host.handle_types import HAS_FDS
from extmem.vk.handle_types import (
    FENCE_OPAQUE_FD,
    FENCE_OPAQUE_WIN32,
    FENCE_OPAQUE_WIN32_KMT,
    FENCE_SYNC_FD,
    SEMAPHORE_OPAQUE_FD,
    SEMAPHORE_OPAQUE_WIN32,
    SEMAPHORE_OPAQUE_WIN32_KMT,
    SEMAPHORE_SYNC_FD,
    FenceHandleType,
    SemaphoreHandleType,
)

__all__ = ["fence_properties", "semaphore_properties"]

_SemaphoreType = vk.ExternalSemaphoreHandleTypeFlagBits
_SemaphoreFeature = vk.ExternalSemaphoreFeatureFlagBits
_FenceType = vk.ExternalFenceHandleTypeFlagBits
_FenceFeature = vk.ExternalFenceFeatureFlagBits

_FD, _SYNC_FD = (int(SEMAPHORE_OPAQUE_FD), int(SEMAPHORE_SYNC_FD)) if HAS_FDS else (0, 0)
_BINARY = {
    SEMAPHORE_OPAQUE_FD: _FD | SEMAPHORE_OPAQUE_WIN32 | SEMAPHORE_OPAQUE_WIN32_KMT | _SYNC_FD,
    SEMAPHORE_OPAQUE_WIN32: SEMAPHORE_OPAQUE_WIN32 | _FD | _SYNC_FD,
    SEMAPHORE_OPAQUE_WIN32_KMT: SEMAPHORE_OPAQUE_WIN32_KMT | _FD | _SYNC_FD,
    SEMAPHORE_SYNC_FD: _SYNC_FD | _FD,
}
_TIMELINE = {
    SEMAPHORE_OPAQUE_FD: _FD | SEMAPHORE_OPAQUE_WIN32 | SEMAPHORE_OPAQUE_WIN32_KMT,
    SEMAPHORE_OPAQUE_WIN32: SEMAPHORE_OPAQUE_WIN32 | _FD,
    SEMAPHORE_OPAQUE_WIN32_KMT: SEMAPHORE_OPAQUE_WIN32_KMT | _FD if HAS_FDS else 0,
}
_FENCE_FD, _FENCE_SYNC_FD = (int(FENCE_OPAQUE_FD), int(FENCE_SYNC_FD)) if HAS_FDS else (0, 0)
_FENCE = {
    FENCE_OPAQUE_FD: _FENCE_FD | FENCE_OPAQUE_WIN32 | FENCE_OPAQUE_WIN32_KMT | _FENCE_SYNC_FD,
    FENCE_OPAQUE_WIN32: FENCE_OPAQUE_WIN32 | _FENCE_FD | _FENCE_SYNC_FD,
    FENCE_OPAQUE_WIN32_KMT: FENCE_OPAQUE_WIN32_KMT | _FENCE_FD | _FENCE_SYNC_FD,
    FENCE_SYNC_FD: _FENCE_SYNC_FD | _FENCE_FD,
}


def semaphore_properties(info: vk.PhysicalDeviceExternalSemaphoreInfo) -> vk.ExternalSemaphoreProperties:
    """See `SyncBackend.external_semaphore_properties`."""
    asked = SemaphoreHandleType(int(info.handle_type))
    chained = vk.find(info, vk.SemaphoreTypeCreateInfo)
    timeline = chained is not None and chained.semaphore_type == vk.SemaphoreType.TIMELINE
    compatible = (_TIMELINE if timeline else _BINARY).get(asked, 0)
    if not compatible & asked:
        return vk.ExternalSemaphoreProperties()
    again = compatible if HAS_FDS else 0
    return vk.ExternalSemaphoreProperties(
        export_from_imported_handle_types=_SemaphoreType(again),
        compatible_handle_types=_SemaphoreType(compatible),
        external_semaphore_features=_SemaphoreFeature.EXPORTABLE | _SemaphoreFeature.IMPORTABLE,
    )


def fence_properties(info: vk.PhysicalDeviceExternalFenceInfo) -> vk.ExternalFenceProperties:
    """See `SyncBackend.external_fence_properties`."""
    asked = FenceHandleType(int(info.handle_type))
    compatible = _FENCE.get(asked, 0)
    if not compatible & asked:
        return vk.ExternalFenceProperties()
    again = compatible if HAS_FDS else 0
    return vk.ExternalFenceProperties(
        export_from_imported_handle_types=_FenceType(again),
        compatible_handle_types=_FenceType(compatible),
        external_fence_features=_FenceFeature.EXPORTABLE | _FenceFeature.IMPORTABLE,
    )
