"""Where the texels of a fake image are: as in the host device's images, with OPTIMAL rows aligned to 256 bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from extmem import vk
from extmem.vk.formats import texel_size
from extmem.vk.modifiers import LINEAR

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.objects import Image

__all__ = ["Region", "rows", "texels"]

_ROW, _OPTIMAL_ROW = 64, 256
_REMAINING = 0xFFFF_FFFF


class Region(NamedTuple):
    """VkBufferImageCopy, read from the caller's memory."""

    offset: int
    row_length: int
    image_height: int
    level: int
    layer: int
    layers: int
    origin: tuple[int, int, int]
    extent: tuple[int, int, int]

    @classmethod
    def read(cls, region: Any) -> Region:
        """Read the C struct."""
        part, origin, extent = region.imageSubresource, region.imageOffset, region.imageExtent
        return cls(
            int(region.bufferOffset),
            int(region.bufferRowLength),
            int(region.bufferImageHeight),
            int(part.mipLevel),
            int(part.baseArrayLayer),
            int(part.layerCount),
            (int(origin.x), int(origin.y), int(origin.z)),
            (int(extent.width), int(extent.height), int(extent.depth)),
        )


class _Level(NamedTuple):
    offset: int
    row_pitch: int
    depth_pitch: int
    extent: tuple[int, int, int]


def _placed(image: Image) -> tuple[list[_Level], int]:
    """Return the place of each mip level in a layer, and the layer's size in bytes."""
    info = image.info
    if image.planes:
        plane, high = image.planes[0], info.extent.height
        if image.modifier != LINEAR:  # the last row comes first
            at, pitch = plane.offset + plane.row_pitch * (high - 1), -plane.row_pitch
        else:
            at, pitch = plane.offset, plane.row_pitch
        return [_Level(at, pitch, 0, (info.extent.width, high, 1))], 0
    texel = texel_size(int(info.format)) or 1
    alignment = _ROW if info.tiling == vk.ImageTiling.LINEAR else _OPTIMAL_ROW
    levels, offset = [], 0
    for level in range(info.mip_levels):
        wide, high, deep = (max(1, e >> level) for e in (info.extent.width, info.extent.height, info.extent.depth))
        row_pitch = -(-wide * texel // alignment) * alignment
        levels.append(_Level(offset, row_pitch, row_pitch * high, (wide, high, deep)))
        offset += row_pitch * high * deep
    return levels, offset


def rows(image: Image, region: Region) -> Iterator[tuple[int, int, int]]:
    """Yield for each row of a copy its offset in the buffer, its offset in the image, and its size in bytes."""
    texel = texel_size(int(image.info.format)) or 1
    levels, layer_size = _placed(image)
    placed = levels[region.level]
    wide, high, deep = region.extent
    pitch, height = (region.row_length or wide) * texel, region.image_height or high
    x, y, z = region.origin
    for layer in range(region.layers):
        for slice_ in range(deep):
            for row in range(high):
                begin = region.offset + ((layer * deep + slice_) * height + row) * pitch
                at = (region.layer + layer) * layer_size + placed.offset
                at += (z + slice_) * placed.depth_pitch + (y + row) * placed.row_pitch + x * texel
                yield begin, at, wide * texel


def texels(image: Image, color: bytes, areas: list[tuple[int, int, int, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield what a clear writes: the offset in the image, and the bytes.

    areas: first level, number of levels, first layer, number of layers of each.
    """
    info = image.info
    one = _encoded(info, color)
    levels, layer_size = _placed(image)
    for first, count, base, layers in areas:
        chosen = levels[first:] if count == _REMAINING else levels[first : first + count]
        last = info.array_layers if layers == _REMAINING else base + layers
        for layer in range(base, last):
            for placed in chosen:
                wide, high, deep = placed.extent
                for row in range(high * deep):
                    yield layer * layer_size + placed.offset + row * placed.row_pitch, one * wide


def _encoded(info: vk.ImageCreateInfo, color: bytes) -> bytes:
    """Return one texel of this colour (VkClearColorValue): UNORM components are rounded, others copied."""
    name, size = vk.Format(int(info.format)).name, texel_size(int(info.format)) or 1
    if "UNORM" not in name:
        return (color * 2)[:size]
    red, green, blue, alpha = (max(0, min(255, round(c * 255))) for c in struct.unpack("<4f", color))
    ordered = (blue, green, red, alpha) if name.startswith("B") else (red, green, blue, alpha)
    return bytes(ordered)[:size]
