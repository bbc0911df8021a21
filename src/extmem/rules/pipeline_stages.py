"""The pipeline stages and the accesses of a barrier.

How this works: a queue family supports some stages, and some stages need a feature or an extension. Each access is made
by certain stages only. The tables here are those of the specification ("Supported pipeline stage flags", "Supported
access types"). ALL_GRAPHICS and ALL_COMMANDS stand for those stages that the queue family supports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from extmem import vk
from extmem.rules._conditions import is_given, lacks_extension, lacks_feature, undefined_bits
from extmem.rules._engine import Condition, Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import bits_of, flags_text
from extmem.rules.facts import DeviceFacts
from extmem.rules.transfer_commands import guard, queue_text
from extmem.rules.violation import Violation

__all__ = ["check_stages"]

_Stage, _Access, _Queue = vk.PipelineStageFlagBits, vk.AccessFlagBits, vk.QueueFlagBits
Side = Literal["src", "dst"]

_SHADERS = _Stage.VERTEX_SHADER | _Stage.TESSELLATION_CONTROL_SHADER | _Stage.TESSELLATION_EVALUATION_SHADER
_SHADERS |= _Stage.GEOMETRY_SHADER | _Stage.FRAGMENT_SHADER | _Stage.TASK_SHADER_EXT | _Stage.MESH_SHADER_EXT
_TESTS = _Stage.EARLY_FRAGMENT_TESTS | _Stage.LATE_FRAGMENT_TESTS
_GRAPHICS = int(
    _SHADERS
    | _TESTS
    | _Stage.DRAW_INDIRECT
    | _Stage.VERTEX_INPUT
    | _Stage.COLOR_ATTACHMENT_OUTPUT
    | _Stage.CONDITIONAL_RENDERING_EXT
    | _Stage.TRANSFORM_FEEDBACK_EXT
    | _Stage.FRAGMENT_SHADING_RATE_ATTACHMENT_KHR
    | _Stage.FRAGMENT_DENSITY_PROCESS_EXT
)
"""The stages that ALL_GRAPHICS stands for."""
_BUILD = _Stage.ACCELERATION_STRUCTURE_BUILD_KHR
_COMPUTE = int(_Stage.COMPUTE_SHADER | _Stage.RAY_TRACING_SHADER_KHR | _BUILD)
_EITHER = int(_Stage.DRAW_INDIRECT | _Stage.CONDITIONAL_RENDERING_EXT | _Stage.COMMAND_PREPROCESS_EXT)
"""Stages that queues with GRAPHICS or COMPUTE support."""
_EVERY = int(_Stage.TOP_OF_PIPE | _Stage.BOTTOM_OF_PIPE | _Stage.HOST | _Stage.ALL_COMMANDS)
_ALL_STAGES = (1 << 26) - 1

_ANY_SHADER = _SHADERS | _Stage.COMPUTE_SHADER | _Stage.RAY_TRACING_SHADER_KHR
_MAKERS: dict[vk.AccessFlagBits, int] = {
    _Access.INDIRECT_COMMAND_READ: int(_Stage.DRAW_INDIRECT | _BUILD),
    _Access.INDEX_READ: int(_Stage.VERTEX_INPUT),
    _Access.VERTEX_ATTRIBUTE_READ: int(_Stage.VERTEX_INPUT),
    _Access.UNIFORM_READ: int(_ANY_SHADER),
    _Access.INPUT_ATTACHMENT_READ: int(_Stage.FRAGMENT_SHADER),
    _Access.SHADER_READ: int(_ANY_SHADER | _BUILD),
    _Access.SHADER_WRITE: int(_ANY_SHADER),
    _Access.COLOR_ATTACHMENT_READ: int(_Stage.COLOR_ATTACHMENT_OUTPUT),
    _Access.COLOR_ATTACHMENT_WRITE: int(_Stage.COLOR_ATTACHMENT_OUTPUT),
    _Access.DEPTH_STENCIL_ATTACHMENT_READ: int(_TESTS),
    _Access.DEPTH_STENCIL_ATTACHMENT_WRITE: int(_TESTS),
    _Access.TRANSFER_READ: int(_Stage.TRANSFER | _BUILD),
    _Access.TRANSFER_WRITE: int(_Stage.TRANSFER | _BUILD),
    _Access.HOST_READ: int(_Stage.HOST),
    _Access.HOST_WRITE: int(_Stage.HOST),
    _Access.MEMORY_READ: _ALL_STAGES,
    _Access.MEMORY_WRITE: _ALL_STAGES,
    _Access.COMMAND_PREPROCESS_READ_EXT: int(_Stage.COMMAND_PREPROCESS_EXT),
    _Access.COMMAND_PREPROCESS_WRITE_EXT: int(_Stage.COMMAND_PREPROCESS_EXT),
    _Access.COLOR_ATTACHMENT_READ_NONCOHERENT_EXT: int(_Stage.COLOR_ATTACHMENT_OUTPUT),
    _Access.CONDITIONAL_RENDERING_READ_EXT: int(_Stage.CONDITIONAL_RENDERING_EXT),
    _Access.ACCELERATION_STRUCTURE_READ_KHR: int(_ANY_SHADER | _BUILD),
    _Access.ACCELERATION_STRUCTURE_WRITE_KHR: int(_BUILD),
    _Access.FRAGMENT_SHADING_RATE_ATTACHMENT_READ_KHR: int(_Stage.FRAGMENT_SHADING_RATE_ATTACHMENT_KHR),
    _Access.FRAGMENT_DENSITY_MAP_READ_EXT: int(_Stage.FRAGMENT_DENSITY_PROCESS_EXT),
    _Access.TRANSFORM_FEEDBACK_WRITE_EXT: int(_Stage.TRANSFORM_FEEDBACK_EXT),
    _Access.TRANSFORM_FEEDBACK_COUNTER_READ_EXT: int(_Stage.TRANSFORM_FEEDBACK_EXT | _Stage.DRAW_INDIRECT),
    _Access.TRANSFORM_FEEDBACK_COUNTER_WRITE_EXT: int(_Stage.TRANSFORM_FEEDBACK_EXT),
}
"""The stages that make each access."""


_SUPPORTED = {
    int(_Queue.GRAPHICS): _GRAPHICS | _EITHER | int(_Stage.ALL_GRAPHICS | _Stage.TRANSFER),
    int(_Queue.COMPUTE): _COMPUTE | _EITHER | int(_Stage.TRANSFER),
    int(_Queue.TRANSFER): int(_Stage.TRANSFER),
}
"""The stages that a queue family with the flag supports, besides those that all of them support."""


def _done_by(flags: int) -> int:
    """Return the stages that a queue family with these flags supports."""
    stages = _EVERY
    for flag, supported in _SUPPORTED.items():
        if flags & flag:
            stages |= supported
    return stages


def _expanded(mask: int, flags: int | None) -> int:
    """Return the single stages of a mask. ALL_COMMANDS stands for all that the queue supports, except HOST."""
    queue = _ALL_STAGES if flags is None else _done_by(flags)
    if mask & int(_Stage.ALL_GRAPHICS):
        mask |= _GRAPHICS & queue
    if mask & int(_Stage.ALL_COMMANDS):
        mask |= queue & ~int(_Stage.HOST)
    return mask


class Stages(msgspec.Struct):
    """One of the two stage masks of a vkCmdPipelineBarrier."""

    side: Side
    mask: int
    device: DeviceFacts

    @property
    def where(self) -> str:
        """Path of the argument."""
        return f"vkCmdPipelineBarrier.{self.side}_stage_mask"


class Accesses(msgspec.Struct):
    """The access mask of one barrier on one side, and the stage mask of that side."""

    where: str
    mask: int
    stages: int
    device: DeviceFacts


SRC: Suite[Stages] = Suite("vkCmdPipelineBarrier")
DST: Suite[Stages] = Suite("vkCmdPipelineBarrier")
_COMMAND = "vkCmdPipelineBarrier"


def _both(tail: str, other: str = "") -> tuple[str, str]:
    return f"{_COMMAND}-srcStageMask-{tail}", f"{_COMMAND}-dstStageMask-{other or tail}"


def _waits_for_nothing(call: Stages) -> str:
    """Return the stage that stands for none, if the mask is 0 although synchronization2 is known to be off."""
    if call.mask or call.device.synchronization2 is not False:
        return ""
    return "TOP_OF_PIPE" if call.side == "src" else "BOTTOM_OF_PIPE"


def _queue_lacks(call: Stages) -> tuple[str, str] | None:
    flags = call.device.queue_flags
    wrong = call.mask & ~_done_by(flags) if flags is not None else 0
    return (queue_text(flags), flags_text(wrong, _Stage)) if flags is not None and wrong & _ALL_STAGES else None


def _enabled_by(tail: str, stages: vk.PipelineStageFlagBits, lacks: Condition, what: str) -> Demand:
    """Return the row that stages are enabled by a feature or extension."""
    optional = int(stages)

    def broken(call: Stages) -> str:
        wrong = call.mask & optional
        return flags_text(wrong, _Stage) if wrong and lacks(call) else ""

    return Demand(_both(tail), broken, "{call.where}", f"{{found}} needs {what}, which is not enabled", "Omit it.")


def _feature(tail: str, stages: vk.PipelineStageFlagBits, name: str) -> Demand:
    return _enabled_by(tail, stages, lacks_feature(name), f"the feature {name}")


def _extension(tail: str, stages: vk.PipelineStageFlagBits, *names: str) -> Demand:
    return _enabled_by(tail, stages, lacks_extension(*names), " or ".join(names))


demand(
    (SRC, DST),
    Demand(
        _both("03937"),
        _waits_for_nothing,
        "{call.where}",
        "it is 0, and synchronization2 is not enabled",
        "Pass {found} to wait for nothing.",
    ),
    Demand(
        _both("06461", "06462"),
        _queue_lacks,
        "{call.where}",
        "a queue family with {found[0]} does not support the stage {found[1]}",
        "Pass stages of the queue family; ALL_COMMANDS stands for all of them.",
    ),
    Demand(
        _both("parameter"),
        undefined_bits("mask", _ALL_STAGES),
        "{call.where}",
        "the bits {found:#x} are not stages",
        "Pass bits of PipelineStageFlagBits.",
    ),
    _feature("04090", _Stage.GEOMETRY_SHADER, "geometryShader"),
    _feature("04091", _Stage.TESSELLATION_CONTROL_SHADER | _Stage.TESSELLATION_EVALUATION_SHADER, "tessellationShader"),
    _extension("04092", _Stage.CONDITIONAL_RENDERING_EXT, "VK_EXT_conditional_rendering"),
    _extension("04093", _Stage.FRAGMENT_DENSITY_PROCESS_EXT, "VK_EXT_fragment_density_map"),
    _extension("04094", _Stage.TRANSFORM_FEEDBACK_EXT, "VK_EXT_transform_feedback"),
    _extension("04095", _Stage.MESH_SHADER_EXT, "VK_EXT_mesh_shader", "VK_NV_mesh_shader"),
    _extension("04096", _Stage.TASK_SHADER_EXT, "VK_EXT_mesh_shader", "VK_NV_mesh_shader"),
    _extension(
        "07318",
        _Stage.FRAGMENT_SHADING_RATE_ATTACHMENT_KHR,
        "VK_KHR_fragment_shading_rate",
        "VK_NV_shading_rate_image",
    ),
    _extension("07949", _Stage.RAY_TRACING_SHADER_KHR, "VK_KHR_ray_tracing_pipeline", "VK_NV_ray_tracing"),
    _extension("parameter", _BUILD, "VK_KHR_acceleration_structure", "VK_NV_ray_tracing"),
    _extension(
        "parameter",
        _Stage.COMMAND_PREPROCESS_EXT,
        "VK_EXT_device_generated_commands",
        "VK_NV_device_generated_commands",
    ),
)


def _made_by_no_stage(call: Accesses) -> tuple[str, str] | None:
    """Return the stages, and the accesses that none of them makes."""
    if not call.stages:
        return None  # reported by another check
    stages = _expanded(call.stages, call.device.queue_flags)
    wrong = sum(bit for bit in bits_of(call.mask) if not stages & _MAKERS.get(_Access(bit), 0))
    return (flags_text(call.stages, _Stage), flags_text(wrong, _Access)) if wrong else None


BEFORE: Suite[Accesses] = Suite(_COMMAND)
AFTER: Suite[Accesses] = Suite(_COMMAND)
BUFFER_BEFORE: Suite[Accesses] = Suite(_COMMAND)
BUFFER_AFTER: Suite[Accesses] = Suite(_COMMAND)
IMAGE_BEFORE: Suite[Accesses] = Suite(_COMMAND)
IMAGE_AFTER: Suite[Accesses] = Suite(_COMMAND)
demand(
    (BEFORE, AFTER, BUFFER_BEFORE, BUFFER_AFTER, IMAGE_BEFORE, IMAGE_AFTER),
    Demand(
        (
            f"{_COMMAND}-srcAccessMask-02815",
            f"{_COMMAND}-dstAccessMask-02816",
            f"{_COMMAND}-pBufferMemoryBarriers-02817",
            f"{_COMMAND}-pBufferMemoryBarriers-02818",
            f"{_COMMAND}-pImageMemoryBarriers-02819",
            f"{_COMMAND}-pImageMemoryBarriers-02820",
        ),
        _made_by_no_stage,
        "{call.where}",
        "none of the stages {found[0]} makes the access {found[1]}",
        "Add the stage that makes it, or omit the access.",
    ),
)


class MemoryBarrier(msgspec.Struct, frozen=True):
    """One VkMemoryBarrier, and its path."""

    where: str
    info: vk.MemoryBarrier


MEMORY: Suite[MemoryBarrier] = Suite(_COMMAND)
demand(
    MEMORY,
    Demand(
        guard("VkMemoryBarrier-pNext-pNext"),
        is_given("info.p_next"),
        "{call.where}.pNext",
        "it is {call.info.p_next.__class__.__name__}",
        "Pass None.",
    ),
)


_BARRIERS = (
    ("memory_barriers", vk.MemoryBarrier, BEFORE, AFTER),
    ("buffer_memory_barriers", vk.BufferMemoryBarrier, BUFFER_BEFORE, BUFFER_AFTER),
    ("image_memory_barriers", vk.ImageMemoryBarrier, IMAGE_BEFORE, IMAGE_AFTER),
)


def check_stages(
    src_stage_mask: int,
    dst_stage_mask: int,
    barriers: Sequence[Sequence[Any]],
    device: DeviceFacts,
    recording_family: int | None,
) -> list[Violation]:
    """Return the rules that the stage and access masks of a vkCmdPipelineBarrier break.

    barriers: its memory, buffer and image barriers. If a barrier transfers ownership, the accesses of the other side's
    queue family are not checked. A malformed barrier is not checked, because `check_pipeline_barrier` reports it.
    """
    violations = SRC.run(Stages("src", src_stage_mask, device), 0) + DST.run(Stages("dst", dst_stage_mask, device), 0)
    for (field, struct, before, after), given in zip(_BARRIERS, barriers, strict=True):
        for index, barrier in enumerate(given):
            where = f"{_COMMAND}.{field}[{index}]"
            wrong = wrong_struct(barrier, struct, where) or malformed([(where, barrier)])
            if struct is vk.MemoryBarrier and not wrong:
                violations += MEMORY.run(MemoryBarrier(where, barrier), 0)
            if wrong:
                violations += wrong if struct is vk.MemoryBarrier else []
                continue
            sides = _sides(barrier, recording_family)
            if "src" in sides:
                call = Accesses(f"{where}.src_access_mask", int(barrier.src_access_mask), src_stage_mask, device)
                violations += before.run(call, 0)
            if "dst" in sides:
                call = Accesses(f"{where}.dst_access_mask", int(barrier.dst_access_mask), dst_stage_mask, device)
                violations += after.run(call, 0)
    return violations


def _sides(barrier: Any, family: int | None) -> tuple[Side, ...]:
    """Return the sides of a barrier on which this queue family makes accesses."""
    if isinstance(barrier, vk.MemoryBarrier):
        return "src", "dst"
    src, dst = int(barrier.src_queue_family_index), int(barrier.dst_queue_family_index)
    if src == dst:
        return "src", "dst"
    sides: tuple[tuple[Side, int], ...] = (("src", src), ("dst", dst))
    return tuple(side for side, owner in sides if owner == family)
