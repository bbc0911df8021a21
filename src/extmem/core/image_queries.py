"""Queries of a device before an image is created: limits, external memory, and DRM format modifiers."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from extmem import rules, vk
from extmem.devices.optional_protocols import DescribesFormats
from extmem.errors import UnsupportedError
from extmem.vk.formats import copied_size, format_facts
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType
from extmem.vk.modifiers import questions

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState

__all__ = ["ImageSupport", "check_image_size", "image_capabilities", "query_image"]

_DEDICATED_ONLY = int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)


class ImageSupport(msgspec.Struct):
    """A device's support for the images of one create info."""

    external: dict[MemoryHandleType, rules.ExternalMemoryFacts] = msgspec.field(default_factory=dict)
    """Support for external memory, by handle type."""
    format: rules.ImageFormatFacts | None = None
    """None if it was not queried, because format, type, tiling, usage, flags or modifiers are not valid."""
    refusal: UnsupportedError | None = None
    """VK_ERROR_FORMAT_NOT_SUPPORTED, if the device returned it."""


def query_image(device: DeviceState, info: vk.ImageCreateInfo, types: Sequence[MemoryHandleType]) -> ImageSupport:
    """vkGetPhysicalDeviceImageFormatProperties2 for such images, shared as each of `types`, and not shared.

    If the driver can choose between several modifiers, each of them is queried.
    """
    support = ImageSupport()
    queries = questions(info)
    if any(rules.check_external_image_format_info(query, device.facts) for query in queries.values()):
        return support
    limits, refused = [], {}
    for modifier, query in queries.items():
        try:
            limits.append(device.backend.image_format_properties(query).image_format_properties)
        except UnsupportedError as refusal:
            support.refusal = support.refusal or refusal
            refused[modifier] = str(refusal)
    modifiers = _modifiers(device, info, [m for m in queries if m is not None], refused)
    if support.refusal is not None:
        support.format = rules.ImageFormatFacts(unsupported=str(support.refusal), modifiers=modifiers)
        return support
    for bit in types:
        support.external[bit], shared = _query_shared(device, info, bit)
        limits += shared
    support.format = rules.ImageFormatFacts(
        max_extent=(
            min(int(limit.max_extent.width) for limit in limits),
            min(int(limit.max_extent.height) for limit in limits),
            min(int(limit.max_extent.depth) for limit in limits),
        ),
        max_mip_levels=min(int(limit.max_mip_levels) for limit in limits),
        max_array_layers=min(int(limit.max_array_layers) for limit in limits),
        sample_counts=_common_bits(limit.sample_counts for limit in limits),
        max_resource_size=min(int(limit.max_resource_size) for limit in limits),
        modifiers=modifiers,
    )
    return support


def _modifiers(
    device: DeviceState, info: vk.ImageCreateInfo, named: Sequence[int], refused: dict[int | None, str]
) -> dict[int, rules.ModifierFacts]:
    """Return the number of planes of each modifier, or the reason why the device does not support it."""
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
    """vkGetPhysicalDeviceImageFormatProperties2 for each of the types (single bits), for such images."""
    return {bit: _query_shared(device, info, bit)[0] for bit in types}


def _query_shared(
    device: DeviceState, info: vk.ImageCreateInfo, bit: MemoryHandleType
) -> tuple[rules.ExternalMemoryFacts, list[vk.ImageFormatProperties]]:
    """Return what such images support for one handle type with all their modifiers, and the limits of each modifier."""
    limits, answers = [], []
    for query in questions(info, bit).values():
        try:
            shared = device.backend.image_format_properties(query)
        except UnsupportedError:
            # VK_ERROR_FORMAT_NOT_SUPPORTED: such images do not support the type at all.
            return rules.ExternalMemoryFacts(0, NO_TYPES, NO_TYPES), []
        limits.append(shared.image_format_properties)
        external = vk.find(shared, vk.ExternalImageFormatProperties)
        answers.append(external.external_memory_properties if external is not None else vk.ExternalMemoryProperties())
    features = [int(answer.external_memory_features) for answer in answers]
    dedicated_only = max(feature & _DEDICATED_ONLY for feature in features)
    return rules.ExternalMemoryFacts(
        _common_bits(features) | dedicated_only,
        MemoryHandleType(_common_bits(answer.export_from_imported_handle_types for answer in answers)),
        MemoryHandleType(_common_bits(answer.compatible_handle_types for answer in answers)),
    ), limits


def _common_bits(masks: Iterable[int]) -> int:
    """Return the bits that all of the masks have."""
    return functools.reduce(operator.and_, map(int, masks))


def check_image_size(device: DeviceState, info: vk.ImageCreateInfo, support: rules.ImageFormatFacts | None) -> None:
    """Refuse an image whose texels alone need more than maxResourceSize. No rule requires it, and drivers do not check.

    Errors: UnsupportedError.
    """
    facts, limit = format_facts(int(info.format)), support.max_resource_size if support is not None else 0
    if facts is None or not limit:
        return
    size, extent = 0, (int(info.extent.width), int(info.extent.height), int(info.extent.depth))
    for level in range(int(info.mip_levels)):
        texels = max(1, extent[0] >> level), max(1, extent[1] >> level), max(1, extent[2] >> level)
        size += sum(copied_size(facts, aspect, texels)[2] for aspect in facts.copied)
    size *= int(info.array_layers) * int(info.samples)
    if size > limit:
        raise UnsupportedError(
            f"the image has {size} bytes of texels ({' x '.join(map(str, extent))}, {int(info.mip_levels)} levels, "
            f"{int(info.array_layers)} layers, {int(info.samples)} samples), and images of {device.name} have at most "
            f"{limit} (maxResourceSize); create a smaller one",
            requires_one_of=[f"an image of {limit} bytes or less"],
        )
