"""VkImageCreateInfo: extent, mip levels, layers, samples and layout, compared with the device's limits.

The largest extent, the counts and the samples are those that vkGetPhysicalDeviceImageFormatProperties2 reports for
images of this format, type, tiling, usage and flags ("Image Creation Limits"). If the device could not be queried,
because one of these is not valid, the rules that need its limits report nothing.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._creation import CREATE_IMAGE, Create, foreign_structs, repeated_structs
from extmem.rules._engine import Check, Finding, rule
from extmem.rules._text import enum_text, flags_text
from extmem.vk.modifiers import LINEAR, has_modifier, named_modifiers

__all__: list[str] = []

_INFO = "VkImageCreateInfo"
_WHERE = "ImageCreateInfo"
_1D, _2D, _3D = int(vk.ImageType.TYPE_1D), int(vk.ImageType.TYPE_2D), int(vk.ImageType.TYPE_3D)
_Flag, _Usage = vk.ImageCreateFlagBits, vk.ImageUsageFlagBits
_CUBE = int(_Flag.CUBE_COMPATIBLE)
_SAMPLES = frozenset(int(count) for count in vk.SampleCountFlagBits)
_ATTACHMENT = int(
    _Usage.COLOR_ATTACHMENT | _Usage.DEPTH_STENCIL_ATTACHMENT | _Usage.TRANSIENT_ATTACHMENT | _Usage.INPUT_ATTACHMENT
)
_SIDES = ("width", "height", "depth")


def _extent(call: Create) -> tuple[int, int, int]:
    extent = call.info.extent
    return int(extent.width), int(extent.height), int(extent.depth)


@rule(f"{_INFO}-pNext-pNext", on=CREATE_IMAGE)
def only_extending_structs(call: Create) -> Finding | None:
    """The chain contains only structs that extend the create info, and whose extensions are enabled."""
    return foreign_structs(call, _INFO)


@rule(f"{_INFO}-sType-unique", on=CREATE_IMAGE)
def each_struct_once(call: Create) -> Finding | None:
    """The chain contains each struct type once. A chain that leads back into itself repeats its structs."""
    return repeated_structs(call)


@rule(f"{_INFO}-imageCreateMaxMipLevels-02251", on=CREATE_IMAGE)
def device_has_such_images(call: Create) -> Finding | None:
    """The device supports images of this format, type, tiling, usage and flags."""
    if call.format is None or not call.format.unsupported:
        return None
    return (
        _WHERE,
        call.format.unsupported,
        "Query get_physical_device_image_format_properties2 before, and use another.",
    )


def _positive(side: str) -> Check[Create]:
    def check(call: Create) -> Finding | None:
        if int(getattr(call.info.extent, side)) > 0:
            return None
        return f"{_WHERE}.extent.{side}", "it is 0", "Give the number of texels, at least 1."

    return check


def _at_most(axis: int) -> Check[Create]:
    def check(call: Create) -> Finding | None:
        limits = call.format
        given = _extent(call)[axis]
        if limits is None or limits.unsupported or given <= limits.max_extent[axis]:
            return None
        most = limits.max_extent[axis]
        return (
            f"{_WHERE}.extent.{_SIDES[axis]}",
            f"it is {given}, the device allows at most {most}",
            f"Give {most} or less.",
        )

    return check


for _axis, (_number, _limit) in enumerate((("00944", "02252"), ("00945", "02253"), ("00946", "02254"))):
    rule(f"{_INFO}-extent-{_number}", on=CREATE_IMAGE)(_positive(_SIDES[_axis]))
    rule(f"{_INFO}-extent-{_limit}", on=CREATE_IMAGE)(_at_most(_axis))


@rule(f"{_INFO}-imageType-00956", on=CREATE_IMAGE)
def one_dimension_has_no_height(call: Create) -> Finding | None:
    """A 1D image has height 1 and depth 1."""
    _, height, depth = _extent(call)
    if int(call.info.image_type) != _1D or height == depth == 1:
        return None
    return (
        f"{_WHERE}.extent",
        f"a 1D image has height {height} and depth {depth}",
        "Make both 1, or use ImageType.TYPE_2D or TYPE_3D.",
    )


@rule(f"{_INFO}-imageType-00957", on=CREATE_IMAGE)
def two_dimensions_have_no_depth(call: Create) -> Finding | None:
    """A 2D image has depth 1."""
    depth = _extent(call)[2]
    if int(call.info.image_type) != _2D or depth == 1:
        return None
    return f"{_WHERE}.extent.depth", f"a 2D image has depth {depth}", "Make it 1, or use ImageType.TYPE_3D."


@rule(f"{_INFO}-mipLevels-00947", on=CREATE_IMAGE)
def has_mip_levels(call: Create) -> Finding | None:
    """The number of mip levels is not 0: the full image is the first level."""
    if int(call.info.mip_levels) > 0:
        return None
    return f"{_WHERE}.mip_levels", "it is 0", "Give 1 for an image without smaller levels."


@rule(f"{_INFO}-mipLevels-00958", on=CREATE_IMAGE)
def mip_levels_end_at_one_texel(call: Create) -> Finding | None:
    """Each level halves the one before it, down to one texel."""
    extent, given = _extent(call), int(call.info.mip_levels)
    most = max(extent).bit_length()
    if given <= most or not most:
        return None
    return (
        f"{_WHERE}.mip_levels",
        f"it is {given}, and {' x '.join(map(str, extent))} texels have {most} levels",
        f"Give {most} or less.",
    )


@rule(f"{_INFO}-mipLevels-02255", on=CREATE_IMAGE)
def mip_levels_are_supported(call: Create) -> Finding | None:
    """The number of mip levels is within the device's limit."""
    limits, given = call.format, int(call.info.mip_levels)
    if limits is None or limits.unsupported or given <= limits.max_mip_levels:
        return None
    most = limits.max_mip_levels
    return f"{_WHERE}.mip_levels", f"it is {given}, the device allows at most {most}", f"Give {most} or less."


