"""Cases: images with DRM format modifiers, and queries about formats and modifiers."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import ModifierFacts, ResourceFacts
from tests.rules.cases_create import BARE, CONCURRENT, DRM, IMAGE, LIMITS, RICH, THREE_D, image, query
from tests.rules.world import GPU, case

LIST, EXPLICIT = "VkImageDrmFormatModifierListCreateInfoEXT", "VkImageDrmFormatModifierExplicitCreateInfoEXT"
QUESTION = "VkPhysicalDeviceImageDrmFormatModifierInfoEXT"
GET, FORMAT = "vkGetImageDrmFormatModifierPropertiesEXT", "vkGetPhysicalDeviceFormatProperties2"
TILED = 0x0300_0000_0000_0001
ABLE = replace(LIMITS, modifiers={0: ModifierFacts(1), TILED: ModifierFacts(2)})
UNABLE = replace(LIMITS, modifiers={0: ModifierFacts(1), TILED: ModifierFacts(None, "no such images")})


def listed(modifiers: Any = (0, TILED), answer: rules.ImageFormatFacts = ABLE, **fields: Any) -> Any:
    """Create an image whose modifier the driver chooses."""
    chain = vk.ImageDrmFormatModifierListCreateInfoEXT(modifiers)
    return image(RICH, answer, **{"tiling": DRM, "p_next": chain, **fields})


def placed(
    *layouts: Any, modifier: Any = 0, answer: rules.ImageFormatFacts = ABLE, size: Any = (64, 64, 1), **fields: Any
) -> Any:
    """Create an image with an explicit modifier."""
    planes: Any = layouts or (vk.SubresourceLayout(row_pitch=256),)
    chain = vk.ImageDrmFormatModifierExplicitCreateInfoEXT(modifier, () if layouts == (None,) else planes)
    return image(RICH, answer, size, **{"tiling": DRM, "p_next": chain, **fields})


def asked(**fields: Any) -> Any:
    """Query images with a modifier."""
    chain = vk.PhysicalDeviceImageDrmFormatModifierInfoEXT(**fields)
    return query(replace(RICH, queue_family_count=3), tiling=DRM, p_next=chain)


case(f"{IMAGE}-pNext-02262", listed(tiling=0), listed())
case(f"{LIST}-pDrmFormatModifiers-parameter", listed((0, -1)), listed((0, 2**64 - 1)))
case(f"{LIST}-drmFormatModifierCount-arraylength", listed(()), listed((0,)))
case(f"{LIST}-pDrmFormatModifiers-02263", listed(answer=UNABLE), listed((0,), answer=UNABLE))
LAYOUT = vk.SubresourceLayout(row_pitch=256)
case(f"{EXPLICIT}-pPlaneLayouts-parameter", placed(vk.SubresourceLayout(row_pitch=-1)), placed(LAYOUT))
case(
    f"{EXPLICIT}-drmFormatModifierPlaneCount-arraylength",
    placed(None),
    placed(),
    f"{EXPLICIT}-drmFormatModifierPlaneCount-02265",
)
case(
    f"{EXPLICIT}-drmFormatModifier-02264",
    placed(modifier=TILED, answer=UNABLE),
    placed(LAYOUT, LAYOUT, modifier=TILED),
)
case(f"{EXPLICIT}-drmFormatModifierPlaneCount-02265", placed(LAYOUT, LAYOUT), placed(LAYOUT))
case(f"{EXPLICIT}-size-02267", placed(vk.SubresourceLayout(0, 16384, 256)), placed())
SLICED = vk.SubresourceLayout(0, 0, 256, 16384, 0)
case(f"{EXPLICIT}-arrayPitch-02268", placed(SLICED), placed(SLICED, array_layers=2))
DEEP = vk.SubresourceLayout(0, 0, 256, 0, 16384)
case(f"{EXPLICIT}-depthPitch-02269", placed(DEEP), placed(DEEP, size=(64, 64, 4), image_type=THREE_D))
case(f"{QUESTION}-sharingMode-parameter", asked(sharing_mode=2), asked(sharing_mode=0))
shared: dict[str, Any] = {"sharing_mode": CONCURRENT}
two = asked(**shared, queue_family_indices=(0, 2))
case(f"{QUESTION}-sharingMode-02314", asked(**shared), two, f"{QUESTION}-sharingMode-02315")
case(f"{QUESTION}-sharingMode-02315", asked(**shared, queue_family_indices=(0,)), two)
case(f"{QUESTION}-sharingMode-02316", asked(**shared, queue_family_indices=(0, 3)), two)


def modifier_of(tiling: int = DRM, device_identity: int = 1) -> Any:
    """Query the modifier of an image."""
    info = vk.ImageCreateInfo(tiling=tiling, p_next=vk.ImageDrmFormatModifierListCreateInfoEXT((0,)))
    facts = ResourceFacts("image", info, 4096, 256, 1, device_identity=device_identity)
    return lambda: rules.check_get_image_drm_format_modifier_properties(facts, GPU)


case(f"{GET}-image-02272", modifier_of(0), modifier_of())
case(f"{GET}-image-parent", modifier_of(device_identity=2), modifier_of())
case(
    f"{FORMAT}-format-parameter",
    lambda: rules.check_format_properties(vk.Format.PVRTC1_2BPP_UNORM_BLOCK_IMG, BARE),
    lambda: rules.check_format_properties(vk.Format.R8G8B8A8_UNORM, BARE),
)
