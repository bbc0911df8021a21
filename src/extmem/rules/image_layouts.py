"""Layouts of the parts of images, as far as commands of this library determine them.

How this works: an image begins in its initial layout, and barriers change it. A `Step` is the layout that one command
requires and the layout that it leaves. Steps are applied to a copy of `Layouts` when a command is recorded, and to
another copy when it is submitted, because other commands may have been submitted in between. A part that was released
to another owner has no layout until it is acquired, or changed from UNDEFINED to a layout. A layout that cannot be
determined (other bindings used the image, or a barrier covered only some of its aspects) is unknown, and not checked.
"""

from __future__ import annotations

import msgspec

from extmem import vk
from extmem.rules._engine import Demand, Finding, Suite, demand
from extmem.rules._text import enum_text
from extmem.rules.violation import Violation

__all__ = ["RELEASED", "Area", "Layouts", "Step", "apply"]

_REMAINING = 0xFFFF_FFFF
_UNDEFINED = int(vk.ImageLayout.UNDEFINED)
RELEASED = -1
"""Stored in place of a layout: another owner has the image, and may change its layout."""


class Area(msgspec.Struct, frozen=True):
    """A range of mip levels and layers of an image."""

    first_level: int = 0
    levels: int = _REMAINING
    first_layer: int = 0
    layers: int = _REMAINING


class Layouts:
    """The layout of each mip level of each layer; None if unknown."""

    __slots__ = ("_everywhere", "_size", "_somewhere")

    def __init__(self, info: vk.ImageCreateInfo) -> None:
        self._size = int(info.mip_levels), int(info.array_layers)
        self._everywhere: int | None = int(info.initial_layout)
        self._somewhere: dict[tuple[int, int], int | None] = {}

    def copy(self) -> Layouts:
        """Return an independent copy."""
        made = object.__new__(Layouts)
        made._size, made._everywhere, made._somewhere = self._size, self._everywhere, dict(self._somewhere)
        return made

    def forget(self) -> None:
        """Treat all layouts as unknown until the next barrier."""
        self._everywhere = None
        self._somewhere.clear()

    def found(self, area: Area) -> set[int]:
        """Return the known layouts in an area."""
        if not self._somewhere:
            return set() if self._everywhere is None else {self._everywhere}
        layouts = {self._somewhere.get(part, self._everywhere) for part in self._parts(area)}
        return {layout for layout in layouts if layout is not None}

    def put(self, area: Area, layout: int | None) -> None:
        """Set the layout of an area."""
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


class Step(msgspec.Struct, frozen=True):
    """The layout that one command requires of an area, and the layout that it leaves."""

    command: str
    """Name of the command, such as `vkCmdCopyImageToBuffer`."""
    where: str
    area: Area
    asked: int | None
    """Layout that the command requires; None if any is valid."""
    left: int | None = None
    """Layout that the command changes the area to, or `RELEASED`; None if it does not change the layout."""
    partly: bool = False
    """Whether the command covers only some of the image's aspects."""


class AppliedStep(msgspec.Struct):
    """A step, and the layouts when it is applied."""

    step: Step
    layouts: Layouts


BARRIER: Suite[AppliedStep] = Suite("vkCmdPipelineBarrier")
TO_IMAGE: Suite[AppliedStep] = Suite("vkCmdCopyBufferToImage")
TO_BUFFER: Suite[AppliedStep] = Suite("vkCmdCopyImageToBuffer")
CLEAR: Suite[AppliedStep] = Suite("vkCmdClearColorImage")
_SUITES = {suite.command: suite for suite in (BARRIER, TO_IMAGE, TO_BUFFER, CLEAR)}


def _in_another_layout(call: AppliedStep) -> Finding | None:
    required = call.step.asked
    if required is None or call.step.partly:
        return None
    others = call.layouts.found(call.step.area) - {required}
    if not others:
        return None
    if RELEASED in others:
        return (
            call.step.where,
            f"it is {enum_text(required, vk.ImageLayout)}, and the image was released and not acquired since",
            "Acquire it with `acquire` before, or release it after the last use.",
        )
    has = " and ".join(enum_text(layout, vk.ImageLayout) for layout in sorted(others))
    return (
        call.step.where,
        f"it is {enum_text(required, vk.ImageLayout)}, and the image is in {has}",
        "Pass the layout that the image is in, or change its layout with `change_layout` before.",
    )


demand(
    (BARRIER, TO_IMAGE, TO_BUFFER, CLEAR),
    Demand(
        (
            "VkImageMemoryBarrier-oldLayout-01197",
            "vkCmdCopyBufferToImage-dstImageLayout-00180",
            "vkCmdCopyImageToBuffer-srcImageLayout-00189",
            "vkCmdClearColorImage-imageLayout-00004",
        ),
        _in_another_layout,
    ),
)


def apply(step: Step, layouts: Layouts) -> list[Violation]:
    """Return the rules that a step breaks with these layouts, and change the layouts to those after the step."""
    violations = _SUITES[step.command].run(AppliedStep(step, layouts), 0)
    if step.left is not None:
        layouts.put(step.area, None if step.partly else step.left)
    return violations
