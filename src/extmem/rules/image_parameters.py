"""Format, type, tiling, usage and flags of images, and which of them can be combined.

The first rules apply both to creating an image and to querying its properties: a device must not be queried about
values that it does not define.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from extmem import vk
from extmem.rules._conditions import all_of, has_bits, is_zero, not_one_of
from extmem.rules._creation import CREATE_IMAGE, FORMAT_QUERY, Create, Traits, chain_demands, enabled_bits
from extmem.rules._enabled import FORMATS, IMAGE_FLAGS, IMAGE_USAGES, lacks
from extmem.rules._engine import Condition, Demand, Finding, demand
from extmem.rules._text import enum_text, flags_text
from extmem.vk.formats import FormatFacts, format_facts, format_name
from extmem.vk.modifiers import EXTENSION as MODIFIERS

__all__ = ["unavailable_format"]

_CREATE, _QUERY = "VkImageCreateInfo", "VkPhysicalDeviceImageFormatInfo2"
_FLAGS, _USAGE = "ImageCreateInfo.flags", "ImageCreateInfo.usage"
_Flag, _Usage = vk.ImageCreateFlagBits, vk.ImageUsageFlagBits
_2D = int(vk.ImageType.TYPE_2D)
_DRM = int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT)
_ON_BOTH = (CREATE_IMAGE, FORMAT_QUERY)
_EXTENSION_FORMATS = 1_000_000_000
_FORMATS = frozenset(int(f) for f in vk.Format)
_TYPES = frozenset(int(image_type) for image_type in vk.ImageType)
_TILINGS = frozenset(int(tiling) for tiling in vk.ImageTiling)
_TRANSIENT = int(_Usage.TRANSIENT_ATTACHMENT)
_ATTACHMENT = int(_Usage.COLOR_ATTACHMENT | _Usage.DEPTH_STENCIL_ATTACHMENT | _Usage.INPUT_ATTACHMENT)
_SPLIT, _BLOCK_VIEWS = _Flag.SPLIT_INSTANCE_BIND_REGIONS, _Flag.BLOCK_TEXEL_VIEW_COMPATIBLE


def unavailable_format(field: str) -> Condition:
    """Make the condition that the registry does not define the format, or the device does not have it: the reason."""
    value = attrgetter(field)

    def broken(call: Any) -> str:
        given = int(value(call))
        if given not in _FORMATS:
            return f"{given} is not a format"
        needs = FORMATS.get((given - _EXTENSION_FORMATS) // 1000) if given >= _EXTENSION_FORMATS else None
        if needs is None or not lacks(needs, call.device):
            return ""
        return f"{format_name(given)} needs {needs.text}, which is not enabled"

    return broken


def _ids(tail: str) -> tuple[str, str]:
    return f"{_CREATE}-{tail}", f"{_QUERY}-{tail}"


def _unavailable_tiling(call: Create) -> str:
    given, extensions = int(call.info.tiling), call.device.extensions if call.device is not None else None
    if given == _DRM and extensions is not None and MODIFIERS not in extensions:
        return f"DRM_FORMAT_MODIFIER_EXT needs {MODIFIERS}, which is not enabled"
    return "" if given in _TILINGS else f"{given} is not a tiling"


def _format(call: Create) -> FormatFacts | None:
    return format_facts(int(call.info.format))


def _format_has_no(property_name: str) -> Condition:
    """Make the condition that this property of the format is 0, empty or unknown."""

    def broken(call: Create) -> bool:
        return not getattr(_format(call), property_name, None)

    return broken


def _is_converted(call: Create) -> bool:
    """Sampling the image requires a Y'CbCr conversion."""
    facts = _format(call)
    return facts is not None and facts.chroma


def _usage_beside_transient(call: Create) -> str:
    others = int(call.info.usage) & ~(_TRANSIENT | _ATTACHMENT)
    return flags_text(others, _Usage) if others else ""


def _one_device(call: Create) -> bool:
    return call.device is None or len(call.device.device_group) < 2


