"""The layout that each part of an image is in, as far as the commands of this library brought it there.

How this works: an image begins in its initial layout, and barriers change it. A `Step` is what one command asks of it
and leaves behind. Steps are applied to a copy of `Layouts` when a command is recorded, and to another one when it is
submitted, for other commands may have been submitted in between. What was released to another owner has no layout here
until it is acquired, or brought from UNDEFINED to one. What nobody can know (other bindings used the image, or a
barrier covered a part of its aspects) is unknown, and not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from extmem import vk
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._text import enum_text
from extmem.rules.violation import Violation

__all__ = ["RELEASED", "Area", "Layouts", "Step", "apply"]

_REMAINING = 0xFFFF_FFFF
_UNDEFINED = int(vk.ImageLayout.UNDEFINED)
RELEASED = -1
"""In place of a layout: another owner has the image, and may bring it to any."""


class Area(NamedTuple):
    """Mip levels and layers of an image."""

    first_level: int = 0
    levels: int = _REMAINING
    first_layer: int = 0
    layers: int = _REMAINING


class Layouts:
    """The layout of each mip level of each layer; None where it is unknown."""

    __slots__ = ("_everywhere", "_size", "_somewhere")

    def __init__(self, info: vk.ImageCreateInfo) -> None:
        self._size = int(info.mip_levels), int(info.array_layers)
        self._everywhere: int | None = int(info.initial_layout)
        self._somewhere: dict[tuple[int, int], int | None] = {}

    def copy(self) -> Layouts:
        """An independent copy."""
        made = object.__new__(Layouts)
        made._size, made._everywhere, made._somewhere = self._size, self._everywhere, dict(self._somewhere)
        return made

    def forget(self) -> None:
        """Nothing is known from now on, until a barrier says so."""
        self._everywhere = None
        self._somewhere.clear()

    def found(self, area: Area) -> set[int]:
        """The known layouts in an area."""
        if not self._somewhere:
            return set() if self._everywhere is None else {self._everywhere}
        layouts = {self._somewhere.get(part, self._everywhere) for part in self._parts(area)}
        return {layout for layout in layouts if layout is not None}

    def put(self, area: Area, layout: int | None) -> None:
        """The layout of an area from now on."""
        parts = self._parts(area)
        if len(parts) == self._size[0] * self._size[1]:
            self._everywhere = layout
            self._somewhere.clear()
        else:
            self._somewhere.update(dict.fromkeys(parts, layout))

    def _parts(self, area: Area) -> list[tuple[int, int]]:
        levels, layers = self._size
        last_level, last_layer = (
            min(levels, area.first_level + area.levels),
            min(layers, area.first_layer + area.layers),
        )
        return [
            (level, layer)
            for level in range(area.first_level, last_level)
            for layer in range(area.first_layer, last_layer)
        ]


@dataclass(frozen=True, slots=True)
class Step:
    """What one command asks of an image's layouts, and leaves behind."""

    command: str
    """`vkCmdCopyImageToBuffer` and others."""
    where: str
    area: Area
    asked: int | None
    """The layout that the area is in; None where any will do."""
    left: int | None = None
    """The layout that the command brings it to, or `RELEASED`; None where it stays as it is."""
    partly: bool = False
    """Whether it is about a part of the image's aspects."""


@dataclass(slots=True)
class Asked:
    """A step, and what is known when it is applied."""

    step: Step
    layouts: Layouts


BARRIER: Suite[Asked] = Suite("vkCmdPipelineBarrier")
TO_IMAGE: Suite[Asked] = Suite("vkCmdCopyBufferToImage")
TO_BUFFER: Suite[Asked] = Suite("vkCmdCopyImageToBuffer")
CLEAR: Suite[Asked] = Suite("vkCmdClearColorImage")
_SUITES = {suite.command: suite for suite in (BARRIER, TO_IMAGE, TO_BUFFER, CLEAR)}


@rule(
    "VkImageMemoryBarrier-oldLayout-01197",
    "vkCmdCopyBufferToImage-dstImageLayout-00180",
    "vkCmdCopyImageToBuffer-srcImageLayout-00189",
    "vkCmdClearColorImage-imageLayout-00004",
    on=(BARRIER, TO_IMAGE, TO_BUFFER, CLEAR),
)
def is_in_that_layout(call: Asked) -> Finding | None:
    """The device reads an image by the layout that the command names."""
    asked = call.step.asked
    if asked is None or call.step.partly:
        return None
    others = call.layouts.found(call.step.area) - {asked}
    if not others:
        return None
    if RELEASED in others:
        return (
            call.step.where,
            f"it is {enum_text(asked, vk.ImageLayout)}, and the image was released and not acquired since",
            "Acquire it with `acquire` before, or leave the release to the end.",
        )
    has = " and ".join(enum_text(layout, vk.ImageLayout) for layout in sorted(others))
    return (
        call.step.where,
        f"it is {enum_text(asked, vk.ImageLayout)}, and the image is in {has}",
        "Pass the layout that the image has, or bring it to another one with `change_layout` before.",
    )


def apply(step: Step, layouts: Layouts) -> list[Violation]:
    """What a step breaks where an image has these layouts; they are those after the step from then on."""
    found = _SUITES[step.command].run(Asked(step, layouts), 0)
    if step.left is not None:
        layouts.put(step.area, None if step.partly else step.left)
    return found
