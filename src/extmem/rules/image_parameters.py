"""Format, type, tiling, usage and flags of images, and which of them can be combined.

The first rules apply both to creating an image and to querying its properties: a device must not be queried about
values that it does not define.
"""

from __future__ import annotations

from collections.abc import Callable

from extmem import vk
from extmem.rules._creation import CREATE_IMAGE, FORMAT_QUERY, Create, foreign_structs, repeated_structs
from extmem.rules._enabled import FORMATS, IMAGE_FLAGS, IMAGE_USAGES, lacking_bits, lacks
from extmem.rules._engine import Check, Finding, rule
from extmem.rules._text import enum_text, flags_text
from extmem.vk.formats import FormatFacts, format_facts, format_name
from extmem.vk.modifiers import EXTENSION as MODIFIERS

__all__: list[str] = []

_CREATE, _QUERY = "VkImageCreateInfo", "VkPhysicalDeviceImageFormatInfo2"
_Flag, _Usage = vk.ImageCreateFlagBits, vk.ImageUsageFlagBits
_2D, _3D = int(vk.ImageType.TYPE_2D), int(vk.ImageType.TYPE_3D)
_DRM = int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT)
_ON_BOTH = (CREATE_IMAGE, FORMAT_QUERY)
_EXTENSION_FORMATS = 1_000_000_000


def _ids(tail: str) -> tuple[str, str]:
    return f"{_CREATE}-{tail}", f"{_QUERY}-{tail}"


def _path(call: Create, field: str) -> str:
    return f"{type(call.info).__name__}.{field}"


def _format(call: Create) -> FormatFacts | None:
    return format_facts(int(call.info.format))


def _image_type(call: Create) -> int:
    info = call.info
    return int(info.image_type if isinstance(info, vk.ImageCreateInfo) else info.type)


@rule(f"{_QUERY}-pNext-pNext", on=FORMAT_QUERY)
def only_extending_structs(call: Create) -> Finding | None:
    """The chain contains only structs that extend the query."""
    return foreign_structs(call, _QUERY)


@rule(f"{_QUERY}-sType-unique", on=FORMAT_QUERY)
def each_struct_once(call: Create) -> Finding | None:
    """The chain contains each struct type once."""
    return repeated_structs(call)


@rule(*_ids("flags-parameter"), on=_ON_BOTH)
def flags_are_enabled(call: Create) -> Finding | None:
    """The flags are defined bits, and enabled on the device."""
    problem = lacking_bits(int(call.info.flags), _Flag, IMAGE_FLAGS, call.device)
    return (_path(call, "flags"), problem, "Give bits of ImageCreateFlagBits that the device has.") if problem else None


@rule(*_ids("usage-parameter"), on=_ON_BOTH)
def usage_is_enabled(call: Create) -> Finding | None:
    """The usage has defined and enabled bits only."""
    problem = lacking_bits(int(call.info.usage), _Usage, IMAGE_USAGES, call.device)
    if not problem:
        return None
    return _path(call, "usage"), problem, "Give bits of ImageUsageFlagBits that the device has."


@rule(*_ids("usage-requiredbitmask"), on=_ON_BOTH)
def usage_is_given(call: Create) -> Finding | None:
    """The usage is not 0."""
    if int(call.info.usage):
        return None
    return _path(call, "usage"), "it is 0", "State what the image is for, such as ImageUsageFlagBits.TRANSFER_SRC."


