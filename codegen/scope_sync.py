"""The structs and commands of semaphores, fences and submission, which `scope` includes."""

from __future__ import annotations

from codegen.groups import Group
from codegen.groups import vk_names as _names

__all__ = ["COMMANDS", "STRUCTS"]

STRUCTS: tuple[Group, ...] = (
    Group(
        "Creating semaphores and fences, and the structs that may be chained to it.",
        _names(
            """SemaphoreCreateInfo SemaphoreTypeCreateInfo ExportSemaphoreCreateInfo FenceCreateInfo
            ExportFenceCreateInfo"""
        ),
    ),
    Group(
        "VK_KHR_external_semaphore_win32 and VK_KHR_external_fence_win32.",
        _names(
            """ExportSemaphoreWin32HandleInfoKHR ImportSemaphoreWin32HandleInfoKHR SemaphoreGetWin32HandleInfoKHR
            D3D12FenceSubmitInfoKHR ExportFenceWin32HandleInfoKHR ImportFenceWin32HandleInfoKHR
            FenceGetWin32HandleInfoKHR"""
        ),
    ),
    Group(
        "VK_KHR_external_semaphore_fd and VK_KHR_external_fence_fd.",
        _names("ImportSemaphoreFdInfoKHR SemaphoreGetFdInfoKHR ImportFenceFdInfoKHR FenceGetFdInfoKHR"),
    ),
    Group(
        "Querying which semaphores and fences a device can export and import, and its timelines.",
        _names(
            """PhysicalDeviceExternalSemaphoreInfo ExternalSemaphoreProperties PhysicalDeviceExternalFenceInfo
            ExternalFenceProperties PhysicalDeviceTimelineSemaphoreFeatures PhysicalDeviceTimelineSemaphoreProperties
            PhysicalDeviceSynchronization2Features"""
        ),
    ),
    Group(
        "Operations of the host on timeline semaphores.",
        _names("SemaphoreWaitInfo SemaphoreSignalInfo"),
    ),
    Group(
        "Submitting work that waits for semaphores and signals them.",
        _names(
            """SubmitInfo SubmitInfo2 SemaphoreSubmitInfo CommandBufferSubmitInfo TimelineSemaphoreSubmitInfo
            DeviceGroupSubmitInfo"""
        ),
    ),
)

COMMANDS: tuple[Group, ...] = (
    Group(
        "Semaphores and fences, and operations of the host on them.",
        (
            "vkCreateSemaphore",
            "vkDestroySemaphore",
            "vkGetSemaphoreCounterValue",
            "vkWaitSemaphores",
            "vkSignalSemaphore",
            "vkCreateFence",
            "vkDestroyFence",
            "vkGetFenceStatus",
            "vkResetFences",
            "vkWaitForFences",
        ),
    ),
    Group(
        "Importing and exporting payloads of semaphores and fences.",
        (
            "vkImportSemaphoreFdKHR",
            "vkGetSemaphoreFdKHR",
            "vkImportSemaphoreWin32HandleKHR",
            "vkGetSemaphoreWin32HandleKHR",
            "vkImportFenceFdKHR",
            "vkGetFenceFdKHR",
            "vkImportFenceWin32HandleKHR",
            "vkGetFenceWin32HandleKHR",
        ),
    ),
    Group(
        "Capability queries of semaphores and fences.",
        (
            "vkGetPhysicalDeviceExternalSemaphoreProperties",
            "vkGetPhysicalDeviceExternalFenceProperties",
            "vkGetPhysicalDeviceFeatures2",
        ),
    ),
    Group(
        "Submitting work that waits for semaphores and signals semaphores and fences.",
        ("vkQueueSubmit", "vkQueueSubmit2", "vkQueueWaitIdle"),
    ),
)
