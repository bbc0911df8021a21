"""Images of the host device: which can be created, and where their texels are. Pure.

Layout: layer after layer, in each the mip levels from large to small, in each the slices, rows and texels one after
the other. A row begins at a multiple of 64 bytes (LINEAR) or 256 bytes (OPTIMAL), and so does everything above it. Both
tilings are row-major; only the layout of LINEAR ones can be queried, as in the specification.
"""

from __future__ import annotations

import msgspec

from extmem import vk
from extmem.devices.host import capabilities
from extmem.devices.resources import Requirements
from extmem.errors import UnsupportedError
from extmem.vk.formats import is_depth_or_stencil, texel_size
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType
from extmem.vk.value_text import bits_of, enum_text, flags_text, types_text

__all__ = ["Requirements", "format_properties", "requirements", "subresource_layout"]

_PITCH_ALIGNMENT = {vk.ImageTiling.LINEAR: 64, vk.ImageTiling.OPTIMAL: 256}
_MEMORY_TYPE_BITS = {vk.ImageTiling.LINEAR: 0b11, vk.ImageTiling.OPTIMAL: 0b01}
_MAX_EXTENT = {
    vk.ImageType.TYPE_1D: (16384, 1, 1),
    vk.ImageType.TYPE_2D: (16384, 16384, 1),
    vk.ImageType.TYPE_3D: (2048, 2048, 2048),
}
_MAX_LAYERS = 2048
_Flag = vk.ImageCreateFlagBits
_FLAGS = (
    _Flag.MUTABLE_FORMAT | _Flag.CUBE_COMPATIBLE | _Flag.CREATE_2D_ARRAY_COMPATIBLE | _Flag.EXTENDED_USAGE | _Flag.ALIAS
)
_Usage = vk.ImageUsageFlagBits
_USAGE = (
    _Usage.TRANSFER_SRC
    | _Usage.TRANSFER_DST
    | _Usage.SAMPLED
    | _Usage.STORAGE
    | _Usage.COLOR_ATTACHMENT
    | _Usage.DEPTH_STENCIL_ATTACHMENT
    | _Usage.TRANSIENT_ATTACHMENT
    | _Usage.INPUT_ATTACHMENT
)
_ASPECTS = vk.ImageAspectFlagBits.COLOR | vk.ImageAspectFlagBits.DEPTH | vk.ImageAspectFlagBits.STENCIL


def format_properties(info: vk.PhysicalDeviceImageFormatInfo2, heap_size: int) -> vk.ImageFormatProperties2:
    """vkGetPhysicalDeviceImageFormatProperties2; see `Backend.image_format_properties`."""
    _check(info.format, info.type, info.tiling, info.usage, info.flags)
    width, height, depth = _MAX_EXTENT[vk.ImageType(info.type)]
    answer = vk.ImageFormatProperties2(
        vk.ImageFormatProperties(
            max_extent=vk.Extent3D(width, height, depth),
            max_mip_levels=width.bit_length(),
            max_array_layers=1 if info.type == vk.ImageType.TYPE_3D else _MAX_LAYERS,
            sample_counts=vk.SampleCountFlagBits.COUNT_1,
            # The specification requires 2 GiB at least, even of a machine with less memory.
            max_resource_size=max(heap_size, 1 << 31),
        )
    )
    asked = vk.find(info, vk.PhysicalDeviceExternalImageFormatInfo)
    if asked is not None and asked.handle_type:
        properties = capabilities.image_properties(MemoryHandleType(int(asked.handle_type)), info.usage)
        if properties is None:
            raise _unsupported(f"images cannot be external as {types_text(asked.handle_type)}", _external_types())
        answer.p_next = vk.ExternalImageFormatProperties(properties)
    return answer


def requirements(info: vk.ImageCreateInfo) -> Requirements:
    """What an image requires: its layout's size, and a dedicated allocation if it is an external attachment."""
    external = vk.find(info, vk.ExternalMemoryImageCreateInfo)
    types = MemoryHandleType(int(external.handle_types)) if external is not None else NO_TYPES
    if types & ~capabilities.SUPPORTED:
        raise _unsupported(f"images cannot be external as {types_text(types)}", _external_types())
    placed = _layout(info)
    needed = capabilities.image_needs_dedicated(types, info.usage)
    tiling = vk.ImageTiling(info.tiling)
    return Requirements(
        size=placed.layer_size * info.array_layers,
        alignment=_PITCH_ALIGNMENT[tiling],
        memory_type_bits=_MEMORY_TYPE_BITS[tiling],
        requires_dedicated=needed,
        prefers_dedicated=needed,
    )


def subresource_layout(info: vk.ImageCreateInfo, subresource: vk.ImageSubresource) -> vk.SubresourceLayout:
    """vkGetImageSubresourceLayout; see `Backend.image_subresource_layout`."""
    if info.tiling != vk.ImageTiling.LINEAR:
        raise UnsupportedError(
            f"an image with {enum_text(info.tiling, vk.ImageTiling)} tiling does not state its layout; create it with "
            "LINEAR tiling",
            requires_one_of=["ImageTiling.LINEAR"],
        )
    aspect = int(subresource.aspect_mask)
    if aspect.bit_count() != 1 or not aspect & _ASPECTS:
        raise ValueError(
            f"aspectMask is {flags_text(subresource.aspect_mask, vk.ImageAspectFlagBits)}; give the one aspect that "
            "is asked for"
        )
    if not 0 <= subresource.mip_level < info.mip_levels or not 0 <= subresource.array_layer < info.array_layers:
        raise ValueError(
            f"mip level {subresource.mip_level} of layer {subresource.array_layer} is asked for, and the image has "
            f"{info.mip_levels} levels and {info.array_layers} layers"
        )
    placed = _layout(info)
    level = placed.levels[subresource.mip_level]
    return vk.SubresourceLayout(
        offset=subresource.array_layer * placed.layer_size + level.offset,
        size=level.size,
        row_pitch=level.row_pitch,
        array_pitch=placed.layer_size,
        depth_pitch=level.depth_pitch,
    )


