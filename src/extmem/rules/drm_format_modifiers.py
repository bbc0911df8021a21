"""Images of tiling DRM_FORMAT_MODIFIER: creating them, and queries about them and their formats.

The modifiers of a format, and their numbers of memory planes, come from a query of the device
(`ImageFormatFacts.modifiers`). If it was not queried, the rules that need them report nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from extmem import vk
from extmem.rules._creation import CREATE_IMAGE, FORMAT_QUERY, Create
from extmem.rules._enabled import FORMATS, lacks
from extmem.rules._engine import Check, Finding, Suite, rule
from extmem.rules._field_types import is_u32, misfit
from extmem.rules._text import enum_text
from extmem.rules.facts import DeviceFacts, ModifierFacts, ResourceFacts
from extmem.rules.violation import Violation
from extmem.vk.formats import format_name
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
_MUTABLE = int(vk.ImageCreateFlagBits.MUTABLE_FORMAT)
_CONCURRENT = int(vk.SharingMode.CONCURRENT)
_EXTENSION_FORMATS = 1_000_000_000


def modifier_structs(chain: Iterable[Any]) -> list[Any]:
    """Return the structs of a chain that name modifiers."""
    return [node for node in chain if type(node) in _STRUCTS]


def _create_structs(call: Create) -> list[Any]:
    return [node for node in call.chain if type(node) in _STRUCTS[:2]]


def _explicit(call: Create) -> vk.ImageDrmFormatModifierExplicitCreateInfoEXT | None:
    return next((node for node in call.chain if type(node) is vk.ImageDrmFormatModifierExplicitCreateInfoEXT), None)


def _answer(call: Create, modifier: int) -> ModifierFacts | None:
    return call.format.modifiers.get(modifier) if call.format is not None else None


# Creating.


@rule(f"{_CREATE}-tiling-02261", on=CREATE_IMAGE)
def modifiers_are_given(call: Create) -> Finding | None:
    """The chain has one of the two structs: a list of modifiers to choose from, or one modifier with its planes."""
    count = len(_create_structs(call))
    if not has_modifier(call.info) or count == 1:
        return None
    return (
        "ImageCreateInfo.tiling",
        f"it is DRM_FORMAT_MODIFIER_EXT, and the chain has {count} of ImageDrmFormatModifierListCreateInfoEXT and "
        "ImageDrmFormatModifierExplicitCreateInfoEXT",
        "Chain one of the two, or give ImageTiling.OPTIMAL or LINEAR.",
    )


@rule(f"{_CREATE}-pNext-02262", on=CREATE_IMAGE)
def modifiers_are_for_their_tiling(call: Create) -> Finding | None:
    """The structs are chained with tiling DRM_FORMAT_MODIFIER only."""
    given = _create_structs(call)
    if not given or has_modifier(call.info):
        return None
    return (
        "ImageCreateInfo.tiling",
        f"it is {enum_text(int(call.info.tiling), vk.ImageTiling)}, and {type(given[0]).__name__} is in the chain",
        "Give ImageTiling.DRM_FORMAT_MODIFIER_EXT, or take the struct out of the chain.",
    )


def _listed(call: Create) -> Finding | None:
    """An image of a modifier that can be viewed in other formats lists them in ImageFormatListCreateInfo."""
    if not has_modifier(call.info) or not int(call.info.flags) & _MUTABLE:
        return None
    return (
        f"{type(call.info).__name__}.flags",
        "MUTABLE_FORMAT is given with tiling DRM_FORMAT_MODIFIER_EXT, and no ImageFormatListCreateInfo",
        "Omit MUTABLE_FORMAT.",
    )


rule(f"{_CREATE}-tiling-02353", f"{_QUERY}-tiling-02313", on=(CREATE_IMAGE, FORMAT_QUERY))(_listed)


@rule(f"{_LIST}-drmFormatModifierCount-arraylength", on=CREATE_IMAGE)
def a_modifier_is_listed(call: Create) -> Finding | None:
    """The list has a modifier, of which the driver chooses one."""
    for node in call.chain:
        if type(node) is vk.ImageDrmFormatModifierListCreateInfoEXT and not len(node.drm_format_modifiers):
            return _LIST_PATH, "it is empty", "List at least one modifier."
    return None


@rule(f"{_LIST}-pDrmFormatModifiers-02263", on=CREATE_IMAGE)
def listed_modifiers_suit(call: Create) -> Finding | None:
    """The device supports such images with each modifier of the list, because the driver may choose any."""
    for node in call.chain:
        if type(node) is vk.ImageDrmFormatModifierListCreateInfoEXT:
            results = [_unsuited(call, int(modifier)) for modifier in node.drm_format_modifiers]
            problems = [problem for problem in results if problem]
            if problems:
                return _LIST_PATH, "; ".join(problems), _SUITED
    return None


@rule(f"{_EXPLICIT}-drmFormatModifier-02264", on=CREATE_IMAGE)
def the_explicit_modifier_suits(call: Create) -> Finding | None:
    """The device supports such images with the modifier."""
    explicit = _explicit(call)
    problem = _unsuited(call, int(explicit.drm_format_modifier)) if explicit is not None else ""
    return (f"{_EXPLICIT_PATH}.drm_format_modifier", problem, _SUITED) if problem else None


_SUITED = (
    "Give modifiers that get_physical_device_format_properties2 lists for the format and "
    "get_physical_device_image_format_properties2 accepts for such an image."
)


def _unsuited(call: Create, modifier: int) -> str:
    answer = _answer(call, modifier)
    return f"{modifier:#x}: {answer.unsupported}" if answer is not None and answer.unsupported else ""


@rule(f"{_EXPLICIT}-drmFormatModifierPlaneCount-arraylength", on=CREATE_IMAGE)
def a_plane_is_placed(call: Create) -> Finding | None:
    """The layouts are not empty: every image has a memory plane."""
    explicit = _explicit(call)
    if explicit is None or len(explicit.plane_layouts):
        return None
    return f"{_EXPLICIT_PATH}.plane_layouts", "it is empty", "Give a SubresourceLayout for each memory plane."


@rule(f"{_EXPLICIT}-drmFormatModifierPlaneCount-02265", on=CREATE_IMAGE)
def all_planes_are_placed(call: Create) -> Finding | None:
    """The number of layouts is the number of the modifier's memory planes for the format."""
    explicit = _explicit(call)
    answer = _answer(call, int(explicit.drm_format_modifier)) if explicit is not None else None
    if explicit is None or answer is None or answer.plane_count in (None, len(explicit.plane_layouts)):
        return None
    return (
        f"{_EXPLICIT_PATH}.plane_layouts",
        f"it has {len(explicit.plane_layouts)}, and {format_name(int(call.info.format))} has {answer.plane_count} "
        f"memory planes with modifier {int(explicit.drm_format_modifier):#x}",
        f"Give {answer.plane_count}.",
    )


