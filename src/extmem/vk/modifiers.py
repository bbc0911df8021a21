"""Images of tiling DRM_FORMAT_MODIFIER: which modifiers a create info names, and what to ask a device about them.

A DRM format modifier is a number of 64 bits that names one arrangement of texels in memory. Create infos that nobody
has judged may be given here: a chain that ends in itself, and fields of the wrong kind, are taken for none.
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

__all__ = ["EXTENSION", "LINEAR", "MEMORY_PLANES", "NEEDED", "has_modifier", "named_modifiers", "questions"]

EXTENSION = "VK_EXT_image_drm_format_modifier"
NEEDED = "VK_KHR_image_format_list"
"""What a device of Vulkan 1.1 enables together with `EXTENSION`; part of Vulkan 1.2."""
LINEAR = 0
"""DRM_FORMAT_MOD_LINEAR: rows of texels one after the other."""
MEMORY_PLANES = tuple(int(getattr(ImageAspectFlagBits, f"MEMORY_PLANE_{number}_EXT")) for number in range(4))
"""The aspects of memory planes, of which an image has as many as its modifier says."""
_DRM = int(ImageTiling.DRM_FORMAT_MODIFIER_EXT)
_LONGEST_CHAIN = 64
_U64 = 0xFFFF_FFFF_FFFF_FFFF


def has_modifier(info: ImageCreateInfo) -> bool:
    """Whether the tiling is DRM_FORMAT_MODIFIER."""
    return bool(info.tiling == _DRM)


def named_modifiers(info: ImageCreateInfo) -> tuple[int, ...]:
    """The modifiers in the chain: one that is explicit, or those that the driver may choose from. Each once."""
    found: list[object] = []
    for link in _links(info):
        if isinstance(link, ImageDrmFormatModifierExplicitCreateInfoEXT):
            found.append(link.drm_format_modifier)
        elif isinstance(link, ImageDrmFormatModifierListCreateInfoEXT):
            listed: object = link.drm_format_modifiers
            found += listed if isinstance(listed, Sequence) and not isinstance(listed, (str, bytes)) else ()
    return tuple(dict.fromkeys(int(n) for n in found if isinstance(n, int) and 0 <= n <= _U64))


def questions(info: ImageCreateInfo, handle_type: int = 0) -> dict[int | None, PhysicalDeviceImageFormatInfo2]:
    """What to ask with vkGetPhysicalDeviceImageFormatProperties2 before such an image is made, by modifier.

    One question with the key None for every other tiling, and for one that names no modifier.
    handle_type: what the image is to be shared as, one bit; 0 for no such question.
    """
    asked: dict[int | None, PhysicalDeviceImageFormatInfo2] = {}
    chosen: tuple[int | None, ...] = named_modifiers(info) if has_modifier(info) else ()
    for modifier in chosen or (None,):
        chain: ChainStruct | None = None
        if handle_type:
            chain = PhysicalDeviceExternalImageFormatInfo(ExternalMemoryHandleTypeFlagBits(handle_type))
        if modifier is not None:
            families = info.queue_family_indices
            chain = PhysicalDeviceImageDrmFormatModifierInfoEXT(modifier, info.sharing_mode, families, chain)
        asked[modifier] = PhysicalDeviceImageFormatInfo2(
            info.format, info.image_type, info.tiling, info.usage, info.flags, chain
        )
    return asked


def _links(info: ImageCreateInfo) -> Iterator[object]:
    link: object = info.p_next
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return
        yield link
        link = getattr(link, "p_next", None)
