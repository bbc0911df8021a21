"""Properties of each VkFormat in the registry: texel blocks, aspects, planes. Pure; the table is generated.

Aspects are VkImageAspectFlagBits as plain numbers. A multi-planar format has the aspect COLOR, for barriers over all of
it, and one for each plane, for copies.
"""

from __future__ import annotations

from functools import cache
from math import prod

import msgspec

from extmem.vk._generated.enums import Format
from extmem.vk._generated.flags import ImageAspectFlagBits
from extmem.vk._generated.formats import FORMATS

__all__ = ["FormatFacts", "Plane", "copied_size", "format_facts", "format_name", "is_depth_or_stencil", "texel_size"]

COLOR, DEPTH, STENCIL = (int(getattr(ImageAspectFlagBits, name)) for name in ("COLOR", "DEPTH", "STENCIL"))
PLANES = tuple(int(getattr(ImageAspectFlagBits, f"PLANE_{number}")) for number in range(3))
Extent = tuple[int, int, int]


class Plane(msgspec.Struct, frozen=True):
    """One plane of a multi-planar format."""

    format: int
    """VkFormat that the plane is compatible with."""
    width_divisor: int
    height_divisor: int


class FormatFacts(msgspec.Struct, frozen=True):
    """One format. Sizes in bytes."""

    block_size: int
    """Size of a texel block; for a multi-planar format, that of all planes together."""
    block_extent: Extent
    """Number of texels of a block in each axis; 1 for formats that are neither compressed nor subsampled in one
    plane."""
    depth_size: int
    """Size of a depth texel in a buffer, as a copy packs it; 0 without that aspect."""
    stencil_size: int
    planes: tuple[Plane, ...]
    """The planes; empty for a format in one plane."""
    compressed: bool
    chroma: bool
    """Whether an image view of it needs a sampler Y'CbCr conversion."""

    @property
    def deep(self) -> bool:
        """Whether it has a depth or a stencil aspect."""
        return bool(self.depth_size or self.stencil_size)

    @property
    def chroma_extent(self) -> tuple[int, int]:
        """Number of texels in width and height that share one chroma sample; 1 if each texel has its own."""
        if self.planes:
            return max(one.width_divisor for one in self.planes), max(one.height_divisor for one in self.planes)
        return self.block_extent[:2] if self.chroma else (1, 1)

    @property
    def whole(self) -> int:
        """The aspects of a barrier over the whole image: COLOR, or those of DEPTH and STENCIL that the format has."""
        return (DEPTH if self.depth_size else 0) | (STENCIL if self.stencil_size else 0) or COLOR

    @property
    def copied(self) -> tuple[int, ...]:
        """The aspects that can be copied, one at a time."""
        if self.planes:
            return PLANES[: len(self.planes)]
        return tuple(aspect for aspect in (COLOR, DEPTH, STENCIL) if aspect & self.whole)


@cache
def format_facts(vk_format: int) -> FormatFacts | None:
    """Return the facts of a format; None for VK_FORMAT_UNDEFINED and for numbers that the registry lacks."""
    row = FORMATS.get(int(vk_format))
    if row is None:
        return None
    size, extent, depth, stencil, planes, compressed, chroma = row
    return FormatFacts(size, extent, depth, stencil, tuple(Plane(*plane) for plane in planes), compressed, chroma)


def format_name(vk_format: int) -> str:
    """Return the name (`R8G8B8A8_UNORM`), or the number if the registry lacks it."""
    try:
        return Format(vk_format).name
    except ValueError:
        return f"format {int(vk_format)}"


def copied_size(facts: FormatFacts, aspect: int, extent: Extent) -> tuple[int, Extent, int]:
    """Return how one aspect of an image area is copied: bytes of a texel block, extent in texels, bytes in the buffer.

    aspect: one of `facts.copied`. extent: the area in texels of the whole image; a plane has fewer. Rows and slices
    are tightly packed in the buffer (bufferRowLength and bufferImageHeight are 0).
    """
    if aspect in PLANES and facts.planes:
        plane = facts.planes[PLANES.index(aspect)]
        extent = (-(-extent[0] // plane.width_divisor), -(-extent[1] // plane.height_divisor), extent[2])
        size, blocks = FORMATS[plane.format][0], FORMATS[plane.format][1]
    else:
        size = {DEPTH: facts.depth_size, STENCIL: facts.stencil_size}.get(aspect) or facts.block_size
        blocks = facts.block_extent
    count = prod(-(-length // block) for length, block in zip(extent, blocks, strict=True))
    return size, extent, size * count


def texel_size(vk_format: int) -> int | None:
    """Return bytes per texel of an uncompressed format in one plane, depth and stencil together; None for any other."""
    facts = format_facts(vk_format)
    if facts is None or facts.compressed or facts.planes or facts.block_extent != (1, 1, 1):
        return None
    return facts.block_size


def is_depth_or_stencil(vk_format: int) -> bool:
    """Return whether the format has a depth or a stencil aspect."""
    facts = format_facts(vk_format)
    return facts is not None and facts.deep
