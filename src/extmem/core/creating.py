"""vkCreateBuffer and vkCreateImage: the device is asked about such a resource, the rules check, and it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core import image_queries, rule_facts, validation_cache
from extmem.core.device_facts import external_types, single_bits
from extmem.core.resources import BufferObject, ImageObject
from extmem.errors import UnsupportedError
from extmem.vk.copies import copied

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState

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


def create_buffer(device: DeviceState, given: vk.BufferCreateInfo) -> BufferObject:
    """`Device.create_buffer`."""
    info = copied(given)
    with device.use():
        return _create_buffer(device, info)


def _create_buffer(device: DeviceState, info: vk.BufferCreateInfo) -> BufferObject:
    key = None
    if device.check != "off":
        key = validation_cache.buffer_key(info)
        if key not in device.validated:
            known = type(info) is vk.BufferCreateInfo
            asked = rule_facts.buffer_capabilities(device, info, external_types(info)) if known else {}
            device.report_or_note(key, rules.check_create_buffer(info, device.facts, asked), "vkCreateBuffer")
    made: BufferObject = device.make_buffer(info, key)
    return made


def create_image(device: DeviceState, given: vk.ImageCreateInfo) -> ImageObject:
    """`Device.create_image`."""
    info = copied(given)
    with device.use():
        return _create_image(device, info)


def _create_image(device: DeviceState, info: vk.ImageCreateInfo) -> ImageObject:
    if device.check == "off":
        unchecked: ImageObject = device.make_image(info)
        return unchecked
    asked = image_queries.ImageAnswer()
    if type(info) is vk.ImageCreateInfo:
        asked = image_queries.ask_of_image(device, info, tuple(single_bits(external_types(info))))
    found = rules.check_create_image(info, device.facts, asked.external, asked.format)
    if asked.refusal is not None and device.check == "raise" and {v.vuid for v in found} <= _NO_SUCH_IMAGE:
        # The device's own words tell more than the rules: that there are no such images.
        asked.refusal.violations = tuple(found)
        raise asked.refusal
    device.report(found, "vkCreateImage")
    image_queries.check_image_size(device, info, asked.format if not found else None)
    made: ImageObject = device.make_image(info, asked.external)
    return made


def modifier_of(device: DeviceState, image: ImageObject) -> vk.ImageDrmFormatModifierPropertiesEXT:
    """`Device.get_image_drm_format_modifier_properties`. The driver was asked when the image was made."""
    if not isinstance(image, ImageObject):
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
