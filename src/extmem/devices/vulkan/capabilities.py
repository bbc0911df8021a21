"""Capabilities of a physical device: what the driver can export and import, with the object manager's handle types.

A type that needs an extension which the device lacks has no features. The driver is not queried for it: drivers return
arbitrary answers for a type that they do not implement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.vulkan.handle_types import WIN32_IS_NATIVE, HandleType, from_driver, to_driver, translated
from extmem.devices.vulkan.modifiers import format_properties
from extmem.devices.vulkan.results import fail
from extmem.errors import UnsupportedError
from extmem.vk.abi import from_c, to_c
from extmem.vk.handle_types import (
    DMA_BUF,
    FROM_D3D,
    HOST_ALLOCATION,
    NO_TYPES,
    OPAQUE_FD,
    OPAQUE_WIN32,
    OPAQUE_WIN32_KMT,
    OPAQUE_WIN32_TYPES,
    MemoryHandleType,
)
from extmem.vk.modifiers import EXTENSION as MODIFIERS
from extmem.vk.value_text import flags_text, types_text

if TYPE_CHECKING:
    from extmem.devices.vulkan.physical import PhysicalDevice

__all__ = ["WIN32_EXTENSION", "Answers", "extension_of", "supported"]

WIN32_EXTENSION = "VK_KHR_external_memory_win32"

_FORMAT_NOT_SUPPORTED = -11
_NATIVE = {
    OPAQUE_FD: "VK_KHR_external_memory_fd",
    DMA_BUF: "VK_EXT_external_memory_dma_buf",
    HOST_ALLOCATION: "VK_EXT_external_memory_host",
}
_ON_WINDOWS = dict.fromkeys((OPAQUE_WIN32, OPAQUE_WIN32_KMT, *FROM_D3D), WIN32_EXTENSION)


class Answers:
    """A physical device as `Answers`."""

    def __init__(self, device: PhysicalDevice) -> None:
        self._device = device
        self.min_imported_host_pointer_alignment = device.min_imported_host_pointer_alignment

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """vkGetPhysicalDeviceMemoryProperties."""
        return self._device.memory_properties

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """vkGetPhysicalDeviceExternalBufferProperties."""
        device = self._device
        handle_type = MemoryHandleType(int(info.handle_type))
        if not supported(device, handle_type):
            return vk.ExternalBufferProperties()
        # Both are held until the call is over: what their chains lead to ends with them.
        query, answer = to_c(translated(info)), to_c(vk.ExternalBufferProperties())
        device.commands.vkGetPhysicalDeviceExternalBufferProperties(device.handle, query.cdata, answer.cdata)
        properties = from_c(vk.ExternalBufferProperties, answer)
        _widen(properties.external_memory_properties, handle_type)
        return properties

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """vkGetPhysicalDeviceImageFormatProperties2, external properties chained if `info` contains a handle type."""
        device = self._device
        external_info = vk.find(info, vk.PhysicalDeviceExternalImageFormatInfo)
        handle_type = MemoryHandleType(int(external_info.handle_type)) if external_info is not None else NO_TYPES
        if (handle_type and not supported(device, handle_type)) or not _has_modifier(device, info):
            raise _unsupported(device, info, handle_type)
        empty = vk.ImageFormatProperties2(p_next=vk.ExternalImageFormatProperties() if handle_type else None)
        query, answer = to_c(translated(info)), to_c(empty)
        result = device.commands.vkGetPhysicalDeviceImageFormatProperties2(device.handle, query.cdata, answer.cdata)
        if result == _FORMAT_NOT_SUPPORTED:
            raise _unsupported(device, info, handle_type)
        if result:
            fail(result, "vkGetPhysicalDeviceImageFormatProperties2", device.identity.device_name)
        properties = from_c(vk.ImageFormatProperties2, answer)
        external = vk.find(properties, vk.ExternalImageFormatProperties)
        if external is not None:
            _widen(external.external_memory_properties, handle_type)
        return properties

    def format_properties(self, vk_format: int) -> vk.FormatProperties2:
        return format_properties(self._device, vk_format)


def supported(device: PhysicalDevice, handle_type: MemoryHandleType) -> bool:
    """Whether the device has the extension behind a handle type. One bit."""
    return extension_of(handle_type) in device.extensions


def extension_of(handle_type: MemoryHandleType) -> str:
    """The extension behind a handle type (one bit) on this system; empty if no driver of this system can have it."""
    if WIN32_IS_NATIVE:
        return _NATIVE.get(handle_type) or _ON_WINDOWS.get(handle_type, "")
    return _NATIVE.get(to_driver(handle_type), "")


def _has_modifier(device: PhysicalDevice, info: vk.PhysicalDeviceImageFormatInfo2) -> bool:
    """Whether the format has the modifier in `info`. Drivers accept modifiers in a query that they do not list."""
    if info.tiling != vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT:
        return True
    named = vk.find(info, vk.PhysicalDeviceImageDrmFormatModifierInfoEXT)
    if MODIFIERS not in device.extensions or named is None:
        return False
    listed = vk.find(format_properties(device, int(info.format)), vk.DrmFormatModifierPropertiesListEXT)
    modifiers = listed.drm_format_modifier_properties if listed is not None else ()
    return any(one.drm_format_modifier == named.drm_format_modifier for one in modifiers)


def _widen(properties: vk.ExternalMemoryProperties, handle_type: MemoryHandleType) -> None:
    """Add the object manager's types where OPAQUE_FD is supported: they use the same fd.

    Also remove EXPORTABLE from host pointers, which some drivers return: there is no command to export one.
    """
    if handle_type == HOST_ALLOCATION:
        properties.external_memory_features &= ~vk.ExternalMemoryFeatureFlagBits.EXPORTABLE
    if WIN32_IS_NATIVE:
        return
    # One payload has NT handles or a KMT number, never both: neither type lists the other.
    is_win32 = handle_type & OPAQUE_WIN32_TYPES
    allowed = ~(OPAQUE_WIN32_TYPES & ~handle_type) if is_win32 else ~0
    compatible = from_driver(MemoryHandleType(int(properties.compatible_handle_types))) & allowed
    exported = from_driver(MemoryHandleType(int(properties.export_from_imported_handle_types))) & allowed
    if is_win32 and not compatible & handle_type and int(properties.external_memory_features):
        compatible |= handle_type
    properties.compatible_handle_types = HandleType(compatible)
    properties.export_from_imported_handle_types = HandleType(exported)


def _unsupported(
    device: PhysicalDevice, info: vk.PhysicalDeviceImageFormatInfo2, handle_type: MemoryHandleType
) -> UnsupportedError:
    words = [
        f"{enum(value).name if value in list(enum) else value}"
        for enum, value in ((vk.Format, int(info.format)), (vk.ImageTiling, int(info.tiling)))
    ]
    named = vk.find(info, vk.PhysicalDeviceImageDrmFormatModifierInfoEXT)
    words += [f"modifier {int(named.drm_format_modifier):#x}"] if named is not None else []
    shared = f", shared as {types_text(handle_type)}" if handle_type else ""
    return UnsupportedError(
        f"{device.identity.device_name} has no images of {', '.join(words)}, usage "
        f"{flags_text(info.usage, vk.ImageUsageFlagBits)}{shared} "
        "(VK_ERROR_FORMAT_NOT_SUPPORTED); Device.get_physical_device_format_properties2 returns what the format can do",
        requires_one_of=["another format, tiling, usage or handle type"],
    )