class _Level(msgspec.Struct, frozen=True):
    offset: int
    row_pitch: int
    depth_pitch: int
    size: int


class _Layout(msgspec.Struct, frozen=True):
    levels: tuple[_Level, ...]
    layer_size: int


def _layout(info: vk.ImageCreateInfo) -> _Layout:
    _check_create(info)
    texel = _check(info.format, info.image_type, info.tiling, info.usage, info.flags)
    alignment = _PITCH_ALIGNMENT[vk.ImageTiling(info.tiling)]
    levels, offset = [], 0
    for level in range(info.mip_levels):
        width, height, depth = (
            max(1, extent >> level) for extent in (info.extent.width, info.extent.height, info.extent.depth)
        )
        row_pitch = -(-width * texel // alignment) * alignment
        depth_pitch = row_pitch * height
        levels.append(_Level(offset, row_pitch, depth_pitch, depth_pitch * depth))
        offset += depth_pitch * depth
    return _Layout(tuple(levels), offset)


def _check(vk_format: int, kind: int, tiling: int, usage: int, flags: int) -> int:
    """Bytes per texel. Errors: UnsupportedError (VK_ERROR_FORMAT_NOT_SUPPORTED) for an image that is not supported."""
    texel = texel_size(vk_format)
    deep = is_depth_or_stencil(vk_format)
    plain_sizes = (1, 2, 4, 8, 16, 32) if deep else (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    if texel is None or texel not in plain_sizes:
        raise _unsupported(
            f"{_format_name(vk_format)} is not supported: the host device has uncompressed formats in one plane, "
            "of 1 to 4 components of equal size or packed to whole bytes",
            ["an uncompressed format such as R8G8B8A8_UNORM"],
        )
    if kind not in _MAX_EXTENT:
        raise _unsupported(f"image type {enum_text(kind, vk.ImageType)} is unknown", [t.name for t in _MAX_EXTENT])
    if tiling not in _PITCH_ALIGNMENT:
        raise _unsupported(f"tiling {enum_text(tiling, vk.ImageTiling)} is not supported", ["OPTIMAL", "LINEAR"])
    if not usage or usage & ~_USAGE:
        raise _unsupported(f"usage {flags_text(usage, _Usage)} is not supported", [u.name or "" for u in _USAGE])
    if flags & ~_FLAGS:
        raise _unsupported(
            f"create flags {flags_text(flags, _Flag)} are not supported: no sparse, protected or split images",
            ["0"],
        )
    if flags & _Flag.CUBE_COMPATIBLE and kind != vk.ImageType.TYPE_2D:
        raise _unsupported("a cube-compatible image must be 2D", ["ImageType.TYPE_2D"])
    if flags & _Flag.CREATE_2D_ARRAY_COMPATIBLE and kind != vk.ImageType.TYPE_3D:
        raise _unsupported("only a 3D image can be 2D-array-compatible", ["ImageType.TYPE_3D"])
    if deep and (usage & _Usage.COLOR_ATTACHMENT or tiling == vk.ImageTiling.LINEAR or kind == vk.ImageType.TYPE_3D):
        raise _unsupported(
            f"{_format_name(vk_format)} is a depth or stencil format: no colour attachment, no LINEAR tiling, no 3D",
            ["a colour format", "OPTIMAL tiling in 1D or 2D"],
        )
    if not deep and usage & _Usage.DEPTH_STENCIL_ATTACHMENT:
        raise _unsupported(f"{_format_name(vk_format)} has no depth or stencil aspect", ["D16_UNORM", "D32_SFLOAT"])
    return texel


def _check_create(info: vk.ImageCreateInfo) -> None:
    """Refuse sizes and counts beyond what the format query returns."""
    limit = _MAX_EXTENT.get(vk.ImageType(info.image_type)) if info.image_type in _MAX_EXTENT else None
    extent = (info.extent.width, info.extent.height, info.extent.depth)
    if limit is not None and not all(1 <= have <= most for have, most in zip(extent, limit, strict=True)):
        raise _unsupported(f"extent {extent} is out of range, 1 to {limit} per axis", [f"an extent within {limit}"])
    most_layers = 1 if info.image_type == vk.ImageType.TYPE_3D else _MAX_LAYERS
    if not 1 <= info.array_layers <= most_layers:
        raise _unsupported(f"{info.array_layers} array layers are out of range", [f"1 to {most_layers} layers"])
    most_levels = max(extent).bit_length()
    if not 1 <= info.mip_levels <= most_levels:
        raise _unsupported(f"{info.mip_levels} mip levels are out of range", [f"1 to {most_levels} levels"])
    if info.samples != vk.SampleCountFlagBits.COUNT_1:
        raise _unsupported(
            f"samples {flags_text(info.samples, vk.SampleCountFlagBits)} are not supported",
            ["SampleCountFlagBits.COUNT_1"],
        )


def _format_name(vk_format: int) -> str:
    name = enum_text(vk_format, vk.Format)
    return f"format {name}" if name.isdigit() else name


def _external_types() -> list[str]:
    return [types_text(bit) for bit in bits_of(capabilities.SUPPORTED)]


def _unsupported(problem: str, requires_one_of: list[str]) -> UnsupportedError:
    return UnsupportedError(
        f"VK_ERROR_FORMAT_NOT_SUPPORTED: {problem}; what would do: {', '.join(requires_one_of)}",
        requires_one_of=requires_one_of,
    )
