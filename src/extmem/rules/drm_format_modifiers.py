"""Images of tiling DRM_FORMAT_MODIFIER: creating them, and queries about them and their formats.

The modifiers of a format, and their numbers of memory planes, come from a query of the device
(`ImageFormatFacts.modifiers`). If it was not queried, the rules that need them report nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._conditions import all_of, equals, has_bits, is_zero, not_one_of
from extmem.rules._creation import CREATE_IMAGE, FORMAT_QUERY, Create, Traits
from extmem.rules._engine import Condition, Demand, Suite, demand
from extmem.rules._field_types import is_u32, misfit
from extmem.rules._text import enum_text
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.image_parameters import unavailable_format
from extmem.rules.violation import Violation
from extmem.vk.modifiers import has_modifier

__all__ = ["check_format_properties", "check_get_image_drm_format_modifier_properties", "modifier_structs"]

_CREATE, _QUERY = "VkImageCreateInfo", "VkPhysicalDeviceImageFormatInfo2"
_LIST, _EXPLICIT = "VkImageDrmFormatModifierListCreateInfoEXT", "VkImageDrmFormatModifierExplicitCreateInfoEXT"
_QUERY_MODIFIER = "VkPhysicalDeviceImageDrmFormatModifierInfoEXT"
_LIST_PATH = "ImageCreateInfo.pNext<ImageDrmFormatModifierListCreateInfoEXT>.drm_format_modifiers"
_EXPLICIT_PATH = "ImageCreateInfo.pNext<ImageDrmFormatModifierExplicitCreateInfoEXT>"
_QUERY_PATH = "PhysicalDeviceImageFormatInfo2.pNext<PhysicalDeviceImageDrmFormatModifierInfoEXT>"
_STRUCTS = (
    vk.ImageDrmFormatModifierListCreateInfoEXT,
    vk.ImageDrmFormatModifierExplicitCreateInfoEXT,
    vk.PhysicalDeviceImageDrmFormatModifierInfoEXT,
)


def modifier_structs(chain: Iterable[Any]) -> list[Any]:
    """Return the structs of a chain that name modifiers."""
    return [node for node in chain if type(node) in _STRUCTS]


def _structs(call: Create) -> list[Any]:
    return [node for node in call.chain if type(node) in _STRUCTS[:2]]


def _not_one_struct(call: Create) -> str:
    count = len(_structs(call))
    return "" if count == 1 else str(count)


def _struct_without_tiling(call: Create) -> tuple[str, str] | None:
    given = _structs(call)
    return (enum_text(int(call.info.tiling), vk.ImageTiling), type(given[0]).__name__) if given else None


def _lists(call: Create) -> list[Any]:
    return [node for node in call.chain if type(node) is vk.ImageDrmFormatModifierListCreateInfoEXT]


def _lists_nothing(call: Create) -> bool:
    return any(not len(node.drm_format_modifiers) for node in _lists(call))


def _unsuited(call: Create, modifier: int) -> str:
    """Return why the device does not support such images with the modifier; empty if it does, or was not queried."""
    answer = call.format.modifiers.get(modifier) if call.format is not None else None
    return f"{modifier:#x}: {answer.unsupported}" if answer is not None and answer.unsupported else ""


def _unsuited_in_list(call: Create) -> str:
    """The driver may choose any modifier of the list."""
    for node in _lists(call):
        problems = [_unsuited(call, int(modifier)) for modifier in node.drm_format_modifiers]
        if any(problems):
            return "; ".join(problem for problem in problems if problem)
    return ""


def _unsuited_explicit(call: Create) -> str:
    return _unsuited(call, int(call.explicit.drm_format_modifier))


def _other_planes(call: Create) -> tuple[int, int, int] | None:
    """Return the numbers of layouts and of the modifier's memory planes for the format, and the modifier."""
    given, modifier = len(call.explicit.plane_layouts), int(call.explicit.drm_format_modifier)
    answer = call.format.modifiers.get(modifier) if call.format is not None else None
    if answer is None or answer.plane_count is None or answer.plane_count == given:
        return None
    return given, answer.plane_count, modifier


def _zero(vuid: str, field: str, why: str, *of_one: Condition) -> Demand:
    """Return the row that a field of each plane's layout is 0; if the image has one layer or slice, with `of_one`."""

    def broken(call: Create) -> tuple[int, int] | None:
        for plane, layout in enumerate(call.explicit.plane_layouts):
            given = int(getattr(layout, field))
            if given:
                return plane, given
        return None

    where = f"{_EXPLICIT_PATH}.plane_layouts[{{found[0]}}].{field}"
    problem = f"it is {{found[1]}}, and {why}"
    return Demand(vuid, all_of(*of_one, broken), where, problem, "Give 0.", needs=Traits.EXPLICIT)


