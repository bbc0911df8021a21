"""The table of structs, commands and constants in scope, which are generated. Each group has its reason.

Enums, flags and handles are not listed, because they follow from the structs and commands that use them. To extend the
scope, add a C name here and run `python -m codegen`; it fails for a type that it cannot express.
"""

from __future__ import annotations

from codegen import scope_sync
from codegen.groups import FieldRule, Group
from codegen.groups import vk_names as _names

__all__ = ["COMMANDS", "CONSTANTS", "C_STRUCTS", "FIELD_RULES", "STRUCTS", "FieldRule", "Group"]


STRUCTS: tuple[Group, ...] = (
    Group(
        "Allocating, and the structs that may be chained to an allocation.",
        _names(
            """MemoryAllocateInfo ExportMemoryAllocateInfo MemoryDedicatedAllocateInfo MemoryDedicatedRequirements
            MemoryAllocateFlagsInfo MemoryOpaqueCaptureAddressAllocateInfo MemoryPriorityAllocateInfoEXT"""
        ),
    ),
    Group(
        "VK_KHR_external_memory_win32: NT handles, KMT handles and names.",
        _names(
            """ExportMemoryWin32HandleInfoKHR ImportMemoryWin32HandleInfoKHR MemoryGetWin32HandleInfoKHR
            MemoryWin32HandlePropertiesKHR"""
        ),
    ),
    Group(
        "VK_KHR_external_memory_fd and dma-buf.",
        _names("ImportMemoryFdInfoKHR MemoryGetFdInfoKHR MemoryFdPropertiesKHR"),
    ),
    Group(
        "VK_EXT_external_memory_host: every device can import host payloads.",
        _names(
            """ImportMemoryHostPointerInfoEXT MemoryHostPointerPropertiesEXT
            PhysicalDeviceExternalMemoryHostPropertiesEXT"""
        ),
    ),
    Group(
        "NV equivalents: rules forbid chaining them together with the KHR structs, so both must be available.",
        _names(
            """ExportMemoryAllocateInfoNV ExportMemoryWin32HandleInfoNV ImportMemoryWin32HandleInfoNV
            DedicatedAllocationMemoryAllocateInfoNV ExternalMemoryImageCreateInfoNV"""
        ),
    ),
    Group(
        "Querying what a device can export and import.",
        _names(
            """ExternalMemoryProperties PhysicalDeviceExternalBufferInfo ExternalBufferProperties
            PhysicalDeviceExternalImageFormatInfo ExternalImageFormatProperties PhysicalDeviceImageFormatInfo2
            ImageFormatProperties ImageFormatProperties2"""
        ),
    ),
    Group(
        "Buffers and images, which the rules on dedicated allocation and binding refer to.",
        _names(
            """ExternalMemoryBufferCreateInfo ExternalMemoryImageCreateInfo BufferCreateInfo BufferUsageFlags2CreateInfo
            ImageCreateInfo ImageSubresource SubresourceLayout ImageSubresourceRange Extent3D Offset3D
            MemoryRequirements MemoryRequirements2 BufferMemoryRequirementsInfo2 ImageMemoryRequirementsInfo2
            BindBufferMemoryInfo BindImageMemoryInfo"""
        ),
    ),
    Group(
        "VK_EXT_image_drm_format_modifier: images whose memory layout other drivers and other APIs understand.",
        _names(
            """DrmFormatModifierPropertiesEXT DrmFormatModifierPropertiesListEXT FormatProperties FormatProperties2
            PhysicalDeviceImageDrmFormatModifierInfoEXT ImageDrmFormatModifierListCreateInfoEXT
            ImageDrmFormatModifierExplicitCreateInfoEXT ImageDrmFormatModifierPropertiesEXT"""
        ),
    ),
    Group(
        "Mapping memory, and making writes visible.",
        _names("MemoryMapInfo MemoryUnmapInfo MemoryMapPlacedInfoEXT MappedMemoryRange"),
    ),
    Group(
        "Identity and memory of a device. The limits are part of the properties.",
        _names(
            """PhysicalDeviceIDProperties PhysicalDeviceProperties2 PhysicalDeviceProperties PhysicalDeviceLimits
            PhysicalDeviceSparseProperties PhysicalDeviceMemoryProperties PhysicalDeviceMemoryProperties2 MemoryType
            MemoryHeap"""
        ),
    ),
    Group(
        "Passing ownership of a payload between queues, devices and processes.",
        _names(
            """ImageMemoryBarrier ImageMemoryBarrier2 BufferMemoryBarrier BufferMemoryBarrier2
            Win32KeyedMutexAcquireReleaseInfoKHR ExternalMemoryAcquireUnmodifiedEXT"""
        ),
    ),
    Group(
        "Further parameters of the two pipeline barrier commands.",
        _names("MemoryBarrier MemoryBarrier2 DependencyInfo"),
    ),
    *scope_sync.STRUCTS,
)

C_STRUCTS: tuple[Group, ...] = (
    Group(
        "Starting a driver: filled and read by the Vulkan device only, directly in C memory.",
        _names(
            """ApplicationInfo InstanceCreateInfo ExtensionProperties QueueFamilyProperties PhysicalDeviceFeatures
            PhysicalDeviceFeatures2 DeviceQueueCreateInfo DeviceCreateInfo ConformanceVersion
            PhysicalDeviceDriverProperties"""
        ),
    ),
    Group(
        "Recording and submitting commands that copy a payload's bytes.",
        _names(
            """CommandPoolCreateInfo CommandBufferAllocateInfo CommandBufferInheritanceInfo CommandBufferBeginInfo
            BufferCopy ImageSubresourceLayers BufferImageCopy ClearColorValue"""
        ),
    ),
)
"""Declared for C only, with no class in `extmem.vk`."""

