"""How many bytes one texel of a VkFormat takes, read from the format's own name."""

from __future__ import annotations

import re
from functools import cache

from extmem import vk

__all__ = ["is_depth_or_stencil", "texel_size"]

_LAYOUT = re.compile(r"(?:[RGBADSXE]\d+)+")
_BITS = re.compile(r"[RGBADSXE](\d+)")
_NOT_PLAIN = re.compile(r"BLOCK|PLANE|_4\d\d_")
_DEPTH_OR_STENCIL = re.compile(r"(?:X8_)?[DS]\d+(?:_|$)")


@cache
def texel_size(vk_format: int) -> int | None:
    """Bytes per texel of an uncompressed, single-plane format; None for every other format and for unknown numbers.

    The names say it all: `R8G8B8A8_UNORM` is four times eight bits, `X8_D24_UNORM_PACK32` is 8 + 24, and what is
    compressed, subsampled or in planes has a word for that in it.
    """
    name = _name(vk_format)
    if not name or _NOT_PLAIN.search(name):
        return None
    bits = sum(int(width) for part in name.split("_") if _LAYOUT.fullmatch(part) for width in _BITS.findall(part))
    return bits // 8 if bits and bits % 8 == 0 else None


@cache
def is_depth_or_stencil(vk_format: int) -> bool:
    """Whether the format has a depth or a stencil aspect."""
    return bool(_DEPTH_OR_STENCIL.match(_name(vk_format)))


def _name(vk_format: int) -> str:
    try:
        return vk.Format(vk_format).name
    except ValueError:
        return ""
