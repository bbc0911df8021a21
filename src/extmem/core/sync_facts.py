"""What a device supports of semaphores and fences, as their rules take it; and the backend that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core.sync_arguments import check_struct
from extmem.devices.host.sync_capabilities import semaphore_properties as host_semaphore_properties
from extmem.devices.sync import SyncBackend
from extmem.errors import UnsupportedError
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState

__all__ = ["fence_properties", "semaphore_properties", "sync_backend", "sync_facts"]

_Semaphore = vk.ExternalSemaphoreHandleTypeFlagBits
_Fence = vk.ExternalFenceHandleTypeFlagBits
_SEMAPHORE_TYPES = (
    _Semaphore.OPAQUE_FD,
    _Semaphore.OPAQUE_WIN32,
    _Semaphore.OPAQUE_WIN32_KMT,
    _Semaphore.D3D12_FENCE,
    _Semaphore.SYNC_FD,
)
_FENCE_TYPES = (_Fence.OPAQUE_FD, _Fence.OPAQUE_WIN32, _Fence.OPAQUE_WIN32_KMT, _Fence.SYNC_FD)


def sync_backend(device: DeviceState) -> SyncBackend:
    """Return the backend as one that has semaphores and fences. Errors: UnsupportedError."""
    known = device.sync_backend
    if known is not None:
        return known
    backend = device.backend
    if not isinstance(backend, SyncBackend):
        raise UnsupportedError(
            f"{device.name} ({device.kind}) has no semaphores and fences; create them on the host device, which shares "
            "them with every other device",
            requires_one_of=["the host device"],
        )
    device.sync_backend = backend
    return backend


def sync_facts(device: DeviceState) -> rules.SyncDeviceFacts:
    """Return what the device supports. It is asked once, because the answers do not change."""
    facts = device.sync_facts
    if facts is None:
        backend = sync_backend(device)
        features = device.facts.features
        facts = rules.SyncDeviceFacts(
            device=device.facts,
            # A timeline of the host needs no feature of a driver.
            timeline_semaphore=backend.timelines == "host"
            or (features is not None and "timelineSemaphore" in features),
            max_timeline_difference=backend.max_timeline_difference,
            luid=device.identity.luid or b"",
            binary_types={int(one): _semaphore_answer(backend, one, timeline=False) for one in _SEMAPHORE_TYPES},
            timeline_types={int(one): _semaphore_answer(backend, one, timeline=True) for one in _SEMAPHORE_TYPES},
            fence_types={int(one): _fence_answer(backend, one) for one in _FENCE_TYPES},
        )
        device.sync_facts = facts
    return facts


def _semaphore_answer(backend: SyncBackend, handle_type: _Semaphore, *, timeline: bool) -> rules.ExternalSyncFacts:
    kind = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE if timeline else vk.SemaphoreType.BINARY)
    answer = _properties(backend, vk.PhysicalDeviceExternalSemaphoreInfo(handle_type, kind))
    return rules.ExternalSyncFacts(
        int(answer.external_semaphore_features),
        int(answer.export_from_imported_handle_types),
        int(answer.compatible_handle_types),
    )


def _properties(backend: SyncBackend, info: vk.PhysicalDeviceExternalSemaphoreInfo) -> vk.ExternalSemaphoreProperties:
    """Return the answer of the device; of the host, for the timelines of a device whose driver exports none."""
    kind = vk.find(info, vk.SemaphoreTypeCreateInfo)
    if backend.timelines == "host" and kind is not None and kind.semaphore_type == vk.SemaphoreType.TIMELINE:
        return host_semaphore_properties(info)
    return backend.external_semaphore_properties(info)


def _fence_answer(backend: SyncBackend, handle_type: _Fence) -> rules.ExternalSyncFacts:
    answer = backend.external_fence_properties(vk.PhysicalDeviceExternalFenceInfo(handle_type))
    return rules.ExternalSyncFacts(
        int(answer.external_fence_features),
        int(answer.export_from_imported_handle_types),
        int(answer.compatible_handle_types),
    )


def semaphore_properties(
    device: DeviceState, given: vk.PhysicalDeviceExternalSemaphoreInfo
) -> vk.ExternalSemaphoreProperties:
    """`Device.get_physical_device_external_semaphore_properties`."""
    info = copy_struct(given)
    command = "vkGetPhysicalDeviceExternalSemaphoreProperties"
    with device.use():
        backend = sync_backend(device)
        device.report(rules.check_external_semaphore_info(info), command)
        check_struct(device, info, vk.PhysicalDeviceExternalSemaphoreInfo, command, rules.check_external_semaphore_info)
        return _properties(backend, info)


def fence_properties(device: DeviceState, given: vk.PhysicalDeviceExternalFenceInfo) -> vk.ExternalFenceProperties:
    """`Device.get_physical_device_external_fence_properties`."""
    info = copy_struct(given)
    command = "vkGetPhysicalDeviceExternalFenceProperties"
    with device.use():
        backend = sync_backend(device)
        device.report(rules.check_external_fence_info(info), command)
        check_struct(device, info, vk.PhysicalDeviceExternalFenceInfo, command, rules.check_external_fence_info)
        return backend.external_fence_properties(info)
