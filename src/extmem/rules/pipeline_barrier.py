"""vkCmdPipelineBarrier and vkCmdPipelineBarrier2: all barriers of a command, and whose command buffer they stand in.

Ownership goes over in two halves: the source's queue family releases, the destination's acquires. So the command pool's
queue family is one of the two sides. A side that is IGNORED stands for all queue families that a concurrent resource
is shared by; then there is no single family to compare with, and the rule is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from extmem import vk
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._field_types import is_sequence, malformed, misfit, wrong_struct
from extmem.rules.barriers import EXTERNAL, FOREIGN, IGNORED, Barrier, Traits, judge
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.pipeline_stages import check_stages
from extmem.rules.violation import Violation

__all__ = ["check_pipeline_barrier", "check_pipeline_barrier2"]


@dataclass(slots=True)
class Recorded:
    """A barrier, and the queue family of the command pool that its command buffer comes from."""

    barrier: Barrier
    family: int

    @property
    def transfers(self) -> bool:
        """Whether ownership goes over at all. Of a concurrent or unknown resource, only across the border."""
        sides = (self.barrier.src, self.barrier.dst)
        if IGNORED in sides:
            return False
        return bool(self.barrier.traits & Traits.EXCLUSIVE) or EXTERNAL in sides or FOREIGN in sides


PIPELINE: Suite[Recorded] = Suite("vkCmdPipelineBarrier")
PIPELINE2: Suite[Recorded] = Suite("vkCmdPipelineBarrier2")
_BARRIERS = "VUID-vkCmdPipelineBarrier-srcQueueFamilyIndex-10388"
_MEMORY = "VUID-vkCmdPipelineBarrier-pMemoryBarriers-parameter"
_BARRIERS2 = "VUID-vkCmdPipelineBarrier2-srcQueueFamilyIndex-10387"


@rule(_BARRIERS, _BARRIERS2, on=(PIPELINE, PIPELINE2), needs=Traits.MOVES)
def recorded_by_one_side(call: Recorded) -> Finding | None:
    """Nobody can give away, or take, on behalf of others. It also forbids to go from EXTERNAL to FOREIGN."""
    barrier = call.barrier
    if call.family in (barrier.src, barrier.dst) or not call.transfers:
        return None
    return (
        barrier.where,
        f"the {barrier.kind} goes {barrier.way}, in a command buffer for queue family {call.family}",
        "Release in a command buffer for the source's queue family, acquire in one for the destination's.",
    )


def check_pipeline_barrier(
    buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
    image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
    device: DeviceFacts,
    *,
    buffers: Sequence[ResourceFacts | None] = (),
    images: Sequence[ResourceFacts | None] = (),
    recording_family: int | None = None,
    stage_masks: tuple[int, int] | None = None,
    memory_barriers: Sequence[vk.MemoryBarrier] = (),
) -> list[Violation]:
    """All rules that a vkCmdPipelineBarrier with these barriers would break.

    They are those of `check_buffer_memory_barrier` and `check_image_memory_barrier` for each of the barriers,
    vkCmdPipelineBarrier-srcQueueFamilyIndex-10388, and those on `stage_masks` (source and destination) and the accesses
    that these stages make; None judges neither stages nor accesses.

    `buffers`, `images`: what is known of the resource of each barrier, in the order of the barriers; None, or the end
    of the sequence, for nothing. `recording_family`: the index of the queue family that the command pool was created
    for, None if unknown.
    """
    found: list[Violation] = []
    for field, barriers, struct, known in (
        ("buffer_memory_barriers", buffer_memory_barriers, vk.BufferMemoryBarrier, buffers),
        ("image_memory_barriers", image_memory_barriers, vk.ImageMemoryBarrier, images),
    ):
        where = f"vkCmdPipelineBarrier.{field}"
        if is_sequence(barriers):
            found += _each(PIPELINE, barriers, struct, known, device, recording_family, where)
        else:
            found.append(misfit(_BARRIERS, where, barriers, f"a sequence of vk.{struct.__name__}"))
    if not is_sequence(memory_barriers):
        where = "vkCmdPipelineBarrier.memory_barriers"
        found.append(misfit(_MEMORY, where, memory_barriers, "a sequence of vk.MemoryBarrier"))
    if stage_masks is not None:
        given = (memory_barriers, buffer_memory_barriers, image_memory_barriers)
        found += check_stages(
            *stage_masks, [each if is_sequence(each) else () for each in given], device, recording_family
        )
    return found


def check_pipeline_barrier2(
    info: vk.DependencyInfo,
    device: DeviceFacts,
    *,
    buffers: Sequence[ResourceFacts | None] = (),
    images: Sequence[ResourceFacts | None] = (),
    recording_family: int | None = None,
) -> list[Violation]:
    """All rules on ownership and layouts at the border that a vkCmdPipelineBarrier2 with this info would break.

    As `check_pipeline_barrier`, for the second version of the structures; the command's own rule is
    vkCmdPipelineBarrier2-srcQueueFamilyIndex-10387.
    """
    found = wrong_struct(info, vk.DependencyInfo, "DependencyInfo") or malformed([("DependencyInfo", info)])
    if found:
        return found
    for field, struct, known in (
        ("buffer_memory_barriers", vk.BufferMemoryBarrier2, buffers),
        ("image_memory_barriers", vk.ImageMemoryBarrier2, images),
    ):
        where = f"DependencyInfo.{field}"
        found += _each(PIPELINE2, getattr(info, field), struct, known, device, recording_family, where)
    return found


def _each(
    suite: Suite[Recorded],
    barriers: Sequence[Any],
    struct: type,
    known: Sequence[ResourceFacts | None],
    device: DeviceFacts,
    family: int | None,
    where: str,
) -> list[Violation]:
    """What each barrier breaks by itself, and in this command buffer."""
    found: list[Violation] = []
    for i, info in enumerate(barriers):
        resource = known[i] if i < len(known) else None
        barrier, broken = judge(info, struct, resource, device, f"{where}[{i}]")
        found += broken
        if barrier is not None and family is not None:
            found += suite.run(Recorded(barrier, family), barrier.traits)
    return found
