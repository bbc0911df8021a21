"""VkImageCreateInfo: extent, mip levels, layers, samples and layout, compared with the device's limits.

The largest extent, the counts and the samples are those that vkGetPhysicalDeviceImageFormatProperties2 reports for
images of this format, type, tiling, usage and flags ("Image Creation Limits"). If the device could not be queried,
because one of these is not valid, the rules that need its limits report nothing.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._conditions import above, all_of, has_bits, is_true, is_zero, lacks_feature, not_one_of
from extmem.rules._creation import CREATE_IMAGE, Create, Traits, chain_demands, sharing_mode
from extmem.rules._engine import Condition, Demand, demand
from extmem.rules._text import enum_text, flags_text
from extmem.vk.modifiers import LINEAR, has_modifier, named_modifiers

__all__: list[str] = []

_INFO = "VkImageCreateInfo"
_WHERE = "ImageCreateInfo"
_2D = int(vk.ImageType.TYPE_2D)
_Flag, _Layout, _Usage = vk.ImageCreateFlagBits, vk.ImageLayout, vk.ImageUsageFlagBits
_CUBE = int(_Flag.CUBE_COMPATIBLE)
_SAMPLES = frozenset(int(count) for count in vk.SampleCountFlagBits)
_STARTS = (int(_Layout.UNDEFINED), int(_Layout.PREINITIALIZED))
_ATTACHMENT = int(
    _Usage.COLOR_ATTACHMENT | _Usage.DEPTH_STENCIL_ATTACHMENT | _Usage.TRANSIENT_ATTACHMENT | _Usage.INPUT_ATTACHMENT
)


def _extent(call: Create) -> tuple[int, int, int]:
    extent = call.info.extent
    return int(extent.width), int(extent.height), int(extent.depth)


def _too_long(axis: int) -> Condition:
    """Make the condition that the extent exceeds the device's limit in this axis: both."""

    def broken(call: Create) -> tuple[int, int] | None:
        length, most = _extent(call)[axis], call.format.max_extent[axis] if call.format is not None else None
        return (length, most) if most is not None and length > most else None

    return broken


def _exceeds_framebuffers(axis: int) -> Condition:
    """Make the condition that an attachment exceeds the largest framebuffer: its length, usages and the limit."""

    def broken(call: Create) -> tuple[int, str, int] | None:
        most = call.device.max_framebuffer if call.device is not None else None
        length = _extent(call)[axis]
        if most is None or length <= most[axis] or not int(call.info.usage) & _ATTACHMENT:
            return None
        return length, flags_text(int(call.info.usage) & _ATTACHMENT, _Usage), most[axis]

    return broken


def _has_height_or_depth(call: Create) -> bool:
    return _extent(call)[1:] != (1, 1)


def _too_many_levels(call: Create) -> tuple[str, int] | None:
    """Each level halves the one before it, down to one texel: return the extent, and the number of its levels."""
    extent = _extent(call)
    most = max(extent).bit_length()
    return (" x ".join(map(str, extent)), most) if 0 < most < call.info.mip_levels else None


def _is_not_a_cube(call: Create) -> bool:
    width, height, _ = _extent(call)
    return width != height or call.info.array_layers < 6


def _unsupported_samples(call: Create) -> str:
    """Return the numbers of samples that the device supports, unless it supports the given one."""
    given, limits = int(call.info.samples), call.format
    if limits is None or given not in _SAMPLES or given & limits.sample_counts:
        return ""
    return flags_text(limits.sample_counts, vk.SampleCountFlagBits)


def _wrong_for_samples(call: Create) -> str:
    """Images of several samples are 2D, not cubes, have one mip level, and do not have LINEAR tiling."""
    info = call.info
    if int(info.samples) == 1 or int(info.samples) not in _SAMPLES:
        return ""
    return ", ".join(
        problem
        for wrong, problem in (
            (call.image_type != _2D, f"image_type {call.image_type_text}"),
            (int(info.flags) & _CUBE, "CUBE_COMPATIBLE"),
            (int(info.mip_levels) != 1, f"{int(info.mip_levels)} mip levels"),
            (int(info.tiling) == int(vk.ImageTiling.LINEAR), "LINEAR tiling"),
            (has_modifier(info) and LINEAR in named_modifiers(info), "the modifier DRM_FORMAT_MOD_LINEAR"),
        )
        if wrong
    )


def _starts_with_content(call: Create) -> str:
    layout = int(call.info.initial_layout)
    return "" if layout in _STARTS else enum_text(layout, _Layout)


def _extent_demands(axis: int, side: str, vuid: str, limit_vuid: str) -> tuple[Demand, Demand]:
    """Return the rows that the extent in one axis is not 0, and within the device's limit."""
    where = f"{_WHERE}.extent.{side}"
    return (
        Demand(vuid, is_zero(f"info.extent.{side}"), where, "it is 0", "Give the number of texels, at least 1."),
        _limited(limit_vuid, _too_long(axis), where),
    )


def _limited(vuid: str, beyond: Condition, where: str) -> Demand:
    """Return the row that a number is within the device's limit."""
    problem = "it is {found[0]:d}, the device allows at most {found[1]}"
    return Demand(vuid, beyond, where, problem, "Give {found[1]} or less.", needs=Traits.LIMITS)


def _drawable(vuid: str, axis: int, side: str) -> Demand:
    return Demand(
        vuid,
        _exceeds_framebuffers(axis),
        f"{_WHERE}.extent.{side}",
        "it is {found[0]} for {found[1]}, the device's framebuffers have at most {found[2]}",
        "Give {found[2]} or less, or omit the attachment usages.",
    )


