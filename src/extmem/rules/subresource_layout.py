"""vkGetImageSubresourceLayout: the parts and aspects of an image whose place in memory can be queried."""

from __future__ import annotations

from dataclasses import dataclass

from extmem import vk
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import enum_text, flags_text
from extmem.rules.violation import Violation
from extmem.vk.formats import COLOR, DEPTH, PLANES, STENCIL, FormatFacts, format_facts, format_name

__all__ = ["check_get_image_subresource_layout"]

_Aspect = vk.ImageAspectFlagBits
_COMMAND, _STRUCT = "vkGetImageSubresourceLayout", "VkImageSubresource"
_WHERE = "ImageSubresource"
_ASPECTS = sum(int(bit) for bit in _Aspect)
_LINEAR, _OPTIMAL = int(vk.ImageTiling.LINEAR), int(vk.ImageTiling.OPTIMAL)
_DRM = int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT)
_MEMORY_PLANES = tuple(int(getattr(_Aspect, f"MEMORY_PLANE_{number}_EXT")) for number in range(4))


@dataclass(slots=True)
class LayoutQuery:
    """One query, and its image."""

    aspect: int
    level: int
    layer: int
    image: vk.ImageCreateInfo

    @property
    def format(self) -> FormatFacts | None:
        """Facts of the image's format; None if the registry lacks it."""
        return format_facts(int(self.image.format))

    @property
    def tiling(self) -> int:
        """Tiling of the image."""
        return int(self.image.tiling)

    def wrong_aspect(self, aspects: tuple[int, ...]) -> Finding:
        """Return the finding for an aspect that is not one of these, which the image has."""
        have = " or ".join(flags_text(aspect, _Aspect) for aspect in aspects)
        return (
            f"{_WHERE}.aspect_mask",
            f"it is {flags_text(self.aspect, _Aspect)}, and a {format_name(int(self.image.format))} image with "
            f"{enum_text(self.tiling, vk.ImageTiling)} tiling has {have}",
            f"Give {have}.",
        )


LAYOUT: Suite[LayoutQuery] = Suite(_COMMAND)


@rule(f"{_COMMAND}-image-07790", on=LAYOUT)
def has_a_layout(call: LayoutQuery) -> Finding | None:
    """The image does not have OPTIMAL tiling, whose memory layout is not defined."""
    if call.tiling in (_LINEAR, _DRM):
        return None
    return (
        f"{_COMMAND}.image",
        f"it has {enum_text(call.tiling, vk.ImageTiling)} tiling, whose memory layout cannot be queried",
        "Create it with ImageTiling.LINEAR.",
    )


@rule(f"{_STRUCT}-aspectMask-parameter", on=LAYOUT)
def aspect_is_defined(call: LayoutQuery) -> Finding | None:
    """The aspect has defined bits only."""
    unknown = call.aspect & ~_ASPECTS
    if not unknown:
        return None
    return f"{_WHERE}.aspect_mask", f"{unknown:#x} is not an aspect", "Give one bit of ImageAspectFlagBits."


@rule(f"{_STRUCT}-aspectMask-requiredbitmask", on=LAYOUT)
def aspect_is_given(call: LayoutQuery) -> Finding | None:
    """The aspect is not 0."""
    if call.aspect:
        return None
    return f"{_WHERE}.aspect_mask", "it is 0", "Give one bit of ImageAspectFlagBits, COLOR for most images."


@rule(f"{_COMMAND}-aspectMask-00997", on=LAYOUT)
def one_aspect(call: LayoutQuery) -> Finding | None:
    """The aspect is a single bit."""
    if call.aspect.bit_count() < 2:
        return None
    return (
        f"{_WHERE}.aspect_mask",
        f"it is {flags_text(call.aspect, _Aspect)}",
        "Query one aspect at a time.",
    )


@rule(f"{_COMMAND}-mipLevel-01716", on=LAYOUT)
def level_exists(call: LayoutQuery) -> Finding | None:
    """The image has the mip level."""
    have = int(call.image.mip_levels)
    if call.level < have:
        return None
    return (
        f"{_WHERE}.mip_level",
        f"it is {call.level}, and the image has {have} levels",
        "Give one of the image's levels; the first is 0.",
    )


@rule(f"{_COMMAND}-arrayLayer-01717", on=LAYOUT)
def layer_exists(call: LayoutQuery) -> Finding | None:
    """The image has the layer."""
    have = int(call.image.array_layers)
    if call.layer < have:
        return None
    return (
        f"{_WHERE}.array_layer",
        f"it is {call.layer}, and the image has {have} layers",
        "Give one of the image's layers; the first is 0.",
    )


@rule(f"{_COMMAND}-format-08886", on=LAYOUT)
def color_is_asked_of_a_color_image(call: LayoutQuery) -> Finding | None:
    """A color image in one plane has the aspect COLOR only."""
    facts = call.format
    if facts is None or facts.deep or facts.planes or call.tiling not in (_LINEAR, _OPTIMAL) or call.aspect == COLOR:
        return None
    return call.wrong_aspect((COLOR,))


@rule(f"{_COMMAND}-format-04462", on=LAYOUT)
def depth_is_asked_where_there_is_any(call: LayoutQuery) -> Finding | None:
    """An image with depth is queried for DEPTH. By these rules an image with depth and stencil cannot be queried."""
    facts = call.format
    if facts is None or not facts.depth_size or call.aspect & DEPTH:
        return None
    return call.wrong_aspect((DEPTH,))


@rule(f"{_COMMAND}-format-04463", on=LAYOUT)
def stencil_is_asked_where_there_is_any(call: LayoutQuery) -> Finding | None:
    """An image with stencil is queried for STENCIL."""
    facts = call.format
    if facts is None or not facts.stencil_size or call.aspect & STENCIL:
        return None
    return call.wrong_aspect((STENCIL,))


@rule(f"{_COMMAND}-format-04464", on=LAYOUT)
def neither_is_asked_where_there_is_none(call: LayoutQuery) -> Finding | None:
    """A color image is not queried for DEPTH or STENCIL."""
    facts = call.format
    if facts is None or facts.deep or not call.aspect & (DEPTH | STENCIL):
        return None
    return call.wrong_aspect(facts.copied)


@rule(f"{_COMMAND}-tiling-08717", on=LAYOUT)
def a_plane_is_asked_of_planes(call: LayoutQuery) -> Finding | None:
    """A multi-planar image is queried for one of its planes."""
    facts = call.format
    if facts is None or not facts.planes or call.tiling != _LINEAR or call.aspect in facts.copied:
        return None
    return call.wrong_aspect(PLANES[: len(facts.planes)])


@rule(f"{_COMMAND}-tiling-09433", on=LAYOUT)
def a_memory_plane_is_asked_of_a_modifier(call: LayoutQuery) -> Finding | None:
    """An image with a format modifier is queried for a memory plane. The number of its planes is not checked."""
    if call.tiling != _DRM or call.aspect in _MEMORY_PLANES:
        return None
    return call.wrong_aspect(_MEMORY_PLANES)


def check_get_image_subresource_layout(subresource: vk.ImageSubresource, image: vk.ImageCreateInfo) -> list[Violation]:
    """Return all rules that querying the layout of this part of an image would break. `image`: its create info."""
    violations = wrong_struct(subresource, vk.ImageSubresource, f"{_COMMAND}.pSubresource")
    violations = violations or malformed([(_WHERE, subresource)])
    if violations:
        return violations
    level, layer = int(subresource.mip_level), int(subresource.array_layer)
    return LAYOUT.run(LayoutQuery(int(subresource.aspect_mask), level, layer, image), 0)