def _zero(field: str, why: str, *, of_one: str = "") -> Check[Create]:
    """Make the check that a field of each plane's layout is 0: always, or if the image has one layer or one slice."""

    def check(call: Create) -> Finding | None:
        explicit, info = _explicit(call), call.info
        several = {"": 1, "array_layers": int(info.array_layers), "depth": int(info.extent.depth)}[of_one]
        if explicit is None or several != 1:
            return None
        for plane, layout in enumerate(explicit.plane_layouts):
            given = int(getattr(layout, field))
            if given:
                return f"{_EXPLICIT_PATH}.plane_layouts[{plane}].{field}", f"it is {given}, and {why}", "Give 0."
        return None

    return check


rule(f"{_EXPLICIT}-size-02267", on=CREATE_IMAGE)(_zero("size", "the driver computes it"))
rule(f"{_EXPLICIT}-arrayPitch-02268", on=CREATE_IMAGE)(
    _zero("array_pitch", "the image has one layer", of_one="array_layers")
)
rule(f"{_EXPLICIT}-depthPitch-02269", on=CREATE_IMAGE)(
    _zero("depth_pitch", "the image has a depth of 1", of_one="depth")
)


# Queries.


@rule(f"{_QUERY}-tiling-02249", on=FORMAT_QUERY)
def modifier_is_asked_about(call: Create) -> Finding | None:
    """A query with tiling DRM_FORMAT_MODIFIER names one modifier, and any other query names none."""
    count = sum(type(node) is vk.PhysicalDeviceImageDrmFormatModifierInfoEXT for node in call.chain)
    if has_modifier(call.info) == bool(count):
        return None
    return (
        "PhysicalDeviceImageFormatInfo2.tiling",
        f"it is {enum_text(int(call.info.tiling), vk.ImageTiling)}, and the chain has {count} of "
        "PhysicalDeviceImageDrmFormatModifierInfoEXT",
        "Give ImageTiling.OPTIMAL or LINEAR, or DRM_FORMAT_MODIFIER_EXT with the struct that names the modifier.",
    )


def _query_struct(call: Create) -> vk.PhysicalDeviceImageDrmFormatModifierInfoEXT | None:
    return next((node for node in call.chain if type(node) is vk.PhysicalDeviceImageDrmFormatModifierInfoEXT), None)


def _concurrent_families(call: Create) -> list[int] | None:
    """Return the queue families of a query about a concurrent image; None for any other query."""
    query = _query_struct(call)
    if query is None or int(query.sharing_mode) != _CONCURRENT:
        return None
    return [int(index) for index in query.queue_family_indices]


@rule(f"{_QUERY_MODIFIER}-sharingMode-parameter", on=FORMAT_QUERY)
def sharing_mode_is_defined(call: Create) -> Finding | None:
    """The sharing mode is EXCLUSIVE or CONCURRENT."""
    query = _query_struct(call)
    if query is None or int(query.sharing_mode) in (vk.SharingMode.EXCLUSIVE, vk.SharingMode.CONCURRENT):
        return None
    problem = f"{enum_text(int(query.sharing_mode), vk.SharingMode)} is not a sharing mode"
    return f"{_QUERY_PATH}.sharing_mode", problem, "Give SharingMode.EXCLUSIVE or CONCURRENT."