def _wrong_number_queried(call: Create) -> tuple[str, int] | None:
    """A query with tiling DRM_FORMAT_MODIFIER names one modifier, and any other query names none."""
    count = sum(type(node) is vk.PhysicalDeviceImageDrmFormatModifierInfoEXT for node in call.chain)
    return None if has_modifier(call.info) == bool(count) else (enum_text(int(call.info.tiling), vk.ImageTiling), count)


def _too_few_families(call: Create) -> str:
    count = len(call.queried.queue_family_indices)
    return "" if count > 1 else f"{count} elements"


def _wrong_families(call: Create) -> str:
    given = [int(index) for index in call.queried.queue_family_indices]
    count = call.device.queue_family_count if call.device is not None else None
    if any(count is not None and index >= count for index in given):
        return f"it is {given}, and the device has {count} queue families"
    return f"it is {given}" if len(set(given)) < len(given) else ""


_SUITED = (
    "Give modifiers that get_physical_device_format_properties2 lists for the format and "
    "get_physical_device_image_format_properties2 accepts for such an image."
)
_MUTABLE = Demand(
    (f"{_CREATE}-tiling-02353", f"{_QUERY}-tiling-02313"),
    has_bits("info.flags", vk.ImageCreateFlagBits.MUTABLE_FORMAT),
    "{call.struct}.flags",
    "MUTABLE_FORMAT is given with tiling DRM_FORMAT_MODIFIER_EXT, and no ImageFormatListCreateInfo",
    "Omit MUTABLE_FORMAT.",
    needs=Traits.MODIFIER | Traits.FLAGS,
)
_FAMILIES = f"{_QUERY_PATH}.queue_family_indices"

demand(
    CREATE_IMAGE,
    Demand(  # a list of modifiers to choose from, or one modifier with its planes
        f"{_CREATE}-tiling-02261",
        _not_one_struct,
        "ImageCreateInfo.tiling",
        "it is DRM_FORMAT_MODIFIER_EXT, and the chain has {found} of ImageDrmFormatModifierListCreateInfoEXT and "
        "ImageDrmFormatModifierExplicitCreateInfoEXT",
        "Chain one of the two, or give ImageTiling.OPTIMAL or LINEAR.",
        needs=Traits.MODIFIER,
    ),
    Demand(
        f"{_CREATE}-pNext-02262",
        _struct_without_tiling,
        "ImageCreateInfo.tiling",
        "it is {found[0]}, and {found[1]} is in the chain",
        "Give ImageTiling.DRM_FORMAT_MODIFIER_EXT, or take the struct out of the chain.",
        never=Traits.MODIFIER,
    ),
)
demand((CREATE_IMAGE, FORMAT_QUERY), _MUTABLE)
demand(
    CREATE_IMAGE,
    Demand(
        f"{_LIST}-drmFormatModifierCount-arraylength",
        _lists_nothing,
        _LIST_PATH,
        "it is empty",
        "List at least one modifier.",
    ),
    Demand(f"{_LIST}-pDrmFormatModifiers-02263", _unsuited_in_list, _LIST_PATH, "{found}", _SUITED),
    Demand(
        f"{_EXPLICIT}-drmFormatModifier-02264",
        _unsuited_explicit,
        f"{_EXPLICIT_PATH}.drm_format_modifier",
        "{found}",
        _SUITED,
        needs=Traits.EXPLICIT,
    ),
    Demand(
        f"{_EXPLICIT}-drmFormatModifierPlaneCount-arraylength",
        is_zero("explicit.plane_layouts"),
        f"{_EXPLICIT_PATH}.plane_layouts",
        "it is empty",
        "Give a SubresourceLayout for each memory plane.",
        needs=Traits.EXPLICIT,
    ),
    Demand(
        f"{_EXPLICIT}-drmFormatModifierPlaneCount-02265",
        _other_planes,
        f"{_EXPLICIT_PATH}.plane_layouts",
        "it has {found[0]}, and {call.format_name} has {found[1]} memory planes with modifier {found[2]:#x}",
        "Give {found[1]}.",
        needs=Traits.EXPLICIT,
    ),
    _zero(f"{_EXPLICIT}-size-02267", "size", "the driver computes it"),
    _zero(f"{_EXPLICIT}-arrayPitch-02268", "array_pitch", "the image has one layer", equals("info.array_layers", 1)),
    _zero(f"{_EXPLICIT}-depthPitch-02269", "depth_pitch", "the image has a depth of 1", equals("info.extent.depth", 1)),
)
demand(
    FORMAT_QUERY,
    Demand(
        f"{_QUERY}-tiling-02249",
        _wrong_number_queried,
        "PhysicalDeviceImageFormatInfo2.tiling",
        "it is {found[0]}, and the chain has {found[1]} of PhysicalDeviceImageDrmFormatModifierInfoEXT",
        "Give ImageTiling.OPTIMAL or LINEAR, or DRM_FORMAT_MODIFIER_EXT with the struct that names the modifier.",
    ),
    Demand(
        f"{_QUERY_MODIFIER}-sharingMode-parameter",
        not_one_of("queried.sharing_mode", frozenset(vk.SharingMode)),
        f"{_QUERY_PATH}.sharing_mode",
        "{call.queried.sharing_mode:d} is not a sharing mode",
        "Give SharingMode.EXCLUSIVE or CONCURRENT.",
        needs=Traits.QUERY_MODIFIER,
    ),
    Demand(
        f"{_QUERY_MODIFIER}-sharingMode-02314",
        is_zero("queried.queue_family_indices"),
        _FAMILIES,
        "it is empty, and sharing_mode is CONCURRENT",
        "List the queue families, or use EXCLUSIVE.",
        needs=Traits.QUERY_CONCURRENT,
    ),
    Demand(
        f"{_QUERY_MODIFIER}-sharingMode-02315",
        _too_few_families,
        _FAMILIES,
        "it has {found}, and sharing_mode is CONCURRENT",
        "List at least two queue families, or use SharingMode.EXCLUSIVE.",
        needs=Traits.QUERY_CONCURRENT,
    ),
    Demand(
        f"{_QUERY_MODIFIER}-sharingMode-02316",
        _wrong_families,
        _FAMILIES,
        "{found}",
        "List each of the device's queue families that use the image, once.",
        needs=Traits.QUERY_CONCURRENT,
    ),
)