def _split_images_are_plain(call: Create) -> Finding | None:
    """Images for split instance binding are 2D, have one level and one layer, and do not have LINEAR tiling."""
    info = call.info
    if not int(info.flags) & int(_SPLIT):
        return None
    single = int(info.mip_levels) == int(info.array_layers) == 1
    if single and call.image_type == _2D and int(info.tiling) != int(vk.ImageTiling.LINEAR):
        return None
    return (
        _FLAGS,
        f"SPLIT_INSTANCE_BIND_REGIONS is given for {call.image_type_text} with "
        f"{int(info.mip_levels)} mip levels, {int(info.array_layers)} layers and tiling "
        f"{enum_text(int(info.tiling), vk.ImageTiling)}",
        "Make it TYPE_2D with one level, one layer and OPTIMAL tiling.",
    )


def _type_is_defined(vuid: str, field: str) -> Demand:
    return Demand(
        vuid,
        not_one_of(f"info.{field}", _TYPES),
        f"{{call.struct}}.{field}",
        "{call.image_type} is not an image type",
        "Give one of vk.ImageType.",
    )


def _only(number: str, flag: vk.ImageCreateFlagBits, image_type: vk.ImageType, trait: int) -> Demand:
    """Return the row that the flag is used with images of one type only."""
    name = flags_text(int(flag), _Flag)
    return Demand(
        f"{_CREATE}-flags-{number}",
        has_bits("info.flags", flag),
        _FLAGS,
        f"{name} is for {image_type.name}, and image_type is {{call.image_type_text}}",
        f"Omit {name}, or use ImageType.{image_type.name}.",
        needs=Traits.FLAGS,
        never=trait,
    )


def _even(vuid: str, side: str, axis: int) -> Demand:
    """Return the row that the side is even, if two texels share one chroma sample along it."""
    value = attrgetter(f"info.extent.{side}")

    def broken(call: Create) -> tuple[int, int] | None:
        facts, length = _format(call), int(value(call))
        if facts is None or facts.chroma_extent[axis] != 2 or not length % 2:
            return None
        return length, length + 1

    return Demand(
        vuid,
        broken,
        f"ImageCreateInfo.extent.{side}",
        "it is {found[0]}, and {call.format_name} needs a multiple of 2",
        "Give {found[1]}.",
    )