_FAMILIES = f"{_QUERY_PATH}.queue_family_indices"


@rule(f"{_QUERY_MODIFIER}-sharingMode-02314", on=FORMAT_QUERY)
def families_are_given(call: Create) -> Finding | None:
    """The queue families of a concurrent image are listed."""
    if _concurrent_families(call) != []:
        return None
    return _FAMILIES, "it is empty, and sharing_mode is CONCURRENT", "List the queue families, or use EXCLUSIVE."


@rule(f"{_QUERY_MODIFIER}-sharingMode-02315", on=FORMAT_QUERY)
def families_are_several(call: Create) -> Finding | None:
    """A concurrent image is used by at least two queue families."""
    given = _concurrent_families(call)
    if given is None or len(given) > 1:
        return None
    problem = f"it has {len(given)} elements, and sharing_mode is CONCURRENT"
    return _FAMILIES, problem, "List at least two queue families, or use SharingMode.EXCLUSIVE."


@rule(f"{_QUERY_MODIFIER}-sharingMode-02316", on=FORMAT_QUERY)
def families_exist(call: Create) -> Finding | None:
    """Each queue family exists on the device and is listed once."""
    given = _concurrent_families(call) or []
    count = call.device.queue_family_count if call.device is not None else None
    beyond = [index for index in dict.fromkeys(given) if count is not None and index >= count]
    if len(set(given)) == len(given) and not beyond:
        return None
    problem = f"it is {given}, and the device has {count} queue families" if beyond else f"it is {given}"
    return _FAMILIES, problem, "List each of the device's queue families that use the image, once."


@dataclass(slots=True)
class ModifierQuery:
    """One vkGetImageDrmFormatModifierPropertiesEXT."""

    image: ResourceFacts
    device: DeviceFacts


MODIFIER_QUERY: Suite[ModifierQuery] = Suite("vkGetImageDrmFormatModifierPropertiesEXT")


@rule("vkGetImageDrmFormatModifierPropertiesEXT-image-02272", on=MODIFIER_QUERY)
def image_has_a_modifier(call: ModifierQuery) -> Finding | None:
    """The image's tiling is DRM_FORMAT_MODIFIER."""
    info = call.image.create_info
    if not isinstance(info, vk.ImageCreateInfo) or has_modifier(info):
        return None
    return (
        "vkGetImageDrmFormatModifierPropertiesEXT.image",
        f"its tiling is {enum_text(int(info.tiling), vk.ImageTiling)}",
        "Query an image that was created with ImageTiling.DRM_FORMAT_MODIFIER_EXT.",
    )


@rule("vkGetImageDrmFormatModifierPropertiesEXT-image-parent", on=MODIFIER_QUERY)
def image_is_of_this_device(call: ModifierQuery) -> Finding | None:
    """The image was created on the device that is queried."""
    if not call.image.device_identity or call.image.device_identity == call.device.identity:
        return None
    return (
        "vkGetImageDrmFormatModifierPropertiesEXT.image",
        f"it was created on another logical device than this one of {call.device.name!r}",
        "Query the device that created it.",
    )


def check_get_image_drm_format_modifier_properties(image: ResourceFacts, device: DeviceFacts) -> list[Violation]:
    """Return all rules that querying a device for an image's modifier would break."""
    return MODIFIER_QUERY.run(ModifierQuery(image, device), 0)


@dataclass(slots=True)
class FormatQuery:
    """One vkGetPhysicalDeviceFormatProperties2."""

    format: int
    device: DeviceFacts | None


PROPERTIES: Suite[FormatQuery] = Suite("vkGetPhysicalDeviceFormatProperties2")
_FORMAT = "vkGetPhysicalDeviceFormatProperties2-format-parameter"
_FORMAT_WHERE = "vkGetPhysicalDeviceFormatProperties2.format"
_KNOWN = frozenset(int(one) for one in vk.Format)


@rule(_FORMAT, on=PROPERTIES)
def format_is_enabled(call: FormatQuery) -> Finding | None:
    """The registry defines the format, and the device's version or extensions contain it."""
    given = call.format
    problem = f"{given} is not a format"
    if given in _KNOWN:
        needs = FORMATS.get((given - _EXTENSION_FORMATS) // 1000) if given >= _EXTENSION_FORMATS else None
        if needs is None or not lacks(needs, call.device):
            return None
        problem = f"{format_name(given)} needs {needs.text}, which is not enabled"
    return _FORMAT_WHERE, problem, "Give one of vk.Format that the device has."


def check_format_properties(vk_format: int, device: DeviceFacts | None = None) -> list[Violation]:
    """Return all rules that querying a format would break. `device`: as in `check_external_buffer_info`."""
    if not is_u32(vk_format):
        return [misfit(f"VUID-{_FORMAT}", _FORMAT_WHERE, vk_format, "one of vk.Format")]
    return PROPERTIES.run(FormatQuery(int(vk_format), device), 0)
