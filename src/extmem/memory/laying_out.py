"""The layouts of images in the commands of one submission: judged when recorded, and again when submitted.

An image's `layouts` are what the submitted commands left it in; None once its raw handle was given away, for then
other code may change them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from extmem import rules, vk
from extmem.memory.resources import Image

__all__ = ["LayingOut", "Steps", "barrier_step", "whole_step"]

Steps: TypeAlias = Sequence[tuple[Image, rules.Step]]
_UNDEFINED = int(vk.ImageLayout.UNDEFINED)
_NOBODY = int(vk.QUEUE_FAMILY_IGNORED)


def barrier_step(
    image: Image, barrier: vk.ImageMemoryBarrier, facts: rules.DeviceFacts, family: int, where: str
) -> rules.Step:
    """What an image barrier asks of the image's layouts and leaves behind. Its fields are numbers.

    family: the queue family that the command is recorded for.
    """
    part = barrier.subresource_range
    source, target = int(barrier.src_queue_family_index), int(barrier.dst_queue_family_index)
    old, new = int(barrier.old_layout), int(barrier.new_layout)
    area = rules.Area(part.base_mip_level, part.level_count, part.base_array_layer, part.layer_count)
    whole = int(rules.whole_range(image.create_info).aspect_mask)
    acquires = source not in (target, family, _NOBODY)
    releases = target not in (source, family, _NOBODY)
    ignored = source == target and old == new and facts.synchronization2 is not False
    return rules.Step(
        "vkCmdPipelineBarrier",
        f"{where}.old_layout",
        area,
        # What comes from outside was brought to its layout there; UNDEFINED asks for none.
        None if ignored or old == _UNDEFINED or acquires else old,
        None if ignored else rules.RELEASED if releases else new,
        int(part.aspect_mask) & whole != whole,
    )


def whole_step(command: str, layout: int, level: int | None = None, layer: int | None = None) -> rules.Step:
    """What a copy of one level and layer asks, or a command for all of them."""
    area = rules.Area() if level is None or layer is None else rules.Area(level, 1, layer, 1)
    return rules.Step(command, f"{command}.layout", area, layout)


class LayingOut:
    """See the module. One for each `Commands`."""

    def __init__(self) -> None:
        self._steps: list[tuple[Image, rules.Step]] = []
        self._now: dict[Image, rules.Layouts] = {}

    def judged(self, steps: Steps) -> list[rules.Violation]:
        """What these steps would break after those that were added."""
        tried: dict[Image, rules.Layouts] = {}
        return [violation for image, step in steps for violation in self._applied(image, step, tried, self._now)]

    def add(self, steps: Steps) -> None:
        """These steps are recorded."""
        for image, step in steps:
            self._applied(image, step, self._now, {})
        self._steps += steps

    def judged_again(self) -> list[tuple[str, list[rules.Violation]]]:
        """What the steps break as things are now, by command."""
        self._now = {}
        found = [(step.command, self._applied(image, step, self._now, {})) for image, step in self._steps]
        return [(command, violations) for command, violations in found if violations]

    @staticmethod
    def _applied(
        image: Image, step: rules.Step, to: dict[Image, rules.Layouts], before: dict[Image, rules.Layouts]
    ) -> list[rules.Violation]:
        if image not in to:
            known = before.get(image, image.layouts)
            if known is None:
                return []
            to[image] = known.copy()
        return rules.apply(step, to[image])

    @contextlib.contextmanager
    def submitting(self) -> Iterator[None]:
        """A block that submits: afterwards the images are as the commands leave them; unknown where it failed."""
        try:
            yield
        except BaseException:
            for image in self._now:
                if image.layouts is not None:
                    image.layouts.forget()
            raise
        for image, layouts in self._now.items():
            if image.layouts is not None:
                image.layouts = layouts

    def clear(self) -> None:
        """Forget all."""
        self._steps.clear()
        self._now.clear()
