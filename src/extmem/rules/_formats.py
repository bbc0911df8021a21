"""What rules ask of a VkFormat, read from the format's own name."""

from __future__ import annotations

import re
from functools import cache

from extmem import vk

__all__ = ["format_name", "is_compressed", "is_depth", "is_multi_planar", "needs_conversion", "subsampling"]

_DEPTH = re.compile(r"(?:X8_)?D\d+(?:_|$)")
_SUBSAMPLED = re.compile(r"_(4\d\d)_")


@cache
def format_name(vk_format: int) -> str:
    """Its name without VK_FORMAT_; the number where it has none."""
    try:
        return vk.Format(vk_format).name
    except ValueError:
        return str(vk_format)


def is_compressed(vk_format: int) -> bool:
    """Whether its texels come in compressed blocks."""
    return "_BLOCK" in format_name(vk_format)


def is_depth(vk_format: int) -> bool:
    """Whether it has a depth aspect."""
    return bool(_DEPTH.match(format_name(vk_format)))


def is_multi_planar(vk_format: int) -> bool:
    """Whether its components are in two planes or three."""
    return "PLANE" in format_name(vk_format)


def subsampling(vk_format: int) -> str:
    """`420`, `422` or `444` of a Y'CbCr format; empty for every other."""
    found = _SUBSAMPLED.search(format_name(vk_format))
    return found[1] if found else ""


def needs_conversion(vk_format: int) -> bool:
    """Whether sampling it requires a sampler Y'CbCr conversion."""
    return bool(subsampling(vk_format))
