"""Types of the fields of the structs of semaphores and fences (see `_field_types`).

Where the specification has no rule for a single field, a value of another type breaks the rule of the command that the
struct is well-formed.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._field_types import FieldTypes, is_fd, is_handle, is_security, is_text, is_u32, is_u64, register

__all__: list[str] = []

_CREATE_SEMAPHORE = "VUID-vkCreateSemaphore-pCreateInfo-parameter"
_CREATE_FENCE = "VUID-vkCreateFence-pCreateInfo-parameter"
_QUERY = "VUID-vkGetPhysicalDeviceExternal{0}Properties-pExternal{0}Info-parameter"


def _import_fd(word: str) -> FieldTypes:
    struct = f"VUID-VkImport{word}FdInfoKHR-"
    return (
        (word.lower(), is_handle, f"{struct}{word.lower()}-parameter"),
        ("flags", is_u32, f"{struct}flags-parameter"),
        ("handle_type", is_u32, f"{struct}handleType-parameter"),
        ("fd", is_fd, f"VUID-vkImport{word}FdKHR-pImport{word}FdInfo-parameter"),
    )


def _import_win32(word: str, type_rule: str, handle: str, name: str) -> FieldTypes:
    struct = f"VUID-VkImport{word}Win32HandleInfoKHR-"
    return (
        (word.lower(), is_handle, f"{struct}{word.lower()}-parameter"),
        ("flags", is_u32, f"{struct}flags-parameter"),
        ("handle_type", is_u32, f"{struct}{type_rule}"),
        ("handle", is_handle, f"{struct}{handle}"),
        ("name", is_text, f"{struct}{name}"),
    )


def _get(word: str, form: str) -> FieldTypes:
    struct = f"VUID-Vk{word}Get{form}InfoKHR-"
    return (
        (word.lower(), is_handle, f"{struct}{word.lower()}-parameter"),
        ("handle_type", is_u32, f"{struct}handleType-parameter"),
    )


def _export_win32(word: str) -> FieldTypes:
    chain = f"VUID-Vk{word}CreateInfo-pNext-pNext"
    return (
        ("attributes", is_security, f"VUID-VkExport{word}Win32HandleInfoKHR-pAttributes-parameter"),
        ("access", is_u32, chain),
        ("name", is_text, chain),
    )


register(
    {
        vk.SemaphoreCreateInfo: (("flags", is_u32, "VUID-VkSemaphoreCreateInfo-flags-zerobitmask"),),
        vk.SemaphoreTypeCreateInfo: (
            ("semaphore_type", is_u32, "VUID-VkSemaphoreTypeCreateInfo-semaphoreType-parameter"),
            ("initial_value", is_u64, _CREATE_SEMAPHORE),
        ),
        vk.ExportSemaphoreCreateInfo: (
            ("handle_types", is_u32, "VUID-VkExportSemaphoreCreateInfo-handleTypes-parameter"),
        ),
        vk.ExportSemaphoreWin32HandleInfoKHR: _export_win32("Semaphore"),
        vk.ImportSemaphoreFdInfoKHR: _import_fd("Semaphore"),
        vk.ImportSemaphoreWin32HandleInfoKHR: _import_win32(
            "Semaphore", "handleType-01140", "handleType-01468", "handleType-01467"
        ),
        vk.SemaphoreGetFdInfoKHR: _get("Semaphore", "Fd"),
        vk.SemaphoreGetWin32HandleInfoKHR: _get("Semaphore", "Win32Handle"),
        vk.PhysicalDeviceExternalSemaphoreInfo: (
            ("handle_type", is_u32, "VUID-VkPhysicalDeviceExternalSemaphoreInfo-handleType-parameter"),
        ),
        vk.FenceCreateInfo: (("flags", is_u32, "VUID-VkFenceCreateInfo-flags-parameter"),),
        vk.ExportFenceCreateInfo: (("handle_types", is_u32, "VUID-VkExportFenceCreateInfo-handleTypes-parameter"),),
        vk.ExportFenceWin32HandleInfoKHR: _export_win32("Fence"),
        vk.ImportFenceFdInfoKHR: _import_fd("Fence"),
        vk.ImportFenceWin32HandleInfoKHR: _import_win32(
            "Fence", "handleType-01457", "handleType-01461", "handleType-01460"
        ),
        vk.FenceGetFdInfoKHR: _get("Fence", "Fd"),
        vk.FenceGetWin32HandleInfoKHR: _get("Fence", "Win32Handle"),
        vk.PhysicalDeviceExternalFenceInfo: (
            ("handle_type", is_u32, "VUID-VkPhysicalDeviceExternalFenceInfo-handleType-parameter"),
        ),
    },
    {
        vk.SemaphoreCreateInfo: _CREATE_SEMAPHORE,
        vk.ImportSemaphoreFdInfoKHR: "VUID-vkImportSemaphoreFdKHR-pImportSemaphoreFdInfo-parameter",
        vk.ImportSemaphoreWin32HandleInfoKHR: (
            "VUID-vkImportSemaphoreWin32HandleKHR-pImportSemaphoreWin32HandleInfo-parameter"
        ),
        vk.SemaphoreGetFdInfoKHR: "VUID-vkGetSemaphoreFdKHR-pGetFdInfo-parameter",
        vk.SemaphoreGetWin32HandleInfoKHR: "VUID-vkGetSemaphoreWin32HandleKHR-pGetWin32HandleInfo-parameter",
        vk.PhysicalDeviceExternalSemaphoreInfo: _QUERY.format("Semaphore"),
        vk.FenceCreateInfo: _CREATE_FENCE,
        vk.ImportFenceFdInfoKHR: "VUID-vkImportFenceFdKHR-pImportFenceFdInfo-parameter",
        vk.ImportFenceWin32HandleInfoKHR: "VUID-vkImportFenceWin32HandleKHR-pImportFenceWin32HandleInfo-parameter",
        vk.FenceGetFdInfoKHR: "VUID-vkGetFenceFdKHR-pGetFdInfo-parameter",
        vk.FenceGetWin32HandleInfoKHR: "VUID-vkGetFenceWin32HandleKHR-pGetWin32HandleInfo-parameter",
        vk.PhysicalDeviceExternalFenceInfo: _QUERY.format("Fence"),
    },
)
