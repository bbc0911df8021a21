"""Cases: ranges of barriers, layouts of their images, stages and accesses."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import Violation
from tests.rules.cases_commands import COPIES_ALONE, DRAWN, GRAPHICS, NV12, A, F, L, U, buffer_of, image_of
from tests.rules.world import CASES, case, on_whole, whole

_BEFORE = set(CASES)

OLD = replace(GRAPHICS, synchronization2=False)
ACQUIRED = vk.ExternalMemoryAcquireUnmodifiedEXT
REMAINING = 0xFFFF_FFFF


def on_buffer(**fields: Any) -> list[Violation]:
    return rules.check_buffer_memory_barrier(on_whole(vk.BufferMemoryBarrier, **fields), buffer_of(), OLD)


def on_image(of: rules.ResourceFacts | None = None, device: Any = OLD, **fields: Any) -> list[Violation]:
    return rules.check_image_memory_barrier(on_whole(vk.ImageMemoryBarrier, **fields), of or image_of(), device)


def part(aspects: int = A.COLOR, level: int = 0, levels: int = 1, layer: int = 0, layers: int = 1) -> Any:
    return vk.ImageSubresourceRange(aspects, level, levels, layer, layers)


case("VkBufferMemoryBarrier-offset-01187", lambda: on_buffer(offset=64), lambda: on_buffer(offset=63))
case("VkBufferMemoryBarrier-size-01188", lambda: on_buffer(size=0), lambda: on_buffer(size=1))
case("VkBufferMemoryBarrier-size-01189", lambda: on_buffer(offset=1, size=64), lambda: on_buffer(offset=1, size=63))
case("VkBufferMemoryBarrier-pNext-pNext", lambda: on_buffer(p_next=ACQUIRED()), on_buffer)

IMAGE = "VkImageMemoryBarrier"
MIPS, ARRAY = image_of(mip_levels=3), image_of(array_layers=3)
for _tail, _of, _wrong, _right in (
    ("01486", MIPS, part(level=3), part(level=2)),
    ("01724", MIPS, part(level=1, levels=3), part(level=1, levels=2)),
    ("01488", ARRAY, part(layer=3), part(layer=2)),
    ("01725", ARRAY, part(layer=1, layers=3), part(layer=1, layers=2)),
):
    case(
        f"{IMAGE}-subresourceRange-{_tail}",
        lambda of=_of, one=_wrong: on_image(of, subresource_range=one),  # type: ignore[misc]  # bound now
        lambda of=_of, one=_right: on_image(of, subresource_range=one),  # type: ignore[misc]  # bound now
    )
case(
    "VkImageSubresourceRange-levelCount-01720",
    lambda: on_image(subresource_range=part(levels=0)),
    lambda: on_image(subresource_range=part(levels=REMAINING)),
)
case(
    "VkImageSubresourceRange-layerCount-01721",
    lambda: on_image(subresource_range=part(layers=0)),
    lambda: on_image(subresource_range=part(layers=REMAINING)),
)
case(
    "VkImageSubresourceRange-aspectMask-requiredbitmask",
    lambda: on_image(subresource_range=whole(0)),
    lambda: on_image(subresource_range=whole()),
)
DEEP, STENCIL, BOTH = image_of(F.D32_SFLOAT), image_of(F.S8_UINT), image_of(F.D24_UNORM_S8_UINT)
PLANES = image_of(NV12)
ELSE = f"{IMAGE}-subresourceRange-09601"
for _vuid, _of, _bad, _good, _also in (
    (f"{IMAGE}-subresourceRange-09601", BOTH, A.DEPTH | A.STENCIL | A.COLOR, A.DEPTH | A.STENCIL, ()),
    (f"{IMAGE}-image-09241", image_of(), A.DEPTH, A.COLOR, (ELSE,)),
    (f"{IMAGE}-image-09242", PLANES, A.PLANE_0 | A.PLANE_1, A.COLOR, ()),
    (f"{IMAGE}-image-03320", BOTH, A.DEPTH, A.DEPTH | A.STENCIL, ()),
    (f"{IMAGE}-image-10749", DEEP, A.COLOR, A.DEPTH, (ELSE,)),
    (f"{IMAGE}-image-10750", STENCIL, A.COLOR, A.STENCIL, (ELSE,)),
):
    case(
        _vuid,
        lambda of=_of, bad=_bad: on_image(of, subresource_range=whole(bad)),  # type: ignore[misc]  # bound now
        lambda of=_of, good=_good: on_image(of, subresource_range=whole(good)),  # type: ignore[misc]  # bound now
        *_also,
    )

NEEDED = (
    ("oldLayout-01208", L.COLOR_ATTACHMENT_OPTIMAL, U.COLOR_ATTACHMENT),
    ("oldLayout-01209", L.DEPTH_STENCIL_ATTACHMENT_OPTIMAL, U.DEPTH_STENCIL_ATTACHMENT),
    ("oldLayout-01210", L.DEPTH_STENCIL_READ_ONLY_OPTIMAL, U.DEPTH_STENCIL_ATTACHMENT),
    ("oldLayout-01211", L.SHADER_READ_ONLY_OPTIMAL, U.INPUT_ATTACHMENT),
    ("oldLayout-01212", L.TRANSFER_SRC_OPTIMAL, U.TRANSFER_SRC),
    ("oldLayout-01213", L.TRANSFER_DST_OPTIMAL, U.TRANSFER_DST),
    ("oldLayout-01658", L.DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL, U.DEPTH_STENCIL_ATTACHMENT),
    ("oldLayout-01659", L.DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL, U.DEPTH_STENCIL_ATTACHMENT),
    ("srcQueueFamilyIndex-04065", L.DEPTH_READ_ONLY_OPTIMAL, U.SAMPLED),
    ("srcQueueFamilyIndex-04066", L.DEPTH_ATTACHMENT_OPTIMAL, U.DEPTH_STENCIL_ATTACHMENT),
    ("srcQueueFamilyIndex-04067", L.STENCIL_READ_ONLY_OPTIMAL, U.SAMPLED),
    ("srcQueueFamilyIndex-04068", L.STENCIL_ATTACHMENT_OPTIMAL, U.DEPTH_STENCIL_ATTACHMENT),
)
for _tail, _layout, _usage in NEEDED:
    case(
        f"{IMAGE}-{_tail}",
        lambda to=_layout: on_image(image_of(usage=U.STORAGE), new_layout=to),  # type: ignore[misc]  # bound now
        lambda to=_layout, use=_usage: on_image(image_of(usage=use), new_layout=to),  # type: ignore[misc]  # bound now
    )
case(f"{IMAGE}-newLayout-01198", lambda: on_image(new_layout=L.UNDEFINED), lambda: on_image(old_layout=L.UNDEFINED))
case(f"{IMAGE}-oldLayout-parameter", lambda: on_image(old_layout=99), lambda: on_image(old_layout=L.GENERAL))
case(f"{IMAGE}-newLayout-parameter", lambda: on_image(new_layout=L.PRESENT_SRC_KHR), on_image)
case(f"{IMAGE}-synchronization2-07793", lambda: on_image(old_layout=L.ATTACHMENT_OPTIMAL), on_image)
case(f"{IMAGE}-synchronization2-07794", lambda: on_image(new_layout=L.READ_ONLY_OPTIMAL), on_image)
DRAWN_DEEP = image_of(F.D24_UNORM_S8_UINT, usage=DRAWN | U.SAMPLED)
FULL = {"of": DRAWN_DEEP, "subresource_range": whole(A.DEPTH | A.STENCIL)}
for _tail, _layout in (("08702", L.STENCIL_READ_ONLY_OPTIMAL), ("08703", L.DEPTH_READ_ONLY_OPTIMAL)):
    case(
        f"{IMAGE}-aspectMask-{_tail}",
        lambda to=_layout: on_image(**FULL, new_layout=to),  # type: ignore[misc]  # bound now
        lambda: on_image(**FULL, new_layout=L.SHADER_READ_ONLY_OPTIMAL),
    )
case(
    f"{IMAGE}-subresourceRange-parameter",
    lambda: on_image(subresource_range=part(level=-1)),
    lambda: on_image(subresource_range=part()),
)
case(f"{IMAGE}-pNext-pNext", lambda: on_image(p_next=ACQUIRED()), on_image)

S, X = vk.PipelineStageFlagBits, vk.AccessFlagBits
PIPELINE = "vkCmdPipelineBarrier"


def stages(src: int = S.TRANSFER, dst: int = S.TRANSFER, device: Any = OLD, **given: Any) -> list[Violation]:
    lists = {name: given.get(name, ()) for name in ("buffer_memory_barriers", "image_memory_barriers")}
    facts = {"buffers": [buffer_of()], "images": [image_of()], "recording_family": 0}
    memories = given.get("memory_barriers", ())
    return rules.check_pipeline_barrier(
        **lists, device=device, stage_masks=(src, dst), memory_barriers=memories, **facts
    )


def side(name: str, mask: int, device: Any = OLD) -> list[Violation]:
    return stages(mask, S.TRANSFER, device) if name == "src" else stages(S.TRANSFER, mask, device)


WITH = (
    ("04090", S.GEOMETRY_SHADER),
    ("04091", S.TESSELLATION_CONTROL_SHADER),
    ("04092", S.CONDITIONAL_RENDERING_EXT),
    ("04093", S.FRAGMENT_DENSITY_PROCESS_EXT),
    ("04094", S.TRANSFORM_FEEDBACK_EXT),
    ("04095", S.MESH_SHADER_EXT),
    ("04096", S.TASK_SHADER_EXT),
    ("07318", S.FRAGMENT_SHADING_RATE_ATTACHMENT_KHR),
    ("07949", S.RAY_TRACING_SHADER_KHR),
)
for _name in ("src", "dst"):
    for _tail, _stage in (*WITH, ("03937", S(0)), ("parameter", S(1 << 30))):
        case(
            f"{PIPELINE}-{_name}StageMask-{_tail}",
            lambda on=_name, mask=_stage: side(on, mask),  # type: ignore[misc]  # bound now
            lambda on=_name: side(on, S.ALL_GRAPHICS | S.HOST),  # type: ignore[misc]  # bound now
        )
    case(
        f"{PIPELINE}-{_name}StageMask-{'06461' if _name == 'src' else '06462'}",
        lambda on=_name: side(on, S.FRAGMENT_SHADER, COPIES_ALONE),  # type: ignore[misc]  # bound now
        lambda on=_name: side(on, S.FRAGMENT_SHADER, GRAPHICS),  # type: ignore[misc]  # bound now
    )

for _field, _struct, _before, _after in (
    ("memory_barriers", vk.MemoryBarrier, "srcAccessMask-02815", "dstAccessMask-02816"),
    ("buffer_memory_barriers", vk.BufferMemoryBarrier, *(f"pBufferMemoryBarriers-0281{n}" for n in (7, 8))),
    ("image_memory_barriers", vk.ImageMemoryBarrier, "pImageMemoryBarriers-02819", "pImageMemoryBarriers-02820"),
):
    for _vuid, _mask in ((_before, "src_access_mask"), (_after, "dst_access_mask")):

        def accesses(access: int, field: str = _field, struct: Any = _struct, mask: str = _mask) -> list[Violation]:
            one = struct(**{mask: access}) if struct is vk.MemoryBarrier else on_whole(struct, **{mask: access})
            return stages(**{field: [one]})

        case(
            f"{PIPELINE}-{_vuid}",
            lambda check=accesses: check(X.SHADER_READ),  # type: ignore[misc]  # bound now
            lambda check=accesses: check(X.TRANSFER_READ | X.MEMORY_WRITE),  # type: ignore[misc]  # bound now
        )
case(f"{PIPELINE}-pMemoryBarriers-parameter", lambda: stages(memory_barriers=[7]), stages)
for _mask in ("src", "dst"):
    case(
        f"VkMemoryBarrier-{_mask}AccessMask-parameter",
        lambda one=_mask: stages(memory_barriers=[vk.MemoryBarrier(**{f"{one}_access_mask": "all"})]),  # type: ignore[misc]  # bound now
        lambda: stages(memory_barriers=[vk.MemoryBarrier(X.TRANSFER_WRITE, X.TRANSFER_READ)]),
    )
case(
    "VkMemoryBarrier-pNext-pNext",
    lambda: stages(memory_barriers=[vk.MemoryBarrier(p_next=ACQUIRED())]),
    lambda: stages(memory_barriers=[vk.MemoryBarrier()]),
)

ENTERED = frozenset(set(CASES) - _BEFORE)
"""The rules of this file."""
