"""What a physical device can share of semaphores and fences, with the object manager's handle types.

How this works. The driver is asked with the semaphore type in the query: some export binary semaphores and no
timelines. A type whose extension the device lacks has no features, and the driver is not asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.vulkan.handle_types import WIN32_IS_NATIVE
from extmem.devices.vulkan.sync_handle_types import OPAQUE_FD, OPAQUE_TYPES, as_driver_gets, sync_fd_of, widened
from extmem.vk.abi import ffi, from_c, to_c

if TYPE_CHECKING:
    from extmem.devices.vulkan.physical import PhysicalDevice
    from extmem.vk.handle_types import SyncHandleType

__all__ = [
    "fence_properties",
    "has_timelines",
    "max_timeline_difference",
    "semaphore_properties",
    "sync_extension_of",
]

_Semaphore = vk.ExternalSemaphoreHandleTypeFlagBits
_Fence = vk.ExternalFenceHandleTypeFlagBits
_NOT_OF_TIMELINES = int(_Semaphore.OPAQUE_WIN32_KMT)
"""Drivers of Windows crash when a timeline is exported by KMT number, whatever they answer."""
_TIMELINES = "VK_KHR_timeline_semaphore"
_VERSION_1_2 = 1 << 22 | 2 << 12
_UNLIMITED = (1 << 64) - 1


def sync_extension_of(handle_type: SyncHandleType | int, *, fence: bool) -> str:
    """Return the extension behind one handle type on this system; empty if no driver of this system has the type."""
    word = "fence" if fence else "semaphore"
    d3d12 = 0 if fence else int(_Semaphore.D3D12_FENCE)
    if WIN32_IS_NATIVE:
        native = OPAQUE_TYPES & ~OPAQUE_FD | d3d12
        return f"VK_KHR_external_{word}_win32" if handle_type & native else ""
    if handle_type & (OPAQUE_TYPES | sync_fd_of(fence=fence)):
        return f"VK_KHR_external_{word}_fd"
    return ""


def has_timelines(physical: PhysicalDevice) -> bool:
    """Return whether the device has timeline semaphores, which then need not be asked for as a feature."""
    return _TIMELINES in physical.extensions or physical.version >= _VERSION_1_2


def semaphore_properties(
    physical: PhysicalDevice, handle_type: SyncHandleType | int, *, timeline: bool
) -> vk.ExternalSemaphoreProperties:
    """vkGetPhysicalDeviceExternalSemaphoreProperties for binary semaphores or timelines. handle_type: one bit."""
    none = vk.ExternalSemaphoreProperties()
    if timeline and WIN32_IS_NATIVE and handle_type & _NOT_OF_TIMELINES:
        return none
    needed = sync_extension_of(handle_type, fence=False)
    if not needed or needed not in physical.extensions or (timeline and not has_timelines(physical)):
        return none
    kind = vk.SemaphoreType.TIMELINE if timeline else vk.SemaphoreType.BINARY
    chained = vk.SemaphoreTypeCreateInfo(semaphore_type=kind) if has_timelines(physical) else None
    query = to_c(
        vk.PhysicalDeviceExternalSemaphoreInfo(handle_type=_Semaphore(as_driver_gets(handle_type)), p_next=chained)
    )
    answer = to_c(none)
    physical.commands.vkGetPhysicalDeviceExternalSemaphoreProperties(physical.handle, query.cdata, answer.cdata)
    found = from_c(vk.ExternalSemaphoreProperties, answer)
    types = int(found.compatible_handle_types), int(found.export_from_imported_handle_types)
    if timeline:  # a copy of a timeline does not exist, whatever a driver answers
        without = sync_fd_of(fence=False) | (_NOT_OF_TIMELINES if WIN32_IS_NATIVE else 0)
        types = types[0] & ~without, types[1] & ~without
        if handle_type & sync_fd_of(fence=False):
            return none
    found.compatible_handle_types = _Semaphore(widened(types[0], handle_type))
    found.export_from_imported_handle_types = _Semaphore(widened(types[1], handle_type))
    return found


def fence_properties(physical: PhysicalDevice, handle_type: SyncHandleType | int) -> vk.ExternalFenceProperties:
    """vkGetPhysicalDeviceExternalFenceProperties. handle_type: one bit."""
    none = vk.ExternalFenceProperties()
    needed = sync_extension_of(handle_type, fence=True)
    if not needed or needed not in physical.extensions:
        return none
    query = to_c(vk.PhysicalDeviceExternalFenceInfo(handle_type=_Fence(as_driver_gets(handle_type))))
    answer = to_c(none)
    physical.commands.vkGetPhysicalDeviceExternalFenceProperties(physical.handle, query.cdata, answer.cdata)
    found = from_c(vk.ExternalFenceProperties, answer)
    found.compatible_handle_types = _Fence(widened(int(found.compatible_handle_types), handle_type))
    found.export_from_imported_handle_types = _Fence(widened(int(found.export_from_imported_handle_types), handle_type))
    return found


def max_timeline_difference(physical: PhysicalDevice) -> int:
    """Return maxTimelineSemaphoreValueDifference; without timelines of the driver, the limit of the host's."""
    if not has_timelines(physical):
        return _UNLIMITED
    chained = ffi.new(
        "VkPhysicalDeviceTimelineSemaphoreProperties *",
        (int(vk.StructureType.PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_PROPERTIES),),
    )
    query = to_c(vk.PhysicalDeviceProperties2())
    query.cdata.pNext = chained
    physical.commands.vkGetPhysicalDeviceProperties2(physical.handle, query.cdata)
    return int(chained.maxTimelineSemaphoreValueDifference)
