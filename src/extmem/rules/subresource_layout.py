"""vkGetImageSubresourceLayout: which part of an image may be asked where it lies, in which aspect."""

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
    """One query, and the image that it is of."""

    aspect: int
    level: int
    layer: int
    image: vk.ImageCreateInfo

    @property
    def format(self) -> FormatFacts | None:
        """What the registry states of the image's format; None where it lacks it."""
        return format_facts(int(self.image.format))

    @property
    def tiling(self) -> int:
        """The image's."""
        return int(self.image.tiling)

    def wants(self, aspects: tuple[int, ...]) -> Finding:
        """The finding where the image has other aspects than the one that is asked for."""
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
    """Where the texels of an OPTIMAL image lie is the device's business."""
    if call.tiling in (_LINEAR, _DRM):
        return None
    return (
        f"{_COMMAND}.image",
        f"it has {enum_text(call.tiling, vk.ImageTiling)} tiling, which has no layout that the host could know",
        "Create it with ImageTiling.LINEAR.",
    )


@rule(f"{_STRUCT}-aspectMask-parameter", on=LAYOUT)
def aspect_is_defined(call: LayoutQuery) -> Finding | None:
    """Known bits only."""
    unknown = call.aspect & ~_ASPECTS
    if not unknown:
        return None
    return f"{_WHERE}.aspect_mask", f"{unknown:#x} is no aspect", "Give one bit of ImageAspectFlagBits."


@rule(f"{_STRUCT}-aspectMask-requiredbitmask", on=LAYOUT)
def aspect_is_given(call: LayoutQuery) -> Finding | None:
    """Nothing lies nowhere."""
    if call.aspect:
        return None
    return f"{_WHERE}.aspect_mask", "it is 0", "Give one bit of ImageAspectFlagBits, COLOR for most images."


@rule(f"{_COMMAND}-aspectMask-00997", on=LAYOUT)
def one_aspect(call: LayoutQuery) -> Finding | None:
    """One at a time."""
    if call.aspect.bit_count() < 2:
        return None
    return (
        f"{_WHERE}.aspect_mask",
        f"it is {flags_text(call.aspect, _Aspect)}",
        "Ask for one aspect at a time.",
    )


@rule(f"{_COMMAND}-mipLevel-01716", on=LAYOUT)
def level_exists(call: LayoutQuery) -> Finding | None:
    """One of the image's levels."""
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
    """One of the image's layers."""
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
    """An image in one plane, without depth and stencil, has one aspect."""
    facts = call.format
    if facts is None or facts.deep or facts.planes or call.tiling not in (_LINEAR, _OPTIMAL) or call.aspect == COLOR:
        return None
    return call.wants((COLOR,))


@rule(f"{_COMMAND}-format-04462", on=LAYOUT)
def depth_is_asked_where_there_is_any(call: LayoutQuery) -> Finding | None:
    """The rule is as it stands: an image with both depth and stencil cannot be asked at all."""
    facts = call.format
    if facts is None or not facts.depth_size or call.aspect & DEPTH:
        return None
    return call.wants((DEPTH,))


@rule(f"{_COMMAND}-format-04463", on=LAYOUT)
def stencil_is_asked_where_there_is_any(call: LayoutQuery) -> Finding | None:
    """As for depth."""
    facts = call.format
    if facts is None or not facts.stencil_size or call.aspect & STENCIL:
        return None
    return call.wants((STENCIL,))


@rule(f"{_COMMAND}-format-04464", on=LAYOUT)
def neither_is_asked_where_there_is_none(call: LayoutQuery) -> Finding | None:
    """A colour image has neither depth nor stencil."""
    facts = call.format
    if facts is None or facts.deep or not call.aspect & (DEPTH | STENCIL):
        return None
    return call.wants(facts.copied)


@rule(f"{_COMMAND}-tiling-08717", on=LAYOUT)
def a_plane_is_asked_of_planes(call: LayoutQuery) -> Finding | None:
    """Each plane of a multi-planar image lies somewhere else."""
    facts = call.format
    if facts is None or not facts.planes or call.tiling != _LINEAR or call.aspect in facts.copied:
        return None
    return call.wants(PLANES[: len(facts.planes)])


@rule(f"{_COMMAND}-tiling-09433", on=LAYOUT)
def a_memory_plane_is_asked_of_a_modifier(call: LayoutQuery) -> Finding | None:
    """What lies in memory is what the format modifier makes of the image. Its number of planes is not known here."""
    if call.tiling != _DRM or call.aspect in _MEMORY_PLANES:
        return None
    return call.wants(_MEMORY_PLANES)


def check_get_image_subresource_layout(subresource: vk.ImageSubresource, image: vk.ImageCreateInfo) -> list[Violation]:
    """All rules that asking where this part of an image lies would break. `image`: what it was created from."""
    found = wrong_struct(subresource, vk.ImageSubresource, f"{_COMMAND}.pSubresource")
    found = found or malformed([(_WHERE, subresource)])
    if found:
        return found
    level, layer = int(subresource.mip_level), int(subresource.array_layer)
    return LAYOUT.run(LayoutQuery(int(subresource.aspect_mask), level, layer, image), 0)
