"""vkCreateBuffer and vkCreateImage: the device is asked about such a resource, the rules judge, and it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core import image_queries, rule_facts, validation_cache
from extmem.core.resources import Buffer, Image
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.api.device import Device

__all__ = ["create_buffer", "create_image", "modifier_of"]

_NO_SUCH_IMAGE = frozenset(
    f"VUID-{tail}"
    for tail in (
        "VkImageCreateInfo-imageCreateMaxMipLevels-02251",
        "VkImageDrmFormatModifierListCreateInfoEXT-pDrmFormatModifiers-02263",
        "VkImageDrmFormatModifierExplicitCreateInfoEXT-drmFormatModifier-02264",
    )
)
"""Rules that the device itself decides."""


def create_buffer(device: Device, info: vk.BufferCreateInfo) -> Buffer:
    """`Device.create_buffer`. The device is in use."""
    key = None
    if device.check != "off":
        key = validation_cache.of_buffer(info)
        if key not in device.verdicts:
            known = type(info) is vk.BufferCreateInfo
            asked = rule_facts.buffer_capabilities(device, info, rule_facts.external_types(info)) if known else {}
            device.judged(key, rules.check_create_buffer(info, device.facts, asked), "vkCreateBuffer")
    return Buffer(device, info, key)


def create_image(device: Device, info: vk.ImageCreateInfo) -> Image:
    """`Device.create_image`. The device is in use."""
    if device.check == "off":
        return Image(device, info)
    asked = image_queries.ImageAnswer()
    if type(info) is vk.ImageCreateInfo:
        asked = image_queries.ask_of_image(device, info, tuple(rule_facts.single_bits(rule_facts.external_types(info))))
    found = rules.check_create_image(info, device.facts, asked.external, asked.format)
    if asked.refusal is not None and device.check == "raise" and {v.vuid for v in found} <= _NO_SUCH_IMAGE:
        # The device's own words tell more than the rules: that there are no such images.
        asked.refusal.violations = tuple(found)
        raise asked.refusal
    device.report(found, "vkCreateImage")
    image_queries.check_image_size(device, info, asked.format if not found else None)
    return Image(device, info, asked.external)


def modifier_of(device: Device, image: Image) -> vk.ImageDrmFormatModifierPropertiesEXT:
    """`Device.get_image_drm_format_modifier_properties`. The driver was asked when the image was made."""
    if not isinstance(image, Image):
        raise TypeError(f"{image!r} is not an Image; pass what create_image returned")
    with image.use():
        found = rules.check_get_image_drm_format_modifier_properties(image.facts, device.facts)
        device.report(found, "vkGetImageDrmFormatModifierPropertiesEXT")
        made = image.native.create_info
        explicit = vk.find(made, vk.ImageDrmFormatModifierExplicitCreateInfoEXT) if made is not None else None
        if explicit is None:
            raise UnsupportedError(
                f"{image!r} has no DRM format modifier; create it with ImageTiling.DRM_FORMAT_MODIFIER_EXT",
                requires_one_of=["ImageTiling.DRM_FORMAT_MODIFIER_EXT"],
            )
        return vk.ImageDrmFormatModifierPropertiesEXT(explicit.drm_format_modifier)
