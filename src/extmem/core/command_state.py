"""The layouts of images, and who owns buffers, in the commands of one submission: checked when recorded, and again when
submitted.

An image's `layouts` and a buffer's `ownership` are what the submitted commands left; None once the raw handle was given
away, for then other code may change them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from extmem import rules, vk
from extmem.core.resources import BufferObject, ImageObject, ResourceObject

__all__ = ["LayoutTracker", "Steps", "barrier_step", "buffer_step", "reads", "whole_step", "writes"]

State: TypeAlias = rules.Layouts | rules.Ownership
Steps: TypeAlias = Sequence[tuple[ResourceObject, rules.Step | rules.Use]]
_UNDEFINED = int(vk.ImageLayout.UNDEFINED)
_NOBODY = int(vk.QUEUE_FAMILY_IGNORED)


def barrier_step(
    image: ImageObject, barrier: vk.ImageMemoryBarrier, facts: rules.DeviceFacts, family: int, where: str
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


def buffer_step(buffer: BufferObject, barrier: vk.BufferMemoryBarrier, family: int, where: str) -> Steps:
    """Whom a buffer barrier passes the buffer to, if it does. A release of a part is not followed."""
    source, target = int(barrier.src_queue_family_index), int(barrier.dst_queue_family_index)
    whole = int(barrier.size) in (int(vk.WHOLE_SIZE), buffer.size) and not int(barrier.offset)
    releases = target not in (source, family, _NOBODY)
    if not (releases and whole) and source in (target, family, _NOBODY):
        return []
    return [(buffer, rules.Use("vkCmdPipelineBarrier", where, releases=releases))]


def reads(buffer: BufferObject, where: str) -> tuple[BufferObject, rules.Use]:
    """What a command does that reads a buffer. where: the command and its argument."""
    return buffer, rules.Use(where.partition(".")[0], where, reads=True)


def writes(buffer: BufferObject, where: str) -> tuple[BufferObject, rules.Use]:
    """What a command does that writes to a buffer."""
    return buffer, rules.Use(where.partition(".")[0], where)


def whole_step(command: str, layout: int, level: int | None = None, layer: int | None = None) -> rules.Step:
    """What a copy of one level and layer asks, or a command for all of them."""
    area = rules.Area() if level is None or layer is None else rules.Area(level, 1, layer, 1)
    return rules.Step(command, f"{command}.layout", area, layout)


class LayoutTracker:
    """See the module. One for each `Commands`."""

    def __init__(self) -> None:
        self._steps: list[tuple[ResourceObject, rules.Step | rules.Use]] = []
        self._now: dict[ResourceObject, State] = {}

    def check(self, steps: Steps) -> list[rules.Violation]:
        """What these steps would break after those that were added."""
        tried: dict[ResourceObject, State] = {}
        return [violation for used, step in steps for violation in self._applied(used, step, tried, self._now)]

    def add(self, steps: Steps) -> None:
        """These steps are recorded."""
        for used, step in steps:
            self._applied(used, step, self._now, {})
        self._steps += steps

    def check_again(self) -> list[tuple[str, list[rules.Violation]]]:
        """What the steps break as things are now, by command."""
        self._now = {}
        found = [(step.command, self._applied(used, step, self._now, {})) for used, step in self._steps]
        return [(command, violations) for command, violations in found if violations]

    @staticmethod
    def _applied(
        used: ResourceObject,
        step: rules.Step | rules.Use,
        to: dict[ResourceObject, State],
        before: dict[ResourceObject, State],
    ) -> list[rules.Violation]:
        if used not in to:
            known = before.get(used, _left(used))
            if known is None:
                return []
            to[used] = known.copy()
        state = to[used]
        if isinstance(step, rules.Use):
            return rules.apply_use(step, state) if isinstance(state, rules.Ownership) else []
        return rules.apply(step, state) if isinstance(state, rules.Layouts) else []

    @contextlib.contextmanager
    def submitting(self) -> Iterator[None]:
        """A block that submits: afterwards all are as the commands leave them; unknown where it failed."""
        try:
            yield
        except BaseException:
            for used in self._now:
                known = _left(used)
                if known is not None:
                    known.forget()
            raise
        for used, state in self._now.items():
            if isinstance(used, ImageObject) and used.layouts is not None and isinstance(state, rules.Layouts):
                used.layouts = state
            if isinstance(used, BufferObject) and used.ownership is not None and isinstance(state, rules.Ownership):
                used.ownership = state

    def clear(self) -> None:
        """Forget all."""
        self._steps.clear()
        self._now.clear()


def _left(used: ResourceObject) -> State | None:
    """What submitted commands left; None where that is not known."""
    return used.layouts if isinstance(used, ImageObject) else used.ownership if isinstance(used, BufferObject) else None
