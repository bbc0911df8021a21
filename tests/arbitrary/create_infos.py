"""Create infos of arbitrary programs: of buffers and images that can be created, sometimes with arbitrary fields."""

from __future__ import annotations

from extmem import vk
from tests.arbitrary.values import Draw, Value, flags

__all__ = ["COLORS", "COPIED", "COPIES", "buffer_info", "image_info"]

_B, _I, _L = vk.BufferUsageFlagBits, vk.ImageUsageFlagBits, vk.ImageLayout
COPIES = flags(_B.TRANSFER_SRC, _B.TRANSFER_DST)
COPIED = flags(_I.TRANSFER_SRC, _I.TRANSFER_DST)
_DEEP = (vk.Format.D16_UNORM, vk.Format.D32_SFLOAT, vk.Format.D32_SFLOAT_S8_UINT, vk.Format.S8_UINT)
COLORS = (vk.Format.R8G8B8A8_UNORM, vk.Format.R8_UNORM, vk.Format.R32G32B32A32_SFLOAT, vk.Format.R8G8B8A8_UINT)
_SIZES = (4, 64, 100, 1000, 4096, 65536, 65536, 1 << 18, 1 << 18, 1 << 18)


def buffer_info(draw: Draw, wild: float) -> Value:
    """Return a VkBufferCreateInfo. wild: the probability of an arbitrary value, from 0 to 1."""
    valid = {
        "flags": 0,
        "size": draw.choice(_SIZES),
        "usage": flags(COPIES, draw.choice((0, 0, _B.STORAGE_BUFFER, _B.VERTEX_BUFFER))),
        "sharing_mode": 0,
        "queue_family_indices": [],
        "p_next": None,
    }
    if draw.chance(0.1):
        valid["usage"] = int(draw.choice((_B.STORAGE_BUFFER, _B.TRANSFER_SRC, _B.TRANSFER_DST)))
    return draw.struct(vk.BufferCreateInfo, valid, wild)


def image_info(draw: Draw, wild: float) -> Value:
    """Return a VkImageCreateInfo. wild: see `buffer_info`."""
    dimensions = draw.choice((1, 2, 2, 2, 2, 3))
    width = draw.choice((1, 3, 4, 16, 33))
    height = 1 if dimensions == 1 else draw.choice((1, 4, 16))
    depth = draw.choice((1, 2, 4)) if dimensions == 3 else 1
    linear = draw.chance(0.2)
    deep = not linear and draw.chance(0.2)
    levels = 1 if linear else draw.randint(1, max(width, height, depth).bit_length())
    extent = draw.struct(vk.Extent3D, {"width": width, "height": height, "depth": depth}, wild / 2)
    usage = draw.choice((0, int(_I.SAMPLED), 0 if deep or linear else int(_I.COLOR_ATTACHMENT)))
    valid = {
        "flags": 0,
        "image_type": dimensions - 1,
        "format": int(draw.choice(_DEEP if deep else COLORS)),
        "extent": extent,
        "mip_levels": levels,
        "array_layers": 1 if linear or dimensions == 3 else draw.choice((1, 1, 2, 3)),
        "samples": 1,
        "tiling": int(linear),
        "usage": flags(COPIED, usage) if draw.chance(0.9) else int(_I.SAMPLED),
        "sharing_mode": 0,
        "queue_family_indices": [],
        "initial_layout": draw.choice((0, 0, int(_L.PREINITIALIZED))) if linear else 0,
        "p_next": None,
    }
    made = draw.struct(vk.ImageCreateInfo, valid, wild / 2)
    if draw.chance(wild):
        made["format"] = draw.of_type(vk.Format, "format")
    if draw.chance(wild / 2):
        made.pop(draw.choice(("mip_levels", "array_layers", "samples")))  # the default of the class
    return made
