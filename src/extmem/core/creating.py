"""vkCreateBuffer and vkCreateImage: query the device's support, check the rules, and create the resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core import image_queries, rule_facts, validation_cache
from extmem.core.device_facts import external_types
from extmem.core.resources import BufferObject, ImageObject
from extmem.errors import UnsupportedError
from extmem.vk.handle_types import MemoryHandleType
from extmem.vk.struct_copies import copy_struct
from extmem.vk.value_text import bits_of

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
"""Rules that an image breaks because the device does not support it."""


def create_buffer(device: DeviceState, given: vk.BufferCreateInfo) -> BufferObject:
    """`Device.create_buffer`."""
    info, key = copy_struct(given), None
    with device.use():
        if device.check != "off":
            key = validation_cache.buffer_key(info)
            if key not in device.validated:
                known = type(info) is vk.BufferCreateInfo
                support = rule_facts.buffer_capabilities(device, info, external_types(info)) if known else {}
                device.report_or_note(key, rules.check_create_buffer(info, device.facts, support), "vkCreateBuffer")
        buffer: BufferObject = device.make_buffer(info, key)
        return buffer


def create_image(device: DeviceState, given: vk.ImageCreateInfo) -> ImageObject:
    """`Device.create_image`."""
    info = copy_struct(given)
    with device.use():
        capabilities = _check_image(device, info) if device.check != "off" else None
        image: ImageObject = device.make_image(info, capabilities)
        return image


def _check_image(device: DeviceState, info: vk.ImageCreateInfo) -> dict[MemoryHandleType, rules.ExternalMemoryFacts]:
    """Check the creation of an image. Return what such images support, by handle type."""
    support = image_queries.ImageSupport()
    if type(info) is vk.ImageCreateInfo:
        support = image_queries.query_image(device, info, tuple(bits_of(external_types(info))))
    violations = rules.check_create_image(info, device.facts, support.external, support.format)
    if support.refusal is not None and device.check == "raise" and {v.vuid for v in violations} <= _NO_SUCH_IMAGE:
        # The device's error has more information than these rules: the device does not support such images.
        support.refusal.violations = tuple(violations)
        raise support.refusal
    device.report(violations, "vkCreateImage")
    image_queries.check_image_size(device, info, support.format if not violations else None)
    return support.external


def modifier_of(device: DeviceState, image: ImageObject) -> vk.ImageDrmFormatModifierPropertiesEXT:
    """`Device.get_image_drm_format_modifier_properties`. The driver was queried when the image was created."""
    if not isinstance(image, ImageObject):
        raise TypeError(f"{image!r} is not an Image; pass what create_image returned")
    with image.use():
        violations = rules.check_get_image_drm_format_modifier_properties(image.facts, device.facts)
        device.report(violations, "vkGetImageDrmFormatModifierPropertiesEXT")
        info = image.native.create_info
        explicit = vk.find(info, vk.ImageDrmFormatModifierExplicitCreateInfoEXT) if info is not None else None
        if explicit is None:
            raise UnsupportedError(
                f"{image!r} has no DRM format modifier; create it with ImageTiling.DRM_FORMAT_MODIFIER_EXT",
                requires_one_of=["ImageTiling.DRM_FORMAT_MODIFIER_EXT"],
            )
        return vk.ImageDrmFormatModifierPropertiesEXT(explicit.drm_format_modifier)
