"""What a device answers about images, before one is made: limits, sharing, and DRM format modifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.devices.optional_protocols import DescribesFormats
from extmem.errors import UnsupportedError
from extmem.vk.formats import copied_size, format_facts
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType
from extmem.vk.modifiers import questions

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState

__all__ = ["ImageAnswer", "ask_of_image", "check_image_size", "image_capabilities"]

_DEDICATED_ONLY = int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)


@dataclass(slots=True)
class ImageAnswer:
    """What a device answered about images like one that is to be made."""

    external: dict[MemoryHandleType, rules.ExternalMemoryFacts] = field(default_factory=dict)
    """For each handle type."""
    format: rules.ImageFormatFacts | None = None
    """None where it was not asked, because format, type, tiling, usage, flags or modifiers are not valid."""
    refusal: UnsupportedError | None = None
    """VK_ERROR_FORMAT_NOT_SUPPORTED, where that was the answer."""


def ask_of_image(device: DeviceState, info: vk.ImageCreateInfo, types: Sequence[MemoryHandleType]) -> ImageAnswer:
    """vkGetPhysicalDeviceImageFormatProperties2 for images like this one, shared as each of `types` and as none.

    Of an image that may have several modifiers all are asked about, since the driver chooses.
    """
    answer = ImageAnswer()
    asked = questions(info)
    if any(rules.check_external_image_format_info(question, device.facts) for question in asked.values()):
        return answer
    found, refused = [], {}
    for modifier, question in asked.items():
        try:
            found.append(device.backend.image_format_properties(question).image_format_properties)
        except UnsupportedError as refusal:
            answer.refusal = answer.refusal or refusal
            refused[modifier] = str(refusal)
    modifiers = _modifiers(device, info, [m for m in asked if m is not None], refused)
    if answer.refusal is not None:
        answer.format = rules.ImageFormatFacts(unsupported=str(answer.refusal), modifiers=modifiers)
        return answer
    for bit in types:
        answer.external[bit], shared = _shared(device, info, bit)
        found += shared
    samples = int(found[0].sample_counts)
    for one in found[1:]:
        samples &= int(one.sample_counts)
    answer.format = rules.ImageFormatFacts(
        max_extent=(
            min(int(one.max_extent.width) for one in found),
            min(int(one.max_extent.height) for one in found),
            min(int(one.max_extent.depth) for one in found),
        ),
        max_mip_levels=min(int(one.max_mip_levels) for one in found),
        max_array_layers=min(int(one.max_array_layers) for one in found),
        sample_counts=samples,
        max_resource_size=min(int(one.max_resource_size) for one in found),
        modifiers=modifiers,
    )
    return answer


def _modifiers(
    device: DeviceState, info: vk.ImageCreateInfo, named: Sequence[int], refused: dict[int | None, str]
) -> dict[int, rules.ModifierFacts]:
    """What the device says of each modifier."""
    if not named or not isinstance(device.backend, DescribesFormats):
        return {modifier: rules.ModifierFacts(unsupported=refused.get(modifier, "")) for modifier in named}
    listed = vk.find(device.backend.format_properties(int(info.format)), vk.DrmFormatModifierPropertiesListEXT)
    planes = {
        int(one.drm_format_modifier): int(one.drm_format_modifier_plane_count)
        for one in (listed.drm_format_modifier_properties if listed is not None else ())
    }
    return {modifier: rules.ModifierFacts(planes.get(modifier), refused.get(modifier, "")) for modifier in named}


def image_capabilities(
    device: DeviceState, info: vk.ImageCreateInfo, types: Sequence[MemoryHandleType]
) -> dict[MemoryHandleType, rules.ExternalMemoryFacts]:
    """vkGetPhysicalDeviceImageFormatProperties2 for each of the types (single bits), for images like this one."""
    return {bit: _shared(device, info, bit)[0] for bit in types}


def _shared(
    device: DeviceState, info: vk.ImageCreateInfo, bit: MemoryHandleType
) -> tuple[rules.ExternalMemoryFacts, list[vk.ImageFormatProperties]]:
    """What such images can do with one handle type, as far as all their modifiers can; the limits of each."""
    limits, answers = [], []
    for question in questions(info, bit).values():
        try:
            shared = device.backend.image_format_properties(question)
        except UnsupportedError:
            # VK_ERROR_FORMAT_NOT_SUPPORTED: the type does not suit such an image at all
            return rules.ExternalMemoryFacts(0, NO_TYPES, NO_TYPES), []
        limits.append(shared.image_format_properties)
        external = vk.find(shared, vk.ExternalImageFormatProperties)
        answers.append(external.external_memory_properties if external is not None else vk.ExternalMemoryProperties())
    features, exported, compatible, alone = -1, -1, -1, 0
    for answer in answers:
        features &= int(answer.external_memory_features)
        alone |= int(answer.external_memory_features) & _DEDICATED_ONLY
        exported &= int(answer.export_from_imported_handle_types)
        compatible &= int(answer.compatible_handle_types)
    return rules.ExternalMemoryFacts(features | alone, MemoryHandleType(exported), MemoryHandleType(compatible)), limits


def check_image_size(device: DeviceState, info: vk.ImageCreateInfo, answer: rules.ImageFormatFacts | None) -> None:
    """Refuse an image whose texels alone are more than maxResourceSize: no rule demands it, and drivers need not check.

    Errors: UnsupportedError.
    """
    facts, most = format_facts(int(info.format)), answer.max_resource_size if answer is not None else 0
    if facts is None or not most:
        return
    size, extent = 0, (int(info.extent.width), int(info.extent.height), int(info.extent.depth))
    for level in range(int(info.mip_levels)):
        texels = max(1, extent[0] >> level), max(1, extent[1] >> level), max(1, extent[2] >> level)
        size += sum(copied_size(facts, aspect, texels)[2] for aspect in facts.copied)
    size *= int(info.array_layers) * int(info.samples)
    if size > most:
        raise UnsupportedError(
            f"the image has {size} bytes of texels ({' x '.join(map(str, extent))}, {int(info.mip_levels)} levels, "
            f"{int(info.array_layers)} layers, {int(info.samples)} samples), and images of {device.name} have at most "
            f"{most} (maxResourceSize); create a smaller one",
            requires_one_of=[f"an image of {most} bytes or less"],
        )
