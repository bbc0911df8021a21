"""Images of tiling DRM_FORMAT_MODIFIER: the modifiers that a create info names, and the queries about them.

A DRM format modifier is a 64-bit number that identifies one arrangement of texels in memory. The functions accept
create infos that were not checked: a chain that leads back into itself, and fields of the wrong type, are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from extmem.vk._base import ChainStruct
from extmem.vk._generated.enums import ImageTiling
from extmem.vk._generated.flags import ExternalMemoryHandleTypeFlagBits, ImageAspectFlagBits
from extmem.vk._generated.structs import (
    ImageCreateInfo,
    ImageDrmFormatModifierExplicitCreateInfoEXT,
    ImageDrmFormatModifierListCreateInfoEXT,
    PhysicalDeviceExternalImageFormatInfo,
    PhysicalDeviceImageDrmFormatModifierInfoEXT,
    PhysicalDeviceImageFormatInfo2,
)
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

__all__ = ["EXTENSION", "LINEAR", "MEMORY_PLANES", "NEEDED", "has_modifier", "named_modifiers", "questions"]

EXTENSION = "VK_EXT_image_drm_format_modifier"
NEEDED = "VK_KHR_image_format_list"
"""Extension that a device of Vulkan 1.1 must enable together with `EXTENSION`; part of Vulkan 1.2."""
LINEAR = 0
"""DRM_FORMAT_MOD_LINEAR: rows of texels in order."""
MEMORY_PLANES = tuple(int(getattr(ImageAspectFlagBits, f"MEMORY_PLANE_{number}_EXT")) for number in range(4))
"""The aspects of memory planes. The modifier determines how many of them an image has."""
_DRM = int(ImageTiling.DRM_FORMAT_MODIFIER_EXT)
_LONGEST_CHAIN = 64
_U64 = 0xFFFF_FFFF_FFFF_FFFF


def has_modifier(info: ImageCreateInfo) -> bool:
    """Return whether the tiling is DRM_FORMAT_MODIFIER."""
    return bool(info.tiling == _DRM)


def named_modifiers(info: ImageCreateInfo) -> tuple[int, ...]:
    """Return the modifiers in the chain, each once: an explicit one, or those that the driver may choose from."""
    modifiers: list[object] = []
    for link in _links(info):
        if isinstance(link, ImageDrmFormatModifierExplicitCreateInfoEXT):
            modifiers.append(link.drm_format_modifier)
        elif isinstance(link, ImageDrmFormatModifierListCreateInfoEXT):
            listed: object = link.drm_format_modifiers
            modifiers += listed if isinstance(listed, Sequence) and not isinstance(listed, (str, bytes)) else ()
    return tuple(dict.fromkeys(int(n) for n in modifiers if isinstance(n, int) and 0 <= n <= _U64))


def questions(
    info: ImageCreateInfo, handle_type: MemoryHandleType = NO_TYPES
) -> dict[int | None, PhysicalDeviceImageFormatInfo2]:
    """Return the queries for vkGetPhysicalDeviceImageFormatProperties2 before such an image is created, by modifier.

    For any other tiling, and for a chain without a modifier, there is one query with the key None.
    handle_type: the type that the image will be shared as, one bit; 0 if it will not be shared.
    """
    queries: dict[int | None, PhysicalDeviceImageFormatInfo2] = {}
    chosen: tuple[int | None, ...] = named_modifiers(info) if has_modifier(info) else ()
    for modifier in chosen or (None,):
        chain: ChainStruct | None = None
        if handle_type:
            chain = PhysicalDeviceExternalImageFormatInfo(ExternalMemoryHandleTypeFlagBits(handle_type))
        if modifier is not None:
            chain = PhysicalDeviceImageDrmFormatModifierInfoEXT(
                modifier, info.sharing_mode, info.queue_family_indices, chain
            )
        queries[modifier] = PhysicalDeviceImageFormatInfo2(
            info.format, info.image_type, info.tiling, info.usage, info.flags, chain
        )
    return queries


def _links(info: ImageCreateInfo) -> Iterator[object]:
    link: object = info.p_next
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return
        yield link
        link = getattr(link, "p_next", None)