@rule(*_ids("format-parameter"), on=_ON_BOTH)
def format_is_enabled(call: Create) -> Finding | None:
    """The registry defines the format, and the device's version or extensions contain it."""
    given = int(call.info.format)
    problem = f"{given} is not a format"
    if given in _FORMATS:
        needs = FORMATS.get((given - _EXTENSION_FORMATS) // 1000) if given >= _EXTENSION_FORMATS else None
        if needs is None or not lacks(needs, call.device):
            return None
        problem = f"{format_name(given)} needs {needs.text}, which is not enabled"
    return _path(call, "format"), problem, "Give one of vk.Format that the device has."


_FORMATS = frozenset(int(f) for f in vk.Format)


@rule(f"{_CREATE}-imageType-parameter", f"{_QUERY}-type-parameter", on=_ON_BOTH)
def type_is_defined(call: Create) -> Finding | None:
    """The image type is 1D, 2D or 3D."""
    given = _image_type(call)
    if given in _TYPES:
        return None
    field = "image_type" if isinstance(call.info, vk.ImageCreateInfo) else "type"
    return _path(call, field), f"{given} is not an image type", "Give one of vk.ImageType."


_TYPES = frozenset(int(image_type) for image_type in vk.ImageType)


@rule(*_ids("tiling-parameter"), on=_ON_BOTH)
def tiling_is_enabled(call: Create) -> Finding | None:
    """The tiling is OPTIMAL or LINEAR, or, with its extension, DRM_FORMAT_MODIFIER."""
    given, extensions = int(call.info.tiling), call.device.extensions if call.device is not None else None
    if given == _DRM and extensions is not None and MODIFIERS not in extensions:
        problem = f"DRM_FORMAT_MODIFIER_EXT needs {MODIFIERS}, which is not enabled"
    elif given in _TILINGS:
        return None
    else:
        problem = f"{given} is not a tiling"
    return _path(call, "tiling"), problem, "Give ImageTiling.OPTIMAL or LINEAR."


_TILINGS = frozenset(int(tiling) for tiling in vk.ImageTiling)


@rule(f"{_CREATE}-pNext-01975", on=CREATE_IMAGE)
def format_is_given(call: Create) -> Finding | None:
    """The format is not UNDEFINED, which is for Android's external formats only."""
    if int(call.info.format):
        return None
    return "ImageCreateInfo.format", "it is UNDEFINED", "Give a format, such as Format.R8G8B8A8_UNORM."


def _only(bit: vk.ImageCreateFlagBits, image_type: vk.ImageType) -> Check[Create]:
    """Make the check that the flag is used with images of one type only."""

    def check(call: Create) -> Finding | None:
        if not int(call.info.flags) & int(bit) or _image_type(call) == int(image_type):
            return None
        name = flags_text(int(bit), _Flag)
        return (
            "ImageCreateInfo.flags",
            f"{name} is for {image_type.name}, and image_type is {enum_text(_image_type(call), vk.ImageType)}",
            f"Omit {name}, or use ImageType.{image_type.name}.",
        )

    return check


for _number, _bit, _type in (
    ("00949", _Flag.CUBE_COMPATIBLE, vk.ImageType.TYPE_2D),
    ("00950", _Flag.CREATE_2D_ARRAY_COMPATIBLE, vk.ImageType.TYPE_3D),
    ("07755", _Flag.CREATE_2D_VIEW_COMPATIBLE_EXT, vk.ImageType.TYPE_3D),
):
    rule(f"{_CREATE}-flags-{_number}", on=CREATE_IMAGE)(_only(_bit, _type))

_BESIDE_TRANSIENT = int(
    _Usage.TRANSIENT_ATTACHMENT | _Usage.COLOR_ATTACHMENT | _Usage.DEPTH_STENCIL_ATTACHMENT | _Usage.INPUT_ATTACHMENT
)
_TRANSIENT = int(_Usage.TRANSIENT_ATTACHMENT)


@rule(f"{_CREATE}-usage-00963", on=CREATE_IMAGE)
def transient_is_attachment_alone(call: Create) -> Finding | None:
    """A transient attachment has no other usage than as an attachment."""
    usage = int(call.info.usage)
    others = usage & ~_BESIDE_TRANSIENT
    if not usage & _TRANSIENT or not others:
        return None
    return (
        "ImageCreateInfo.usage",
        f"TRANSIENT_ATTACHMENT is given with {flags_text(others, _Usage)}",
        f"Omit one of the two: {flags_text(others, _Usage)}, or TRANSIENT_ATTACHMENT.",
    )


@rule(f"{_CREATE}-usage-00966", on=CREATE_IMAGE)
def transient_is_some_attachment(call: Create) -> Finding | None:
    """A transient attachment has a usage as color, depth-stencil or input attachment."""
    usage = int(call.info.usage)
    if not usage & _TRANSIENT or usage & _BESIDE_TRANSIENT & ~_TRANSIENT:
        return None
    return (
        "ImageCreateInfo.usage",
        "TRANSIENT_ATTACHMENT is given without another attachment usage",
        "Add COLOR_ATTACHMENT, DEPTH_STENCIL_ATTACHMENT or INPUT_ATTACHMENT.",
    )


@rule(f"{_CREATE}-physicalDeviceCount-01421", on=CREATE_IMAGE)
def split_needs_a_group(call: Create) -> Finding | None:
    """Split instance binding needs a device that was created from several physical devices."""
    group = call.device.device_group if call.device is not None else ()
    if not int(call.info.flags) & int(_Flag.SPLIT_INSTANCE_BIND_REGIONS) or len(group) > 1:
        return None
    return (
        "ImageCreateInfo.flags",
        "SPLIT_INSTANCE_BIND_REGIONS is given on a device that was created from one physical device",
        "Omit SPLIT_INSTANCE_BIND_REGIONS.",
    )


@rule(f"{_CREATE}-flags-02259", on=CREATE_IMAGE)
def split_images_are_plain(call: Create) -> Finding | None:
    """Images for split instance binding are 2D, have one level and one layer, and do not have LINEAR tiling."""
    info = call.info
    if not int(info.flags) & int(_Flag.SPLIT_INSTANCE_BIND_REGIONS):
        return None
    single = int(info.mip_levels) == int(info.array_layers) == 1
    if single and _image_type(call) == _2D and int(info.tiling) != int(vk.ImageTiling.LINEAR):
        return None
    return (
        "ImageCreateInfo.flags",
        f"SPLIT_INSTANCE_BIND_REGIONS is given for {enum_text(_image_type(call), vk.ImageType)} with "
        f"{int(info.mip_levels)} mip levels, {int(info.array_layers)} layers and tiling "
        f"{enum_text(int(info.tiling), vk.ImageTiling)}",
        "Make it TYPE_2D with one level, one layer and OPTIMAL tiling.",
    )


@rule(f"{_CREATE}-flags-01572", on=CREATE_IMAGE)
def block_views_are_of_blocks(call: Create) -> Finding | None:
    """Block texel views need a compressed format."""
    facts = _format(call)
    if not int(call.info.flags) & int(_Flag.BLOCK_TEXEL_VIEW_COMPATIBLE) or (facts is not None and facts.compressed):
        return None
    return (
        "ImageCreateInfo.flags",
        f"BLOCK_TEXEL_VIEW_COMPATIBLE is given for {format_name(int(call.info.format))}, which is not compressed",
        "Omit BLOCK_TEXEL_VIEW_COMPATIBLE.",
    )


@rule(f"{_CREATE}-flags-01573", on=CREATE_IMAGE)
def block_views_are_mutable(call: Create) -> Finding | None:
    """Block texel views have another format than the image, so MUTABLE_FORMAT is set too."""
    flags = int(call.info.flags)
    if not flags & int(_Flag.BLOCK_TEXEL_VIEW_COMPATIBLE) or flags & int(_Flag.MUTABLE_FORMAT):
        return None
    return (
        "ImageCreateInfo.flags",
        "BLOCK_TEXEL_VIEW_COMPATIBLE is given without MUTABLE_FORMAT",
        "Add MUTABLE_FORMAT, or omit BLOCK_TEXEL_VIEW_COMPATIBLE.",
    )


@rule(f"{_CREATE}-flags-01533", on=CREATE_IMAGE)
def sample_locations_are_of_depth(call: Create) -> Finding | None:
    """Custom sample locations need a format with depth."""
    facts, flag = _format(call), int(_Flag.SAMPLE_LOCATIONS_COMPATIBLE_DEPTH_EXT)
    if not int(call.info.flags) & flag or (facts is not None and facts.depth_size):
        return None
    return (
        "ImageCreateInfo.flags",
        f"SAMPLE_LOCATIONS_COMPATIBLE_DEPTH is given for {format_name(int(call.info.format))}, which has no depth",
        "Omit SAMPLE_LOCATIONS_COMPATIBLE_DEPTH.",
    )


@rule(f"{_CREATE}-format-01577", on=CREATE_IMAGE)
def disjoint_has_planes(call: Create) -> Finding | None:
    """Separate binding of planes needs a multi-planar format."""
    flags, facts = int(call.info.flags), _format(call)
    if not flags & int(_Flag.DISJOINT) or flags & int(_Flag.ALIAS) or (facts is not None and facts.planes):
        return None
    return (
        "ImageCreateInfo.flags",
        f"DISJOINT is given for {format_name(int(call.info.format))}, which has one plane",
        "Omit DISJOINT.",
    )


def _converted(problem: Callable[[Create], str], field: str, remedy: str) -> Check[Create]:
    """Make a check of images whose sampling requires a Y'CbCr conversion."""

    def check(call: Create) -> Finding | None:
        facts = _format(call)
        detail = problem(call) if facts is not None and facts.chroma else ""
        if not detail:
            return None
        return f"ImageCreateInfo.{field}", f"{format_name(int(call.info.format))} with {detail}", remedy

    return check


def _levels(call: Create) -> str:
    return "" if int(call.info.mip_levels) <= 1 else f"{int(call.info.mip_levels)} mip levels"


def _samples(call: Create) -> str:
    return "" if int(call.info.samples) == 1 else f"{int(call.info.samples)} samples"


def _not_2d(call: Create) -> str:
    return "" if _image_type(call) == _2D else f"image_type {enum_text(_image_type(call), vk.ImageType)}"


rule(f"{_CREATE}-format-06410", on=CREATE_IMAGE)(_converted(_levels, "mip_levels", "Give 1."))
rule(f"{_CREATE}-format-06411", on=CREATE_IMAGE)(_converted(_samples, "samples", "Give SampleCountFlagBits.COUNT_1."))
rule(f"{_CREATE}-format-06412", on=CREATE_IMAGE)(_converted(_not_2d, "image_type", "Give ImageType.TYPE_2D."))


def _even(side: str, axis: int) -> Check[Create]:
    """Make the check that the side is even, if two texels share one chroma sample along it."""

    def check(call: Create) -> Finding | None:
        facts, length = _format(call), int(getattr(call.info.extent, side))
        if facts is None or facts.chroma_extent[axis] != 2 or not length % 2:
            return None
        return (
            f"ImageCreateInfo.extent.{side}",
            f"it is {length}, and {format_name(int(call.info.format))} needs a multiple of 2",
            f"Give {length + 1}.",
        )

    return check


rule(f"{_CREATE}-format-04712", on=CREATE_IMAGE)(_even("width", 0))
rule(f"{_CREATE}-format-04713", on=CREATE_IMAGE)(_even("height", 1))