class ModifierQuery(msgspec.Struct):
    """One vkGetImageDrmFormatModifierPropertiesEXT."""

    image: ResourceFacts
    device: DeviceFacts


MODIFIER_QUERY: Suite[ModifierQuery] = Suite("vkGetImageDrmFormatModifierPropertiesEXT")


_WHERE = "vkGetImageDrmFormatModifierPropertiesEXT.image"


def _other_tiling(call: ModifierQuery) -> str:
    info = call.image.create_info
    if not isinstance(info, vk.ImageCreateInfo) or has_modifier(info):
        return ""
    return enum_text(int(info.tiling), vk.ImageTiling)


def _other_device(call: ModifierQuery) -> bool:
    return call.image.device_identity not in (0, call.device.identity)


demand(
    MODIFIER_QUERY,
    Demand(
        "vkGetImageDrmFormatModifierPropertiesEXT-image-02272",
        _other_tiling,
        _WHERE,
        "its tiling is {found}",
        "Query an image that was created with ImageTiling.DRM_FORMAT_MODIFIER_EXT.",
    ),
    Demand(
        "vkGetImageDrmFormatModifierPropertiesEXT-image-parent",
        _other_device,
        _WHERE,
        "it was created on another logical device than this one of {call.device.name!r}",
        "Query the device that created it.",
    ),
)


def check_get_image_drm_format_modifier_properties(image: ResourceFacts, device: DeviceFacts) -> list[Violation]:
    """Return all rules that querying a device for an image's modifier would break."""
    return MODIFIER_QUERY.run(ModifierQuery(image, device), 0)


class FormatQuery(msgspec.Struct):
    """One vkGetPhysicalDeviceFormatProperties2."""

    format: int
    device: DeviceFacts | None


PROPERTIES: Suite[FormatQuery] = Suite("vkGetPhysicalDeviceFormatProperties2")
_FORMAT = "vkGetPhysicalDeviceFormatProperties2-format-parameter"
_FORMAT_WHERE = "vkGetPhysicalDeviceFormatProperties2.format"
_AVAILABLE = "Give one of vk.Format that the device has."
demand(PROPERTIES, Demand(_FORMAT, unavailable_format("format"), _FORMAT_WHERE, "{found}", _AVAILABLE))


def check_format_properties(vk_format: int, device: DeviceFacts | None = None) -> list[Violation]:
    """Return all rules that querying a format would break. `device`: as in `check_external_buffer_info`."""
    if not is_u32(vk_format):
        return [misfit(f"VUID-{_FORMAT}", _FORMAT_WHERE, vk_format, "one of vk.Format")]
    return PROPERTIES.run(FormatQuery(int(vk_format), device), 0)
