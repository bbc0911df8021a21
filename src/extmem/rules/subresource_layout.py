"""vkGetImageSubresourceLayout: the parts and aspects of an image whose place in memory can be queried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._conditions import is_zero, not_index, not_one_of, undefined_bits
from extmem.rules._engine import Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import enum_text, flags_text
from extmem.rules.violation import Violation
from extmem.vk.formats import COLOR, DEPTH, PLANES, STENCIL, FormatFacts, format_facts, format_name
from extmem.vk.modifiers import MEMORY_PLANES

__all__ = ["check_get_image_subresource_layout"]

_Aspect = vk.ImageAspectFlagBits
_COMMAND, _STRUCT = "vkGetImageSubresourceLayout", "VkImageSubresource"
_WHERE = "ImageSubresource"
_LINEAR, _OPTIMAL = int(vk.ImageTiling.LINEAR), int(vk.ImageTiling.OPTIMAL)
_DRM = int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT)


class LayoutQuery(msgspec.Struct):
    """One query, and its image."""

    aspect: int
    level: int
    layer: int
    image: vk.ImageCreateInfo

    @property
    def tiling_text(self) -> str:
        """Tiling of the image."""
        return enum_text(int(self.image.tiling), vk.ImageTiling)

    @property
    def given(self) -> str:
        """The aspect as text."""
        return flags_text(self.aspect, _Aspect)

    @property
    def format_name(self) -> str:
        """Name of the image's format."""
        return format_name(int(self.image.format))


Aspects = Sequence[int]
"""The aspects that can be queried; empty if the given one is among them, or the rule is not about such an image."""


def _color(call: LayoutQuery, facts: FormatFacts) -> Aspects:
    """A color image in one plane has the aspect COLOR only."""
    is_color = not facts.deep and not facts.planes and int(call.image.tiling) in (_LINEAR, _OPTIMAL)
    return (COLOR,) if is_color and call.aspect != COLOR else ()


def _depth(call: LayoutQuery, facts: FormatFacts) -> Aspects:
    """An image with depth is queried for DEPTH. By these rules an image with depth and stencil cannot be queried."""
    return (DEPTH,) if facts.depth_size and not call.aspect & DEPTH else ()


def _stencil(call: LayoutQuery, facts: FormatFacts) -> Aspects:
    return (STENCIL,) if facts.stencil_size and not call.aspect & STENCIL else ()


def _neither(call: LayoutQuery, facts: FormatFacts) -> Aspects:
    """A color image is not queried for DEPTH or STENCIL."""
    return facts.copied if not facts.deep and call.aspect & (DEPTH | STENCIL) else ()


def _planes(call: LayoutQuery, facts: FormatFacts) -> Aspects:
    """A multi-planar image is queried for one of its planes."""
    wrong = int(call.image.tiling) == _LINEAR and call.aspect not in facts.copied
    return PLANES[: len(facts.planes)] if wrong else ()


def _memory_planes(call: LayoutQuery, _facts: FormatFacts | None) -> Aspects:
    """An image with a format modifier is queried for a memory plane. The number of its planes is not checked."""
    return MEMORY_PLANES if int(call.image.tiling) == _DRM and call.aspect not in MEMORY_PLANES else ()


def _has_aspect(vuid: str, possible: Callable[[LayoutQuery, Any], Aspects], *, any_format: bool = False) -> Demand:
    """Return the row that the aspect is one of those that `possible` returns."""

    def broken(call: LayoutQuery) -> str:
        facts = format_facts(int(call.image.format))
        aspects = possible(call, facts) if facts is not None or any_format else ()
        return " or ".join(flags_text(aspect, _Aspect) for aspect in aspects)

    return Demand(
        vuid,
        broken,
        f"{_WHERE}.aspect_mask",
        "it is {call.given}, and a {call.format_name} image with {call.tiling_text} tiling has {found}",
        "Give {found}.",
    )


def _several(call: LayoutQuery) -> bool:
    return call.aspect.bit_count() > 1


LAYOUT: Suite[LayoutQuery] = Suite(_COMMAND)
demand(
    LAYOUT,
    Demand(  # the memory layout of OPTIMAL tiling is not defined
        f"{_COMMAND}-image-07790",
        not_one_of("image.tiling", (_LINEAR, _DRM)),
        f"{_COMMAND}.image",
        "it has {call.tiling_text} tiling, whose memory layout cannot be queried",
        "Create it with ImageTiling.LINEAR.",
    ),
    Demand(
        f"{_STRUCT}-aspectMask-parameter",
        undefined_bits("aspect", sum(int(bit) for bit in _Aspect)),
        f"{_WHERE}.aspect_mask",
        "{found:#x} is not an aspect",
        "Give one bit of ImageAspectFlagBits.",
    ),
    Demand(
        f"{_STRUCT}-aspectMask-requiredbitmask",
        is_zero("aspect"),
        f"{_WHERE}.aspect_mask",
        "it is 0",
        "Give one bit of ImageAspectFlagBits, COLOR for most images.",
    ),
    Demand(
        f"{_COMMAND}-aspectMask-00997",
        _several,
        f"{_WHERE}.aspect_mask",
        "it is {call.given}",
        "Query one aspect at a time.",
    ),
    Demand(
        f"{_COMMAND}-mipLevel-01716",
        not_index("level", "image.mip_levels"),
        f"{_WHERE}.mip_level",
        "it is {call.level}, and the image has {call.image.mip_levels:d} levels",
        "Give one of the image's levels; the first is 0.",
    ),
    Demand(
        f"{_COMMAND}-arrayLayer-01717",
        not_index("layer", "image.array_layers"),
        f"{_WHERE}.array_layer",
        "it is {call.layer}, and the image has {call.image.array_layers:d} layers",
        "Give one of the image's layers; the first is 0.",
    ),
    _has_aspect(f"{_COMMAND}-format-08886", _color),
    _has_aspect(f"{_COMMAND}-format-04462", _depth),
    _has_aspect(f"{_COMMAND}-format-04463", _stencil),
    _has_aspect(f"{_COMMAND}-format-04464", _neither),
    _has_aspect(f"{_COMMAND}-tiling-08717", _planes),
    _has_aspect(f"{_COMMAND}-tiling-09433", _memory_planes, any_format=True),
)


def check_get_image_subresource_layout(subresource: vk.ImageSubresource, image: vk.ImageCreateInfo) -> list[Violation]:
    """Return all rules that querying the layout of this part of an image would break. `image`: its create info."""
    violations = wrong_struct(subresource, vk.ImageSubresource, f"{_COMMAND}.pSubresource")
    violations = violations or malformed([(_WHERE, subresource)])
    if violations:
        return violations
    level, layer = int(subresource.mip_level), int(subresource.array_layer)
    return LAYOUT.run(LayoutQuery(int(subresource.aspect_mask), level, layer, image), 0)
