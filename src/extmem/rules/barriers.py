"""What Direct3D 11 asks of Vulkan: image layouts at the border.

The layout rules are written for VkImageMemoryBarrier alone; the layout table that they come from knows no difference,
so VkImageMemoryBarrier2 is held to them too, under the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from extmem import vk
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._shapes import wrong_struct
from extmem.rules._text import D3D11_TYPES, enum_text, type_mask
from extmem.rules.facts import ResourceFacts
from extmem.rules.violation import Violation

__all__ = ["check_image_memory_barrier"]

_EXTERNAL = 0xFFFF_FFFE
"""VK_QUEUE_FAMILY_EXTERNAL."""
_GENERAL = int(vk.ImageLayout.GENERAL)
_UNDEFINED = int(vk.ImageLayout.UNDEFINED)


@dataclass(slots=True)
class Barrier:
    """One image barrier, of either version."""

    info: vk.ImageMemoryBarrier | vk.ImageMemoryBarrier2
    image: ResourceFacts
    where: str

    @property
    def crosses(self) -> bool:
        """Whether it moves a Direct3D 11 texture between owners at all."""
        return bool(
            int(self.image.handle_types) & D3D11_TYPES
            and self.info.src_queue_family_index != self.info.dst_queue_family_index
        )


BARRIER: Suite[Barrier] = Suite("vkCmdPipelineBarrier")


@rule("VkImageMemoryBarrier-dstQueueFamilyIndex-12331", on=BARRIER)
def released_in_general(call: Barrier) -> Finding | None:
    """Direct3D 11 knows one layout only."""
    layout = type_mask(call.info.new_layout)
    if not call.crosses or call.info.dst_queue_family_index != _EXTERNAL or layout == _GENERAL:
        return None
    return (
        f"{call.where}.new_layout",
        f"a Direct3D 11 texture is released to QUEUE_FAMILY_EXTERNAL in {enum_text(layout, vk.ImageLayout)}",
        "Pass new_layout=ImageLayout.GENERAL.",
    )


@rule("VkImageMemoryBarrier-srcQueueFamilyIndex-12332", on=BARRIER)
def acquired_from_general(call: Barrier) -> Finding | None:
    """UNDEFINED throws the contents away, which is allowed."""
    layout = type_mask(call.info.old_layout)
    if not call.crosses or call.info.src_queue_family_index != _EXTERNAL or layout in (_GENERAL, _UNDEFINED):
        return None
    return (
        f"{call.where}.old_layout",
        f"a Direct3D 11 texture is acquired from QUEUE_FAMILY_EXTERNAL in {enum_text(layout, vk.ImageLayout)}",
        "Pass old_layout=ImageLayout.GENERAL, or UNDEFINED to discard what it holds.",
    )


def check_image_memory_barrier(
    barrier: vk.ImageMemoryBarrier | vk.ImageMemoryBarrier2, image: ResourceFacts
) -> list[Violation]:
    """The layout rules for Direct3D 11 textures that this barrier would break."""
    if type(barrier) is not vk.ImageMemoryBarrier2:
        found = wrong_struct(barrier, vk.ImageMemoryBarrier, "ImageMemoryBarrier")
        if found:
            return found
    return BARRIER.run(Barrier(barrier, image, type(barrier).__name__), 0)