demand(
    CREATE_IMAGE,
    *chain_demands(_INFO),
    Demand(
        f"{_INFO}-imageCreateMaxMipLevels-02251",
        all_of(is_true("format"), is_true("format.unsupported")),
        _WHERE,
        "{found}",
        "Query get_physical_device_image_format_properties2 before, and use another.",
    ),
    *_extent_demands(0, "width", f"{_INFO}-extent-00944", f"{_INFO}-extent-02252"),
    *_extent_demands(1, "height", f"{_INFO}-extent-00945", f"{_INFO}-extent-02253"),
    *_extent_demands(2, "depth", f"{_INFO}-extent-00946", f"{_INFO}-extent-02254"),
    Demand(
        f"{_INFO}-imageType-00956",
        _has_height_or_depth,
        f"{_WHERE}.extent",
        "a 1D image has height {call.info.extent.height:d} and depth {call.info.extent.depth:d}",
        "Make both 1, or use ImageType.TYPE_2D or TYPE_3D.",
        needs=Traits.TYPE_1D,
    ),
    Demand(
        f"{_INFO}-imageType-00957",
        not_one_of("info.extent.depth", (1,)),
        f"{_WHERE}.extent.depth",
        "a 2D image has depth {call.info.extent.depth:d}",
        "Make it 1, or use ImageType.TYPE_3D.",
        needs=Traits.TYPE_2D,
    ),
    Demand(
        f"{_INFO}-mipLevels-00947",
        is_zero("info.mip_levels"),
        f"{_WHERE}.mip_levels",
        "it is 0",
        "Give 1 for an image without smaller levels.",
    ),
    Demand(
        f"{_INFO}-mipLevels-00958",
        _too_many_levels,
        f"{_WHERE}.mip_levels",
        "it is {call.info.mip_levels:d}, and {found[0]} texels have {found[1]} levels",
        "Give {found[1]} or less.",
    ),
    _limited(f"{_INFO}-mipLevels-02255", above("info.mip_levels", "format.max_mip_levels"), f"{_WHERE}.mip_levels"),
    Demand(
        f"{_INFO}-arrayLayers-00948",
        is_zero("info.array_layers"),
        f"{_WHERE}.array_layers",
        "it is 0",
        "Give 1 for an image that is not an array.",
    ),
    _limited(
        f"{_INFO}-arrayLayers-02256", above("info.array_layers", "format.max_array_layers"), f"{_WHERE}.array_layers"
    ),
    Demand(
        f"{_INFO}-imageType-00961",
        not_one_of("info.array_layers", (1,)),
        f"{_WHERE}.array_layers",
        "it is {call.info.array_layers:d} for a 3D image",
        "Make it 1, and use the depth.",
        needs=Traits.TYPE_3D,
    ),
    Demand(
        f"{_INFO}-imageType-00954",
        all_of(has_bits("info.flags", _CUBE), _is_not_a_cube),
        _WHERE,
        "a cube has {call.info.extent.width:d} x {call.info.extent.height:d} texels and {call.info.array_layers:d} "
        "layers",
        "Give CUBE_COMPATIBLE images equal width and height and 6 layers or more.",
        needs=Traits.TYPE_2D | Traits.FLAGS,
    ),
    Demand(
        f"{_INFO}-samples-parameter",
        not_one_of("info.samples", _SAMPLES),
        f"{_WHERE}.samples",
        "{call.info.samples:d} is not a sample count",
        "Give one of SampleCountFlagBits, such as COUNT_1.",
    ),
    Demand(
        f"{_INFO}-samples-02258",
        _unsupported_samples,
        f"{_WHERE}.samples",
        "it is {call.info.samples:d}, the device supports {found} for such images",
        "Give one of {found}.",
        needs=Traits.LIMITS,
    ),
    Demand(
        f"{_INFO}-samples-02257",
        _wrong_for_samples,
        f"{_WHERE}.samples",
        "an image of {call.info.samples:d} samples has {found}",
        "Make it 2D with OPTIMAL tiling and one mip level, or give SampleCountFlagBits.COUNT_1.",
    ),
    Demand(
        f"{_INFO}-usage-00968",
        all_of(
            not_one_of("info.samples", (1,)),
            has_bits("info.usage", _Usage.STORAGE),
            lacks_feature("shaderStorageImageMultisample"),
        ),
        f"{_WHERE}.samples",
        "a STORAGE image has {call.info.samples:d} samples, and the feature shaderStorageImageMultisample is not "
        "enabled",
        "Give SampleCountFlagBits.COUNT_1, or omit STORAGE.",
    ),
    _drawable(f"{_INFO}-usage-00964", 0, "width"),
    _drawable(f"{_INFO}-usage-00965", 1, "height"),
    Demand(
        f"{_INFO}-initialLayout-00993",
        _starts_with_content,
        f"{_WHERE}.initial_layout",
        "it is {found}",
        "Give ImageLayout.UNDEFINED, and change the layout with a barrier.",
    ),
    Demand(
        f"{_INFO}-initialLayout-parameter",
        not_one_of("info.initial_layout", frozenset(int(layout) for layout in _Layout)),
        f"{_WHERE}.initial_layout",
        "{call.info.initial_layout:d} is not an image layout",
        "Give ImageLayout.UNDEFINED.",
    ),
    sharing_mode(f"{_INFO}-sharingMode-parameter"),
)
