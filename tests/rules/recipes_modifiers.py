"""Hand-written calls that raise the rules of DRM format modifiers. They need a GPU that supports modifiers."""

from __future__ import annotations

from typing import Any

import extmem
from extmem import vk
from extmem.testing import fake_vulkan
from extmem.vk.modifiers import EXTENSION, LINEAR, NEEDED
from tests.rules.raising import broken_by
from tests.rules.recipes_world import World, recipe

__all__: list[str] = []

_DRM = vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT
_LIST, _EXPLICIT = "VkImageDrmFormatModifierListCreateInfoEXT", "VkImageDrmFormatModifierExplicitCreateInfoEXT"
_LAYOUT = vk.SubresourceLayout(row_pitch=256)


def _gpu(world: World) -> extmem.Device:
    names = (*fake_vulkan.INTEGRATED.extensions, EXTENSION, NEEDED)
    return world.gpu(modifiers=(fake_vulkan.Modifier(LINEAR),), extensions=names)


def _create(world: World, chain: Any) -> set[str]:
    device = _gpu(world)
    return broken_by(lambda: world.resource(device, "image", tiling=_DRM, p_next=chain))


recipe(f"{_LIST}-pDrmFormatModifiers-02263")(
    lambda world: _create(world, vk.ImageDrmFormatModifierListCreateInfoEXT((5,)))
)
recipe(f"{_EXPLICIT}-drmFormatModifier-02264")(
    lambda world: _create(world, vk.ImageDrmFormatModifierExplicitCreateInfoEXT(5, (_LAYOUT,)))
)
recipe(f"{_EXPLICIT}-drmFormatModifierPlaneCount-02265")(
    lambda world: _create(world, vk.ImageDrmFormatModifierExplicitCreateInfoEXT(LINEAR, (_LAYOUT, _LAYOUT)))
)


@recipe("vkGetImageDrmFormatModifierPropertiesEXT-image-02272")
def _of_another_tiling(world: World) -> set[str]:
    device = _gpu(world)
    image = world.resource(device, "image")
    return broken_by(lambda: device.get_image_drm_format_modifier_properties(image))


@recipe("vkGetImageDrmFormatModifierPropertiesEXT-image-parent")
def _of_another_device(world: World) -> set[str]:
    image = world.resource(world.host, "image")
    device = _gpu(world)
    return broken_by(lambda: device.get_image_drm_format_modifier_properties(image))


@recipe("VkPhysicalDeviceImageDrmFormatModifierInfoEXT-sharingMode-02316")
def _of_families_that_are_not_there(world: World) -> set[str]:
    device = _gpu(world)
    chain = vk.PhysicalDeviceImageDrmFormatModifierInfoEXT(LINEAR, vk.SharingMode.CONCURRENT, (0, 9))
    asked = vk.PhysicalDeviceImageFormatInfo2(37, 1, _DRM, 3, 0, chain)
    return broken_by(lambda: device.get_physical_device_image_format_properties2(asked))