demand(FORMAT_QUERY, *chain_demands(_QUERY))
demand(
    _ON_BOTH,
    enabled_bits(_ids("flags-parameter"), "flags", _Flag, IMAGE_FLAGS),
    enabled_bits(_ids("usage-parameter"), "usage", _Usage, IMAGE_USAGES),
    Demand(
        _ids("usage-requiredbitmask"),
        is_zero("info.usage"),
        "{call.struct}.usage",
        "it is 0",
        "State what the image is for, such as ImageUsageFlagBits.TRANSFER_SRC.",
    ),
    Demand(
        _ids("format-parameter"),
        unavailable_format("info.format"),
        "{call.struct}.format",
        "{found}",
        "Give one of vk.Format that the device has.",
    ),
)
demand(CREATE_IMAGE, _type_is_defined(f"{_CREATE}-imageType-parameter", "image_type"))
demand(FORMAT_QUERY, _type_is_defined(f"{_QUERY}-type-parameter", "type"))
demand(
    _ON_BOTH,
    Demand(
        _ids("tiling-parameter"),
        _unavailable_tiling,
        "{call.struct}.tiling",
        "{found}",
        "Give ImageTiling.OPTIMAL or LINEAR.",
    ),
)
demand(
    CREATE_IMAGE,
    Demand(  # UNDEFINED is for Android's external formats only
        f"{_CREATE}-pNext-01975",
        is_zero("info.format"),
        "ImageCreateInfo.format",
        "it is UNDEFINED",
        "Give a format, such as Format.R8G8B8A8_UNORM.",
    ),
    _only("00949", _Flag.CUBE_COMPATIBLE, vk.ImageType.TYPE_2D, Traits.TYPE_2D),
    _only("00950", _Flag.CREATE_2D_ARRAY_COMPATIBLE, vk.ImageType.TYPE_3D, Traits.TYPE_3D),
    _only("07755", _Flag.CREATE_2D_VIEW_COMPATIBLE_EXT, vk.ImageType.TYPE_3D, Traits.TYPE_3D),
    Demand(
        f"{_CREATE}-usage-00963",
        all_of(has_bits("info.usage", _TRANSIENT), _usage_beside_transient),
        _USAGE,
        "TRANSIENT_ATTACHMENT is given with {found}",
        "Omit one of the two: {found}, or TRANSIENT_ATTACHMENT.",
    ),
    Demand(
        f"{_CREATE}-usage-00966",
        has_bits("info.usage", _TRANSIENT, without=_ATTACHMENT),
        _USAGE,
        "TRANSIENT_ATTACHMENT is given without another attachment usage",
        "Add COLOR_ATTACHMENT, DEPTH_STENCIL_ATTACHMENT or INPUT_ATTACHMENT.",
    ),
    Demand(
        f"{_CREATE}-physicalDeviceCount-01421",
        all_of(has_bits("info.flags", _SPLIT), _one_device),
        _FLAGS,
        "SPLIT_INSTANCE_BIND_REGIONS is given on a device that was created from one physical device",
        "Omit SPLIT_INSTANCE_BIND_REGIONS.",
        needs=Traits.FLAGS,
    ),
    Demand(f"{_CREATE}-flags-02259", _split_images_are_plain, needs=Traits.FLAGS),
    Demand(
        f"{_CREATE}-flags-01572",
        all_of(has_bits("info.flags", _BLOCK_VIEWS), _format_has_no("compressed")),
        _FLAGS,
        "BLOCK_TEXEL_VIEW_COMPATIBLE is given for {call.format_name}, which is not compressed",
        "Omit BLOCK_TEXEL_VIEW_COMPATIBLE.",
        needs=Traits.FLAGS,
    ),
    Demand(  # the views have another format than the image
        f"{_CREATE}-flags-01573",
        has_bits("info.flags", _BLOCK_VIEWS, without=_Flag.MUTABLE_FORMAT),
        _FLAGS,
        "BLOCK_TEXEL_VIEW_COMPATIBLE is given without MUTABLE_FORMAT",
        "Add MUTABLE_FORMAT, or omit BLOCK_TEXEL_VIEW_COMPATIBLE.",
        needs=Traits.FLAGS,
    ),
    Demand(
        f"{_CREATE}-flags-01533",
        all_of(has_bits("info.flags", _Flag.SAMPLE_LOCATIONS_COMPATIBLE_DEPTH_EXT), _format_has_no("depth_size")),
        _FLAGS,
        "SAMPLE_LOCATIONS_COMPATIBLE_DEPTH is given for {call.format_name}, which has no depth",
        "Omit SAMPLE_LOCATIONS_COMPATIBLE_DEPTH.",
        needs=Traits.FLAGS,
    ),
    Demand(
        f"{_CREATE}-format-01577",
        all_of(has_bits("info.flags", _Flag.DISJOINT, without=_Flag.ALIAS), _format_has_no("planes")),
        _FLAGS,
        "DISJOINT is given for {call.format_name}, which has one plane",
        "Omit DISJOINT.",
        needs=Traits.FLAGS,
    ),
    Demand(
        f"{_CREATE}-format-06410",
        all_of(not_one_of("info.mip_levels", (0, 1)), _is_converted),
        "ImageCreateInfo.mip_levels",
        "{call.format_name} with {call.info.mip_levels:d} mip levels",
        "Give 1.",
    ),
    Demand(
        f"{_CREATE}-format-06411",
        all_of(not_one_of("info.samples", (1,)), _is_converted),
        "ImageCreateInfo.samples",
        "{call.format_name} with {call.info.samples:d} samples",
        "Give SampleCountFlagBits.COUNT_1.",
    ),
    Demand(
        f"{_CREATE}-format-06412",
        _is_converted,
        "ImageCreateInfo.image_type",
        "{call.format_name} with image_type {call.image_type_text}",
        "Give ImageType.TYPE_2D.",
        never=Traits.TYPE_2D,
    ),
    _even(f"{_CREATE}-format-04712", "width", 0),
    _even(f"{_CREATE}-format-04713", "height", 1),
)
