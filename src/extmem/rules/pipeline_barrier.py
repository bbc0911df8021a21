"""vkCmdPipelineBarrier and vkCmdPipelineBarrier2: all barriers of a command, and the command buffer's queue family.

Ownership is transferred in two halves: the source's queue family releases, the destination's acquires. So the command
pool's queue family is one of the two sides. A side that is IGNORED stands for all queue families of a concurrent
resource. Then there is no single family to compare with, and the rule reports nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._engine import Demand, Suite, demand
from extmem.rules._field_types import is_sequence, malformed, misfit, wrong_struct
from extmem.rules.barriers import EXTERNAL, FOREIGN, IGNORED, Barrier, Traits, check_barrier
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.pipeline_stages import check_stages
from extmem.rules.violation import Violation

__all__ = ["check_pipeline_barrier", "check_pipeline_barrier2"]


class Recorded(msgspec.Struct):
    """A barrier, and the queue family of the command pool that its command buffer comes from."""

    barrier: Barrier
    family: int

    @property
    def transfers(self) -> bool:
        """Whether ownership is transferred; for a concurrent or unknown resource, to or from outside this device."""
        sides = (self.barrier.src, self.barrier.dst)
        if IGNORED in sides:
            return False
        return bool(self.barrier.traits & Traits.EXCLUSIVE) or EXTERNAL in sides or FOREIGN in sides


PIPELINE: Suite[Recorded] = Suite("vkCmdPipelineBarrier")
PIPELINE2: Suite[Recorded] = Suite("vkCmdPipelineBarrier2")
_BARRIERS = "VUID-vkCmdPipelineBarrier-srcQueueFamilyIndex-10388"
_MEMORY = "VUID-vkCmdPipelineBarrier-pMemoryBarriers-parameter"
_BARRIERS2 = "VUID-vkCmdPipelineBarrier2-srcQueueFamilyIndex-10387"


def _recorded_by_neither_side(call: Recorded) -> bool:
    """A transfer from EXTERNAL to FOREIGN is invalid in any command buffer."""
    return call.family not in (call.barrier.src, call.barrier.dst) and call.transfers


demand(
    (PIPELINE, PIPELINE2),
    Demand(
        (_BARRIERS, _BARRIERS2),
        _recorded_by_neither_side,
        "{call.barrier.where}",
        "the {call.barrier.resource_kind} is transferred {call.barrier.transfer_text}, in a command buffer for queue "
        "family {call.family}",
        "Release in a command buffer for the source's queue family, acquire in one for the destination's.",
        needs=Traits.MOVES,
    ),
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
    """Return all rules that a vkCmdPipelineBarrier with these barriers would break.

    They are those of `check_buffer_memory_barrier` and `check_image_memory_barrier` for each of the barriers,
    vkCmdPipelineBarrier-srcQueueFamilyIndex-10388, and those on `stage_masks` (source and destination) and the accesses
    of these stages; with None neither stages nor accesses are checked.

    `buffers`, `images`: facts of the resource of each barrier, in the order of the barriers; None, or a shorter
    sequence, if there are none. `recording_family`: the index of the queue family that the command pool was created
    for; None if unknown.
    """
    violations: list[Violation] = []
    for field, barriers, struct, resources in (
        ("buffer_memory_barriers", buffer_memory_barriers, vk.BufferMemoryBarrier, buffers),
        ("image_memory_barriers", image_memory_barriers, vk.ImageMemoryBarrier, images),
    ):
        where = f"vkCmdPipelineBarrier.{field}"
        if is_sequence(barriers):
            violations += _each(PIPELINE, barriers, struct, resources, device, recording_family, where)
        else:
            violations.append(misfit(_BARRIERS, where, barriers, f"a sequence of vk.{struct.__name__}"))
    if not is_sequence(memory_barriers):
        where = "vkCmdPipelineBarrier.memory_barriers"
        violations.append(misfit(_MEMORY, where, memory_barriers, "a sequence of vk.MemoryBarrier"))
    if stage_masks is not None:
        given = (memory_barriers, buffer_memory_barriers, image_memory_barriers)
        violations += check_stages(
            *stage_masks, [each if is_sequence(each) else () for each in given], device, recording_family
        )
    return violations


def check_pipeline_barrier2(
    info: vk.DependencyInfo,
    device: DeviceFacts,
    *,
    buffers: Sequence[ResourceFacts | None] = (),
    images: Sequence[ResourceFacts | None] = (),
    recording_family: int | None = None,
) -> list[Violation]:
    """Return all rules on ownership and layouts of transfers that a vkCmdPipelineBarrier2 with this info would break.

    As `check_pipeline_barrier`, for the second version of the structures; the command's own rule is
    vkCmdPipelineBarrier2-srcQueueFamilyIndex-10387.
    """
    violations = wrong_struct(info, vk.DependencyInfo, "DependencyInfo") or malformed([("DependencyInfo", info)])
    if violations:
        return violations
    for field, struct, resources in (
        ("buffer_memory_barriers", vk.BufferMemoryBarrier2, buffers),
        ("image_memory_barriers", vk.ImageMemoryBarrier2, images),
    ):
        where = f"DependencyInfo.{field}"
        violations += _each(PIPELINE2, getattr(info, field), struct, resources, device, recording_family, where)
    return violations


def _each(
    suite: Suite[Recorded],
    barriers: Sequence[Any],
    struct: type,
    resources: Sequence[ResourceFacts | None],
    device: DeviceFacts,
    family: int | None,
    where: str,
) -> list[Violation]:
    """Return the rules that each barrier breaks by itself, and in this command buffer."""
    violations: list[Violation] = []
    for i, info in enumerate(barriers):
        resource = resources[i] if i < len(resources) else None
        barrier, broken = check_barrier(info, struct, resource, device, f"{where}[{i}]")
        violations += broken
        if barrier is not None and family is not None:
            violations += suite.run(Recorded(barrier, family), barrier.traits)
    return violations