@rule(f"{_INFO}-arrayLayers-00948", on=CREATE_IMAGE)
def has_layers(call: Create) -> Finding | None:
    """The number of layers is not 0: an image that is not an array has one."""
    if int(call.info.array_layers) > 0:
        return None
    return f"{_WHERE}.array_layers", "it is 0", "Give 1 for an image that is not an array."


@rule(f"{_INFO}-arrayLayers-02256", on=CREATE_IMAGE)
def layers_are_supported(call: Create) -> Finding | None:
    """The number of layers is within the device's limit."""
    limits, given = call.format, int(call.info.array_layers)
    if limits is None or limits.unsupported or given <= limits.max_array_layers:
        return None
    most = limits.max_array_layers
    return f"{_WHERE}.array_layers", f"it is {given}, the device allows at most {most}", f"Give {most} or less."


@rule(f"{_INFO}-imageType-00961", on=CREATE_IMAGE)
def three_dimensions_have_one_layer(call: Create) -> Finding | None:
    """A 3D image has one layer."""
    if int(call.info.image_type) != _3D or int(call.info.array_layers) == 1:
        return None
    return (
        f"{_WHERE}.array_layers",
        f"it is {int(call.info.array_layers)} for a 3D image",
        "Make it 1, and use the depth.",
    )


@rule(f"{_INFO}-imageType-00954", on=CREATE_IMAGE)
def cubes_are_square(call: Create) -> Finding | None:
    """A cube has six square faces."""
    width, height, _ = _extent(call)
    layers = int(call.info.array_layers)
    if not int(call.info.flags) & _CUBE or int(call.info.image_type) != _2D or (width == height and layers >= 6):
        return None
    return (
        _WHERE,
        f"a cube has {width} x {height} texels and {layers} layers",
        "Give CUBE_COMPATIBLE images equal width and height and 6 layers or more.",
    )


@rule(f"{_INFO}-samples-parameter", on=CREATE_IMAGE)
def samples_is_one_bit(call: Create) -> Finding | None:
    """The sample count is one defined bit."""
    given = int(call.info.samples)
    if given in _SAMPLES:
        return None
    return f"{_WHERE}.samples", f"{given} is not a sample count", "Give one of SampleCountFlagBits, such as COUNT_1."


@rule(f"{_INFO}-samples-02258", on=CREATE_IMAGE)
def samples_are_supported(call: Create) -> Finding | None:
    """The device supports the sample count for such images."""
    limits, given = call.format, int(call.info.samples)
    if limits is None or limits.unsupported or given not in _SAMPLES or given & limits.sample_counts:
        return None
    have = flags_text(limits.sample_counts, vk.SampleCountFlagBits)
    return f"{_WHERE}.samples", f"it is {given}, the device supports {have} for such images", f"Give one of {have}."