COMMANDS: tuple[Group, ...] = (
    Group(
        "Finding the driver and starting it.",
        (
            "vkGetInstanceProcAddr",
            "vkGetDeviceProcAddr",
            "vkEnumerateInstanceVersion",
            "vkEnumerateInstanceExtensionProperties",
            "vkCreateInstance",
            "vkDestroyInstance",
            "vkEnumeratePhysicalDevices",
            "vkGetPhysicalDeviceProperties",
            "vkGetPhysicalDeviceQueueFamilyProperties",
            "vkEnumerateDeviceExtensionProperties",
            "vkCreateDevice",
            "vkDestroyDevice",
            "vkGetDeviceQueue",
            "vkDeviceWaitIdle",
        ),
    ),
    Group(
        "Copying a payload's bytes.",
        (
            "vkCreateCommandPool",
            "vkDestroyCommandPool",
            "vkAllocateCommandBuffers",
            "vkFreeCommandBuffers",
            "vkBeginCommandBuffer",
            "vkEndCommandBuffer",
            "vkCmdFillBuffer",
            "vkCmdCopyBuffer",
            "vkCmdCopyBufferToImage",
            "vkCmdCopyImageToBuffer",
            "vkCmdClearColorImage",
        ),
    ),
    Group(
        "Allocating, mapping and flushing.",
        (
            "vkAllocateMemory",
            "vkFreeMemory",
            "vkMapMemory",
            "vkMapMemory2",
            "vkUnmapMemory",
            "vkUnmapMemory2",
            "vkFlushMappedMemoryRanges",
            "vkInvalidateMappedMemoryRanges",
        ),
    ),
    Group(
        "Exporting handles, and querying their properties.",
        (
            "vkGetMemoryWin32HandleKHR",
            "vkGetMemoryWin32HandlePropertiesKHR",
            "vkGetMemoryFdKHR",
            "vkGetMemoryFdPropertiesKHR",
            "vkGetMemoryHostPointerPropertiesEXT",
        ),
    ),
    Group(
        "Capability queries.",
        (
            "vkGetPhysicalDeviceExternalBufferProperties",
            "vkGetPhysicalDeviceImageFormatProperties2",
            "vkGetPhysicalDeviceFormatProperties2",
            "vkGetPhysicalDeviceProperties2",
            "vkGetPhysicalDeviceMemoryProperties2",
        ),
    ),
    Group(
        "Buffers and images.",
        (
            "vkCreateBuffer",
            "vkDestroyBuffer",
            "vkCreateImage",
            "vkDestroyImage",
            "vkGetBufferMemoryRequirements2",
            "vkGetImageMemoryRequirements2",
            "vkGetImageSubresourceLayout",
            "vkGetImageDrmFormatModifierPropertiesEXT",
            "vkBindBufferMemory",
            "vkBindImageMemory",
            "vkBindBufferMemory2",
            "vkBindImageMemory2",
        ),
    ),
    Group("Ownership transfer.", ("vkCmdPipelineBarrier", "vkCmdPipelineBarrier2")),
    *scope_sync.COMMANDS,
)

CONSTANTS: tuple[Group, ...] = (
    Group(
        "The queue families outside this device to and from which ownership is transferred.",
        ("VK_QUEUE_FAMILY_IGNORED", "VK_QUEUE_FAMILY_EXTERNAL", "VK_QUEUE_FAMILY_FOREIGN_EXT"),
    ),
    Group("The size of everything that follows an offset.", ("VK_WHOLE_SIZE",)),
    Group(
        "Sizes of arrays in the structs above.",
        (
            "VK_UUID_SIZE",
            "VK_LUID_SIZE",
            "VK_MAX_MEMORY_TYPES",
            "VK_MAX_MEMORY_HEAPS",
            "VK_MAX_PHYSICAL_DEVICE_NAME_SIZE",
            "VK_MAX_EXTENSION_NAME_SIZE",
            "VK_MAX_DRIVER_NAME_SIZE",
            "VK_MAX_DRIVER_INFO_SIZE",
        ),
    ),
)

FIELD_RULES: dict[tuple[str, str], FieldRule] = {
    ("VkExportMemoryWin32HandleInfoKHR", "dwAccess"): FieldRule(
        "access", "int", "0", "dw means DWORD, which Python does not need"
    ),
    ("VkExportMemoryWin32HandleInfoNV", "dwAccess"): FieldRule("access", "int", "0", "as in the KHR struct"),
    ("VkExportSemaphoreWin32HandleInfoKHR", "dwAccess"): FieldRule("access", "int", "0", "as for memory"),
    ("VkExportFenceWin32HandleInfoKHR", "dwAccess"): FieldRule("access", "int", "0", "as for memory"),
    ("VkImageCreateInfo", "mipLevels"): FieldRule("mip_levels", "int", "1", "an image has at least one level"),
    ("VkImageCreateInfo", "arrayLayers"): FieldRule("array_layers", "int", "1", "an image has at least one layer"),
    ("VkImageCreateInfo", "samples"): FieldRule(
        "samples",
        "SampleCountFlagBits | int",
        "SampleCountFlagBits.COUNT_1",
        "0 is not a sample count; every image has at least one sample",
    ),
    ("VkImportMemoryFdInfoKHR", "fd"): FieldRule(
        "fd",
        "SupportsInt",
        "-1",
        "also accepts an owned handle object; 0 would be standard input, -1 is not a file descriptor",
    ),
    ("VkImportSemaphoreFdInfoKHR", "fd"): FieldRule("fd", "SupportsInt", "-1", "as for memory; SYNC_FD defines -1"),
    ("VkImportFenceFdInfoKHR", "fd"): FieldRule("fd", "SupportsInt", "-1", "as for memory; SYNC_FD defines -1"),
}
