"""VK_EXT_image_drm_format_modifier: which modifiers a format has, and which one the driver chose for an image."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING

from extmem import vk
from extmem.errors import UnsupportedError
from extmem.vk.abi import ffi, from_c, to_c
from extmem.vk.formats import format_name
from extmem.vk.modifiers import EXTENSION, MEMORY_PLANES

if TYPE_CHECKING:
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.physical import PhysicalDevice

__all__ = ["format_properties", "resolved"]

_LIST = int(vk.StructureType.DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT)
_PROPERTIES = int(vk.StructureType.IMAGE_DRM_FORMAT_MODIFIER_PROPERTIES_EXT)


def format_properties(device: PhysicalDevice, vk_format: int) -> vk.FormatProperties2:
    """vkGetPhysicalDeviceFormatProperties2, with the format's modifiers chained where the device has the extension."""
    memory = to_c(vk.FormatProperties2())
    get_properties, listed = device.commands.vkGetPhysicalDeviceFormatProperties2, None
    if EXTENSION in device.extensions:
        listed = ffi.new("VkDrmFormatModifierPropertiesListEXT *", (_LIST,))
        memory.cdata.pNext = listed
    get_properties(device.handle, vk_format, memory.cdata)
    if listed is not None and listed.drmFormatModifierCount:
        room = ffi.new("VkDrmFormatModifierPropertiesEXT[]", listed.drmFormatModifierCount)
        listed.pDrmFormatModifierProperties = room  # this time the driver fills it
        get_properties(device.handle, vk_format, memory.cdata)
    return from_c(vk.FormatProperties2, memory)


def resolved(
    device: LogicalDevice, raw: int, info: vk.ImageCreateInfo
) -> tuple[vk.ImageCreateInfo, tuple[vk.SubresourceLayout, ...]]:
    """Return the create info of an identical image on any device, and the layouts of this one's memory planes.

    raw: a VkImage of tiling DRM_FORMAT_MODIFIER, made from `info`. Errors: UnsupportedError where the driver states
    places that cannot be.
    """
    answer = ffi.new("VkImageDrmFormatModifierPropertiesEXT *", (_PROPERTIES,))
    device.check(
        device.commands.vkGetImageDrmFormatModifierPropertiesEXT(device.handle, raw, answer),
        "vkGetImageDrmFormatModifierPropertiesEXT",
    )
    modifier = int(answer.drmFormatModifier)
    listed = vk.find(format_properties(device.physical, int(info.format)), vk.DrmFormatModifierPropertiesListEXT)
    modifiers = listed.drm_format_modifier_properties if listed is not None else ()
    count = next((int(m.drm_format_modifier_plane_count) for m in modifiers if m.drm_format_modifier == modifier), 1)
    planes = tuple(_plane(device, raw, aspect) for aspect in MEMORY_PLANES[:count])
    in_order = itertools.pairwise(sorted(planes, key=lambda plane: plane.offset))
    if any(one.offset + one.size > other.offset for one, other in in_order):
        raise UnsupportedError(
            f"{device.name} states places that overlap for the {count} memory planes of "
            f"{format_name(int(info.format))} with modifier {modifier:#x}, so that no other device could create the "
            "same image; use a format in one plane",
            requires_one_of=["a format in one plane", "another modifier", "ImageTiling.LINEAR"],
        )
    # A create info leaves the sizes to the driver, and the pitches that one layer or slice does not have.
    layers, slices = info.array_layers > 1, info.extent.depth > 1
    placed = [
        vk.SubresourceLayout(p.offset, 0, p.row_pitch, p.array_pitch if layers else 0, p.depth_pitch if slices else 0)
        for p in planes
    ]
    identical = copy.copy(info)
    identical.extent = copy.copy(info.extent)
    identical.p_next = vk.ImageDrmFormatModifierExplicitCreateInfoEXT(modifier, placed, _without_modifiers(info))
    return identical, planes


def _plane(device: LogicalDevice, raw: int, aspect: int) -> vk.SubresourceLayout:
    query, answer = to_c(vk.ImageSubresource(vk.ImageAspectFlagBits(aspect))), ffi.new("VkSubresourceLayout *")
    device.commands.vkGetImageSubresourceLayout(device.handle, raw, query.cdata, answer)
    return from_c(vk.SubresourceLayout, answer)


def _without_modifiers(info: vk.ImageCreateInfo) -> vk.ChainStruct | None:
    """A copy of the chain without the structs that name modifiers."""
    first: vk.ChainStruct | None = None
    for link in reversed(list(vk.chain(info))):
        if not isinstance(
            link, (vk.ImageDrmFormatModifierListCreateInfoEXT, vk.ImageDrmFormatModifierExplicitCreateInfoEXT)
        ):
            kept = copy.copy(link)
            kept.p_next = first
            first = kept
    return first
