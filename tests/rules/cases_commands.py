"""Cases: fills, copies and clears, and copies between buffers and images, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import Place, Violation
from tests.rules.world import CASES, MODERN, buffer, buffer_info, case, image, image_info

_BEFORE = set(CASES)

F, A, L = vk.Format, vk.ImageAspectFlagBits, vk.ImageLayout
B, U = vk.BufferUsageFlagBits, vk.ImageUsageFlagBits
COPYING = B.TRANSFER_SRC | B.TRANSFER_DST
DRAWN = U.TRANSFER_SRC | U.TRANSFER_DST
GRAPHICS = replace(MODERN, queue_flags=7, features=frozenset())
COPIES_ALONE = replace(GRAPHICS, queue_flags=4)
HERE, ELSEWHERE = Place({1: 0}, 0), Place({2: 0}, 0)


def buffer_of(size: int = 64, usage: int = COPYING) -> rules.ResourceFacts:
    return buffer(buffer_info(size=size, usage=usage))


def image_of(vk_format: int = F.R8G8B8A8_UNORM, **fields: Any) -> rules.ResourceFacts:
    """4 × 4 texels, unless `fields` replace that."""
    return image(image_info(**{"format": vk_format, "extent": vk.Extent3D(4, 4, 1), "usage": DRAWN, **fields}), size=64)


def fill(
    offset: int = 0, size: int = 64, *, of: rules.ResourceFacts | None = None, device: Any = GRAPHICS
) -> list[Violation]:
    return rules.check_fill_buffer(of or buffer_of(), offset, size, device)


FILL = "vkCmdFillBuffer"
case(f"{FILL}-dstOffset-00024", lambda: fill(64, 4), lambda: fill(60, 4))
case(f"{FILL}-dstOffset-00025", lambda: fill(2, 4), lambda: fill(4, 4))
case(f"{FILL}-size-00026", lambda: fill(0, 0), lambda: fill(0, 4))
case(f"{FILL}-size-00027", lambda: fill(4, 64), lambda: fill(4, 60))
case(f"{FILL}-size-00028", lambda: fill(0, 6), lambda: fill(0, 8))
case(f"{FILL}-dstBuffer-00029", lambda: fill(of=buffer_of(usage=B.TRANSFER_SRC)), lambda: fill(of=buffer_of()))


def copy(
    start: int = 0,
    at: int = 0,
    size: int = 16,
    *,
    source: rules.ResourceFacts | None = None,
    target: rules.ResourceFacts | None = None,
    places: tuple[Place, Place] = (HERE, ELSEWHERE),
    device: Any = GRAPHICS,
) -> list[Violation]:
    first, second = source or buffer_of(), target or buffer_of(32)
    return rules.check_copy_buffer(first, second, start, at, size, device, places=places)


COPY = "vkCmdCopyBuffer"
case("VkBufferCopy-size-01988", lambda: copy(size=0), lambda: copy(size=1))
case(f"{COPY}-srcOffset-00113", lambda: copy(64), lambda: copy(48))
case(f"{COPY}-dstOffset-00114", lambda: copy(0, 32), lambda: copy(0, 16))
case(f"{COPY}-size-00115", lambda: copy(60), lambda: copy(60, 0, 4))
case(f"{COPY}-size-00116", lambda: copy(0, 24), lambda: copy(0, 24, 8))
case(f"{COPY}-pRegions-00117", lambda: copy(0, 15, places=(HERE, HERE)), lambda: copy(0, 16, places=(HERE, HERE)))
case(f"{COPY}-srcBuffer-00118", lambda: copy(source=buffer_of(usage=B.TRANSFER_DST)), copy)
case(f"{COPY}-dstBuffer-00120", lambda: copy(target=buffer_of(usage=B.TRANSFER_SRC)), copy)


def clear(of: rules.ResourceFacts | None = None, layout: int = L.GENERAL, device: Any = GRAPHICS) -> list[Violation]:
    return rules.check_clear_color_image(of or image_of(), layout, device)


CLEAR = "vkCmdClearColorImage"
NV12 = F.G8_B8R8_2PLANE_420_UNORM
case(f"{CLEAR}-image-00002", lambda: clear(image_of(usage=U.TRANSFER_SRC)), lambda: clear(image_of()))
case(f"{CLEAR}-image-00007", lambda: clear(image_of(F.D32_SFLOAT)), lambda: clear(image_of(F.R32_SFLOAT)))
case(f"{CLEAR}-image-01545", lambda: clear(image_of(NV12)), lambda: clear(image_of(F.R8G8_UNORM)))
case(f"{CLEAR}-imageLayout-01394", lambda: clear(layout=L.TRANSFER_SRC_OPTIMAL), lambda: clear(layout=L.GENERAL))
case(f"{CLEAR}-commandBuffer-cmdpool", lambda: clear(device=COPIES_ALONE), clear)


def to_image(**given: Any) -> list[Violation]:
    """A copy of all of an image of 64 bytes, unless `given` replaces that."""
    values = {"image": image_of(), "buffer": buffer_of(), "layout": L.GENERAL, "device": GRAPHICS, **given}
    return rules.check_copy_buffer_to_image(**values)


def to_buffer(**given: Any) -> list[Violation]:
    """A copy in the other direction."""
    values = {"image": image_of(), "buffer": buffer_of(), "layout": L.GENERAL, "device": GRAPHICS, **given}
    return rules.check_copy_image_to_buffer(**values)


def both(tail: str, other: str, wrong: dict[str, Any], right: dict[str, Any], *also: str) -> None:
    """A rule of both directions: what breaks it, and the nearest legal twin."""
    ways: list[tuple[str, Callable[..., list[Violation]]]] = [
        (f"vkCmdCopyBufferToImage-{tail}", to_image),
        (f"vkCmdCopyImageToBuffer-{other or tail}", to_buffer),
    ]
    for vuid, way in ways:
        case(vuid, lambda way=way: way(**wrong), lambda way=way: way(**right), *also)  # type: ignore[misc]  # bound now


TWO = image_of(mip_levels=2, array_layers=2)
DEEP, BOTH_DEEP = image_of(F.D32_SFLOAT), image_of(F.D24_UNORM_S8_UINT)
PLANES = image_of(NV12)
both("imageSubresource-07967", "", {"image": TWO, "mip_level": 2}, {"image": TWO, "mip_level": 1})
both("imageSubresource-07968", "", {"image": TWO, "array_layer": 2}, {"image": TWO, "array_layer": 1})
both("imageSubresource-09105", "", {"aspect": A.DEPTH}, {"image": DEEP, "aspect": A.DEPTH})
both("dstImage-07981", "srcImage-07981", {"image": PLANES}, {"image": PLANES, "aspect": A.PLANE_1})
both("dstImage-07973", "srcImage-07973", {"image": image_of(samples=4)}, {"image": image_of(samples=1)})
both("pRegions-00171", "pRegions-00183", {"buffer": buffer_of(63)}, {"buffer": buffer_of(64)})
OVER = {"places": (HERE, Place({1: 0}, 32)), "buffer": buffer_of(128)}
both("pRegions-00173", "pRegions-00184", OVER, {**OVER, "places": (HERE, Place({1: 0}, 64))})
ASIDE = {"buffer": buffer_of(128)}
both("dstImage-07975", "srcImage-07975", {**ASIDE, "buffer_offset": 2}, {**ASIDE, "buffer_offset": 4})
WIDE = {"image": image_of(F.G16_B16R16_2PLANE_420_UNORM), "buffer": buffer_of(128), "aspect": A.PLANE_1}
both("dstImage-07976", "srcImage-07976", {**WIDE, "buffer_offset": 2}, {**WIDE, "buffer_offset": 4})
STENCIL = {"image": BOTH_DEEP, "buffer": buffer_of(128), "aspect": A.STENCIL}
both("dstImage-07978", "srcImage-07978", {**STENCIL, "buffer_offset": 2}, {**STENCIL, "buffer_offset": 4})
BYTES = {"image": image_of(F.R8_UNORM), "buffer_offset": 2}
both("commandBuffer-07737", "commandBuffer-07746", {**BYTES, "device": COPIES_ALONE}, BYTES)
MOVED = {"image": DEEP, "aspect": A.DEPTH}
both("commandBuffer-07739", "commandBuffer-10216", {**MOVED, "device": replace(GRAPHICS, queue_flags=2)}, MOVED)
READ, WRITTEN = {"buffer": buffer_of(usage=B.TRANSFER_SRC)}, {"buffer": buffer_of(usage=B.TRANSFER_DST)}
case("vkCmdCopyBufferToImage-srcBuffer-00174", lambda: to_image(**WRITTEN), lambda: to_image(**READ))
case("vkCmdCopyImageToBuffer-dstBuffer-00191", lambda: to_buffer(**READ), lambda: to_buffer(**WRITTEN))
FROM, TO = {"image": image_of(usage=U.TRANSFER_SRC)}, {"image": image_of(usage=U.TRANSFER_DST)}
case("vkCmdCopyBufferToImage-dstImage-00177", lambda: to_image(**FROM), lambda: to_image(**TO))
case("vkCmdCopyImageToBuffer-srcImage-00186", lambda: to_buffer(**TO), lambda: to_buffer(**FROM))
case(
    "vkCmdCopyBufferToImage-dstImageLayout-01396",
    lambda: to_image(layout=L.TRANSFER_SRC_OPTIMAL),
    lambda: to_image(layout=L.TRANSFER_DST_OPTIMAL),
)
case(
    "vkCmdCopyImageToBuffer-srcImageLayout-01397",
    lambda: to_buffer(layout=L.TRANSFER_DST_OPTIMAL),
    lambda: to_buffer(layout=L.TRANSFER_SRC_OPTIMAL),
)
case(
    "VkImageSubresourceLayers-aspectMask-requiredbitmask",
    lambda: to_image(image=BOTH_DEEP, aspect=0),
    lambda: to_image(image=BOTH_DEEP, aspect=A.DEPTH),
)
case(
    "VkBufferImageCopy-aspectMask-09103",
    lambda: to_buffer(image=BOTH_DEEP, aspect=A.DEPTH | A.STENCIL),
    lambda: to_buffer(image=BOTH_DEEP, aspect=A.STENCIL),
)


def laid_out(command: str, asked: int, **fields: Any) -> list[Violation]:
    """A command on an image that a barrier has changed to GENERAL."""
    layouts = rules.Layouts(image_info())
    rules.apply(rules.Step("vkCmdPipelineBarrier", "", rules.Area(), None, L.GENERAL), layouts)
    return rules.apply(rules.Step(command, f"{command}.layout", rules.Area(), asked, **fields), layouts)


for _vuid in (
    "VkImageMemoryBarrier-oldLayout-01197",
    "vkCmdCopyBufferToImage-dstImageLayout-00180",
    "vkCmdCopyImageToBuffer-srcImageLayout-00189",
    "vkCmdClearColorImage-imageLayout-00004",
):
    _command = "vkCmdPipelineBarrier" if _vuid.startswith("VkImage") else _vuid.split("-")[0]
    case(_vuid, lambda of=_command: laid_out(of, 7), lambda of=_command: laid_out(of, 1))  # type: ignore[misc]  # bound now


def passed_on(*uses: rules.Use) -> list[Violation]:
    """Uses of one buffer, one after the other."""
    ownership = rules.Ownership()
    return [violation for use in uses for violation in rules.apply_use(use, ownership)]


RELEASE = rules.Use("vkCmdPipelineBarrier", "", releases=True)
ACQUIRE = rules.Use("vkCmdPipelineBarrier", "")
COPIED = rules.Use("vkCmdCopyBuffer", "vkCmdCopyBuffer.source", reads=True)
case(
    "vkQueueSubmit-pSubmits-02808",
    lambda: passed_on(RELEASE, COPIED),
    lambda: passed_on(COPIED, RELEASE, ACQUIRE, COPIED),
)

ENTERED = frozenset(set(CASES) - _BEFORE)
"""The rules of this file."""
