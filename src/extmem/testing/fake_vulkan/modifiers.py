"""DRM format modifiers of a fake GPU: which ones a format has, and where the texels of an image with one lie.

An image with a modifier is 2D, of one level and one layer. Its texels are in memory plane 0, row after row. A
modifier other than DRM_FORMAT_MOD_LINEAR reverses the order of the rows, so that reading with another modifier gives
other texels. Each further memory plane has 4 KiB, which only the driver uses.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.resources import Requirements
from extmem.testing.fake_vulkan.instances import out_chain
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Device, Image, Physical
from extmem.vk.abi import ffi
from extmem.vk.formats import is_depth_or_stencil, texel_size
from extmem.vk.modifiers import EXTENSION, MEMORY_PLANES

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.gpus import Gpu, Modifier
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__ = ["as_linear", "chosen", "plane_layout", "placed"]

_PLANE = 4096
_LIST = int(vk.StructureType.DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT)
_PROPERTIES = int(vk.StructureType.IMAGE_DRM_FORMAT_MODIFIER_PROPERTIES_EXT)
_BAD_LAYOUT = int(vk.Result.ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT)
_NO_FORMAT = int(vk.Result.ERROR_FORMAT_NOT_SUPPORTED)
_ABLE = int(vk.FormatFeatureFlagBits.TRANSFER_SRC | vk.FormatFeatureFlagBits.TRANSFER_DST)
_2D = int(vk.ImageType.TYPE_2D)


def _of_format(gpu: Gpu, vk_format: int) -> tuple[Modifier, ...]:
    """Return the modifiers of a format: none for one with depth, or without texels of its own."""
    plain = texel_size(vk_format) is not None and not is_depth_or_stencil(vk_format)
    return gpu.modifiers if plain and EXTENSION in gpu.extensions else ()


def as_linear(gpu: Gpu, info: vk.ImageCreateInfo | vk.PhysicalDeviceImageFormatInfo2, number: int, types: int) -> None:
    """Set the tiling of `info` to LINEAR, which has the same limits. Refuses a modifier that the format lacks."""
    modifier = next((m for m in _of_format(gpu, int(info.format)) if m.number == number), None)
    kind = info.type if isinstance(info, vk.PhysicalDeviceImageFormatInfo2) else info.image_type
    if modifier is None or int(kind) != _2D or (modifier.shared is not None and types & ~modifier.shared):
        raise Refusal(_NO_FORMAT)
    info.tiling = vk.ImageTiling.LINEAR


def vkGetPhysicalDeviceFormatProperties2(fake: FakeVulkan, handle: Any, vk_format: int, out: Any) -> None:
    """Return the transfer features, for every tiling, and the modifiers."""
    gpu = fake.get(handle, Physical).gpu
    able = _ABLE if texel_size(vk_format) is not None else 0
    features = out.formatProperties
    features.linearTilingFeatures = 0 if is_depth_or_stencil(vk_format) else able
    features.optimalTilingFeatures, features.bufferFeatures = able, 0
    chain = out_chain(out)
    if _LIST not in chain:
        return
    answer, known = ffi.cast("VkDrmFormatModifierPropertiesListEXT *", chain[_LIST]), _of_format(gpu, vk_format)
    if answer.pDrmFormatModifierProperties != ffi.NULL:
        known = known[: answer.drmFormatModifierCount]
        for index, modifier in enumerate(known):
            entry = answer.pDrmFormatModifierProperties[index]
            entry.drmFormatModifier, entry.drmFormatModifierPlaneCount = modifier.number, modifier.planes
            entry.drmFormatModifierTilingFeatures = able
    answer.drmFormatModifierCount = len(known)


def chosen(fake: FakeVulkan, device: Device, info: vk.ImageCreateInfo) -> tuple[Modifier, list[vk.SubresourceLayout]]:
    """Return the last modifier of the list, or the explicit one with its plane layouts."""
    listed = vk.find(info, vk.ImageDrmFormatModifierListCreateInfoEXT)
    explicit = vk.find(info, vk.ImageDrmFormatModifierExplicitCreateInfoEXT)
    if (listed is None) == (explicit is None) or EXTENSION not in device.extensions:
        raise fake.wrong("an image of tiling DRM_FORMAT_MODIFIER without the extension, or without one struct")
    numbers = listed.drm_format_modifiers if listed is not None else [explicit.drm_format_modifier] if explicit else []
    known = {modifier.number: modifier for modifier in _of_format(device.gpu, int(info.format))}
    if not numbers or not set(numbers) <= set(known):
        raise fake.wrong(f"an image of modifiers {numbers}, and its format has {list(known)}", _NO_FORMAT)
    return known[numbers[-1]], list(explicit.plane_layouts) if explicit is not None else []


def placed(
    fake: FakeVulkan, info: vk.ImageCreateInfo, modifier: Modifier, given: list[vk.SubresourceLayout]
) -> tuple[Requirements, list[vk.SubresourceLayout]]:
    """Return what the image requires, and the layout of its memory planes: as given, or the driver's choice."""
    texel = texel_size(int(info.format)) or 1
    row = info.extent.width * texel
    pitch = -(-row // modifier.pitch_alignment) * modifier.pitch_alignment
    if info.mip_levels != 1 or info.array_layers != 1:
        raise Refusal(_NO_FORMAT)
    if given and len(given) != modifier.planes:
        raise fake.wrong(f"{len(given)} memory planes are given, and there are {modifier.planes}", _BAD_LAYOUT)
    planes, offset = [], 0
    for number in range(modifier.planes):
        layout = given[number] if given else vk.SubresourceLayout(offset, 0, pitch if number == 0 else _PLANE)
        if layout.size or layout.array_pitch or layout.depth_pitch:
            fake.misuse(f"memory plane {number} is given with {layout}, where size and these pitches are 0")
        bad_pitch = number == 0 and (layout.row_pitch < row or layout.row_pitch % texel)
        if layout.offset % modifier.pitch_alignment or bad_pitch:
            raise Refusal(_BAD_LAYOUT)
        size = layout.row_pitch * info.extent.height if number == 0 else _PLANE
        plane = copy.copy(layout)
        plane.size = size
        planes.append(plane)
        offset = -(-(layout.offset + size) // _PLANE) * _PLANE
    whole = max(plane.offset + plane.size for plane in planes)
    return Requirements(-(-whole // _PLANE) * _PLANE, _PLANE, 1), planes


def plane_layout(fake: FakeVulkan, image: Image, aspect: int) -> vk.SubresourceLayout:
    """Return the layout of one memory plane, for vkGetImageSubresourceLayout."""
    if aspect not in MEMORY_PLANES[: len(image.planes)]:
        raise fake.wrong(f"aspect {aspect:#x} of an image with {len(image.planes)} memory planes")
    return image.planes[0 if fake.manners.same_planes else MEMORY_PLANES.index(aspect)]


def vkGetImageDrmFormatModifierPropertiesEXT(fake: FakeVulkan, handle: Any, raw: int, out: Any) -> int:
    """Return the modifier that was chosen when the image was created."""
    image = fake.get(raw, Image, fake.get(handle, Device))
    if image.modifier is None or out.sType != _PROPERTIES:
        raise fake.wrong(f"the modifier of {image} is queried, and it has none")
    out.drmFormatModifier = image.modifier
    return 0
