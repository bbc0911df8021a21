"""Layouts of images and ownership of buffers in the commands of one submission.

They are checked when a command is recorded, and again at the submission. The `submitted_state` of a resource is its
state after the submitted commands; None if it is unknown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from extmem import rules, vk
from extmem.core.resources import BufferObject, ImageObject, ResourceObject

__all__ = ["LayoutTracker", "Steps", "barrier_step", "buffer_step", "use_step", "whole_step"]

State: TypeAlias = rules.Layouts | rules.Ownership
Steps: TypeAlias = Sequence[tuple[ResourceObject, rules.Step | rules.Use]]
_UNDEFINED = int(vk.ImageLayout.UNDEFINED)
_IGNORED = int(vk.QUEUE_FAMILY_IGNORED)

_NOTHING_TO_STORE = contextlib.nullcontext()


def barrier_step(
    image: ImageObject, barrier: vk.ImageMemoryBarrier, facts: rules.DeviceFacts, family: int, where: str
) -> rules.Step:
    """Return the layout that an image barrier requires of its range, and the layout that it leaves.

    barrier: its fields are numbers. family: the queue family that the command is recorded for.
    """
    part = barrier.subresource_range
    source, target = int(barrier.src_queue_family_index), int(barrier.dst_queue_family_index)
    old, new = int(barrier.old_layout), int(barrier.new_layout)
    area = rules.Area(part.base_mip_level, part.level_count, part.base_array_layer, part.layer_count)
    whole = int(rules.whole_range(image.create_info).aspect_mask)
    acquires = source not in (target, family, _IGNORED)
    releases = target not in (source, family, _IGNORED)
    ignored = source == target and old == new and facts.synchronization2 is not False
    return rules.Step(
        "vkCmdPipelineBarrier",
        f"{where}.old_layout",
        area,
        # For an acquisition, the previous owner ensures the old layout; UNDEFINED does not require one.
        None if ignored or old == _UNDEFINED or acquires else old,
        None if ignored else rules.RELEASED if releases else new,
        int(part.aspect_mask) & whole != whole,
    )


def buffer_step(buffer: BufferObject, barrier: vk.BufferMemoryBarrier, family: int, where: str) -> Steps:
    """Return the acquisition or release of a buffer by a barrier, if it is one. Releases of a part are not tracked."""
    source, target = int(barrier.src_queue_family_index), int(barrier.dst_queue_family_index)
    whole = int(barrier.size) in (int(vk.WHOLE_SIZE), buffer.size) and not int(barrier.offset)
    releases = target not in (source, family, _IGNORED)
    if not (releases and whole) and source in (target, family, _IGNORED):
        return []
    return [(buffer, rules.Use("vkCmdPipelineBarrier", where, releases=releases))]


def use_step(buffer: BufferObject, where: str, *, reads: bool = False) -> tuple[BufferObject, rules.Use]:
    """Return the use of a buffer by a command that writes to it, or reads it. where: the command and its argument."""
    return buffer, rules.Use(where.partition(".")[0], where, reads=reads)


def whole_step(command: str, layout: int, level: int | None = None, layer: int | None = None) -> rules.Step:
    """Return the layout that a command requires of one level and layer, or of the whole image."""
    area = rules.Area() if level is None or layer is None else rules.Area(level, 1, layer, 1)
    return rules.Step(command, f"{command}.layout", area, layout)


class LayoutTracker:
    """The states of all resources in the commands of one `Commands` object."""

    def __init__(self) -> None:
        self._steps: list[tuple[ResourceObject, rules.Step | rules.Use]] = []
        self._now: dict[ResourceObject, State] = {}

    def check(self, steps: Steps) -> list[rules.Violation]:
        """Return the rules that these steps would break after the steps that were added."""
        states: dict[ResourceObject, State] = {}
        return [violation for used, step in steps for violation in self._apply(used, step, states, self._now)]

    def add(self, steps: Steps) -> None:
        """Add the steps of a recorded command."""
        for used, step in steps:
            self._apply(used, step, self._now, {})
        self._steps += steps

    def check_again(self) -> list[tuple[str, list[rules.Violation]]]:
        """Return the rules that all steps break in the present states of the resources, by command."""
        self._now = {}
        if not self._steps:
            return []
        results = [(step.command, self._apply(used, step, self._now, {})) for used, step in self._steps]
        return [(command, violations) for command, violations in results if violations]

    @staticmethod
    def _apply(
        used: ResourceObject,
        step: rules.Step | rules.Use,
        states: dict[ResourceObject, State],
        before: dict[ResourceObject, State],
    ) -> list[rules.Violation]:
        """Apply a step to `states`; a resource that is not in it has its state of `before`, or its submitted state."""
        if used not in states:
            state = before.get(used, used.submitted_state)
            if state is None:
                return []
            states[used] = state.copy()
        state = states[used]
        if isinstance(step, rules.Use):
            return rules.apply_use(step, state) if isinstance(state, rules.Ownership) else []
        return rules.apply(step, state) if isinstance(state, rules.Layouts) else []

    def submitting(self) -> contextlib.AbstractContextManager[None]:
        """Store the states after the commands at the end of the block that submits them; unknown after an error."""
        return self._storing() if self._now else _NOTHING_TO_STORE

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for used in self._now:
                submitted = used.submitted_state
                if submitted is not None:
                    submitted.forget()
            raise
        for used, state in self._now.items():
            if used.submitted_state is not None:
                used.submitted_state = state

    def clear(self) -> None:
        """Remove all steps and states."""
        self._steps.clear()
        self._now.clear()