@rule(f"{_INFO}-samples-02257", on=CREATE_IMAGE)
def many_samples_are_plain(call: Create) -> Finding | None:
    """Images of several samples are 2D, not cubes, have one mip level, and do not have LINEAR tiling."""
    info = call.info
    if int(info.samples) == 1 or int(info.samples) not in _SAMPLES:
        return None
    problems = [
        problem
        for wrong, problem in (
            (int(info.image_type) != _2D, f"image_type {enum_text(int(info.image_type), vk.ImageType)}"),
            (int(info.flags) & _CUBE, "CUBE_COMPATIBLE"),
            (int(info.mip_levels) != 1, f"{int(info.mip_levels)} mip levels"),
            (int(info.tiling) == int(vk.ImageTiling.LINEAR), "LINEAR tiling"),
            (has_modifier(info) and LINEAR in named_modifiers(info), "the modifier DRM_FORMAT_MOD_LINEAR"),
        )
        if wrong
    ]
    if not problems:
        return None
    return (
        f"{_WHERE}.samples",
        f"an image of {int(info.samples)} samples has {', '.join(problems)}",
        "Make it 2D with OPTIMAL tiling and one mip level, or give SampleCountFlagBits.COUNT_1.",
    )


@rule(f"{_INFO}-usage-00968", on=CREATE_IMAGE)
def stored_samples_are_enabled(call: Create) -> Finding | None:
    """Storage images of several samples need a feature."""
    features = call.device.features if call.device is not None else None
    if features is None or "shaderStorageImageMultisample" in features:
        return None
    if int(call.info.samples) == 1 or not int(call.info.usage) & int(_Usage.STORAGE):
        return None
    return (
        f"{_WHERE}.samples",
        f"a STORAGE image has {int(call.info.samples)} samples, and the feature shaderStorageImageMultisample is not "
        "enabled",
        "Give SampleCountFlagBits.COUNT_1, or omit STORAGE.",
    )


def _framebuffer(axis: int) -> Check[Create]:
    def check(call: Create) -> Finding | None:
        most = call.device.max_framebuffer if call.device is not None else None
        given = _extent(call)[axis]
        if most is None or given <= most[axis] or not int(call.info.usage) & _ATTACHMENT:
            return None
        return (
            f"{_WHERE}.extent.{_SIDES[axis]}",
            f"it is {given} for {flags_text(int(call.info.usage) & _ATTACHMENT, _Usage)}, the device's framebuffers "
            f"have at most {most[axis]}",
            f"Give {most[axis]} or less, or omit the attachment usages.",
        )

    return check


rule(f"{_INFO}-usage-00964", on=CREATE_IMAGE)(_framebuffer(0))
rule(f"{_INFO}-usage-00965", on=CREATE_IMAGE)(_framebuffer(1))


@rule(f"{_INFO}-initialLayout-00993", on=CREATE_IMAGE)
def starts_without_content(call: Create) -> Finding | None:
    """The initial layout is UNDEFINED or PREINITIALIZED."""
    layout = int(call.info.initial_layout)
    if layout in (int(vk.ImageLayout.UNDEFINED), int(vk.ImageLayout.PREINITIALIZED)):
        return None
    return (
        f"{_WHERE}.initial_layout",
        f"it is {enum_text(layout, vk.ImageLayout)}",
        "Give ImageLayout.UNDEFINED, and change the layout with a barrier.",
    )


@rule(f"{_INFO}-initialLayout-parameter", on=CREATE_IMAGE)
def layout_is_defined(call: Create) -> Finding | None:
    """The registry defines the layout."""
    layout = int(call.info.initial_layout)
    if layout in _LAYOUTS:
        return None
    return f"{_WHERE}.initial_layout", f"{layout} is not an image layout", "Give ImageLayout.UNDEFINED."


_LAYOUTS = frozenset(int(layout) for layout in vk.ImageLayout)


@rule(f"{_INFO}-sharingMode-parameter", on=CREATE_IMAGE)
def sharing_mode_is_defined(call: Create) -> Finding | None:
    """The sharing mode is EXCLUSIVE or CONCURRENT."""
    mode = int(call.info.sharing_mode)
    if mode in (vk.SharingMode.EXCLUSIVE, vk.SharingMode.CONCURRENT):
        return None
    return (
        f"{_WHERE}.sharing_mode",
        f"{enum_text(mode, vk.SharingMode)} is not a sharing mode",
        "Give SharingMode.EXCLUSIVE or CONCURRENT.",
    )
