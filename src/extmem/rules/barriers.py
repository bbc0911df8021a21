"""Barriers: who may give a buffer or image to whom, and in which layout a Direct3D 11 texture crosses the border.

How this works: a barrier is read once into a `Barrier`, with the traits that say which rules can apply at all: whether
its two queue families differ, how the resource is shared, whether it is a Direct3D 11 texture. A barrier that moves
nothing runs hardly any check. Each of the four structures has its suite; one check answers all the ids it stands for.

What the device can do (its queue families, enabled extensions and features, the instance's version) comes from
`DeviceFacts`, how the resource was created from `ResourceFacts`. What is not known there is not judged.

The layout rules are written for VkImageMemoryBarrier alone; the layout table that they come from knows no difference,
so VkImageMemoryBarrier2 is held to them too, under the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from extmem import vk
from extmem.rules._engine import Check, Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import D3D11_TYPES, enum_text, type_mask
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.violation import Violation

__all__ = [
    "EXTERNAL",
    "FOREIGN",
    "IGNORED",
    "Barrier",
    "Traits",
    "check_buffer_memory_barrier",
    "check_image_memory_barrier",
    "judge",
]

IGNORED = int(vk.QUEUE_FAMILY_IGNORED)
EXTERNAL = int(vk.QUEUE_FAMILY_EXTERNAL)
FOREIGN = int(vk.QUEUE_FAMILY_FOREIGN_EXT)
_NAMES = {
    IGNORED: "QUEUE_FAMILY_IGNORED",
    EXTERNAL: "QUEUE_FAMILY_EXTERNAL",
    FOREIGN: "QUEUE_FAMILY_FOREIGN_EXT",
}
_GENERAL = int(vk.ImageLayout.GENERAL)
_UNDEFINED = int(vk.ImageLayout.UNDEFINED)
_EXCLUSIVE = int(vk.SharingMode.EXCLUSIVE)
_CONCURRENT = int(vk.SharingMode.CONCURRENT)
_VERSION_1_1 = 1 << 22 | 1 << 12

Kind = Literal["buffer", "image"]
Side = Literal["src", "dst"]
_TOLD: dict[Side, str] = {"src": "source", "dst": "destination"}


class Traits:
    """What a check can ask of a barrier; single bits."""

    MOVES = 1 << 0
    """Its two queue families differ."""
    EXCLUSIVE = 1 << 1
    """The resource belongs to one queue family at a time."""
    OLD_CONCURRENT = 1 << 2
    """The resource is shared by queue families, and the synchronization2 feature is known to be off."""
    D3D11 = 1 << 3
    """The resource is a Direct3D 11 texture."""


@dataclass(slots=True)
class Barrier:
    """One barrier on a buffer or an image, of either version."""

    info: Any
    kind: Kind
    src: int
    dst: int
    device: DeviceFacts
    where: str
    traits: int
    """Which rules can apply to it."""
    resource: ResourceFacts | None = None
    """What is known of the buffer or image."""

    def side(self, side: Side) -> int:
        """The queue family on that side."""
        return self.src if side == "src" else self.dst

    def field(self, side: Side) -> str:
        """The path of the field that names it."""
        return f"{self.where}.{side}_queue_family_index"

    @property
    def way(self) -> str:
        """From whom to whom."""
        return f"from {family_text(self.src)} to {family_text(self.dst)}"


def _traits(src: int, dst: int, resource: ResourceFacts | None, device: DeviceFacts) -> int:
    """Which rules can apply to a barrier."""
    found = Traits.MOVES if src != dst else 0
    if resource is None:
        return found
    mode = resource.create_info.sharing_mode
    if mode == _EXCLUSIVE:
        found |= Traits.EXCLUSIVE
    elif mode == _CONCURRENT and device.synchronization2 is False:
        found |= Traits.OLD_CONCURRENT
    if int(resource.handle_types) & D3D11_TYPES:
        found |= Traits.D3D11
    return found


def family_text(family: int) -> str:
    """A queue family by number, or by the name of its constant."""
    return _NAMES.get(family) or f"queue family {int(family)}"


BUFFER: Suite[Barrier] = Suite("vkCmdPipelineBarrier")
BUFFER2: Suite[Barrier] = Suite("vkCmdPipelineBarrier2")
IMAGE: Suite[Barrier] = Suite("vkCmdPipelineBarrier")
IMAGE2: Suite[Barrier] = Suite("vkCmdPipelineBarrier2")
_FIRST, _EVERY = (BUFFER, IMAGE), (BUFFER, BUFFER2, IMAGE, IMAGE2)
_STRUCTS: dict[type, tuple[Kind, Suite[Barrier]]] = {
    vk.BufferMemoryBarrier: ("buffer", BUFFER),
    vk.BufferMemoryBarrier2: ("buffer", BUFFER2),
    vk.ImageMemoryBarrier: ("image", IMAGE),
    vk.ImageMemoryBarrier2: ("image", IMAGE2),
}


def _every(tail: str, image_tail: str = "") -> tuple[str, str, str, str]:
    images = image_tail or tail
    return (
        f"VkBufferMemoryBarrier-{tail}",
        f"VkBufferMemoryBarrier2-{tail}",
        f"VkImageMemoryBarrier-{images}",
        f"VkImageMemoryBarrier2-{images}",
    )


def _can_own(side: Side) -> Check[Barrier]:
    """IGNORED owns nothing; and of numbers, only those of the device's queue families do."""

    def check(call: Barrier) -> Finding | None:
        family, count = call.side(side), call.device.queue_family_count
        if family in (EXTERNAL, FOREIGN):
            return None
        if family == IGNORED:
            known = ""
        elif count is not None and family >= count:
            known = f"; the device has {count} queue famil{'y' if count == 1 else 'ies'}, numbered from 0"
        elif call.device.queue_families is not None and family not in call.device.queue_families:
            has = ", ".join(map(str, sorted(call.device.queue_families)))
            known = f"; it is {family}, of which this logical device has no queue; it has queues of {has}"
        else:
            return None
        return (
            call.field(side),
            f"an exclusive {call.kind} goes {call.way}{known}",
            "Name a queue family of the device, QUEUE_FAMILY_EXTERNAL or QUEUE_FAMILY_FOREIGN_EXT; "
            "or give both sides the same value, to move nothing.",
        )

    return check


_OWNED = Traits.MOVES | Traits.EXCLUSIVE
rule(*_every("buffer-09095", "image-09117"), on=_EVERY, needs=_OWNED)(_can_own("src"))
rule(*_every("buffer-09096", "image-09118"), on=_EVERY, needs=_OWNED)(_can_own("dst"))


def _external_is_known(side: Side) -> Check[Barrier]:
    """EXTERNAL came with VK_KHR_external_memory, which Vulkan 1.1 took in. The instance's version counts here."""

    def check(call: Barrier) -> Finding | None:
        if call.side(side) != EXTERNAL:
            return None
        version, extensions = call.device.api_version, call.device.extensions
        if version is None or extensions is None:
            return None
        if version >= _VERSION_1_1 or "VK_KHR_external_memory" in extensions:
            return None
        return (
            call.field(side),
            "it is QUEUE_FAMILY_EXTERNAL, on a device without VK_KHR_external_memory of a Vulkan 1.0 instance",
            "Make the instance with Vulkan 1.1 or later, or enable VK_KHR_external_memory.",
        )

    return check


rule(*_every("None-09097"), on=_EVERY)(_external_is_known("src"))
rule(*_every("None-09098"), on=_EVERY)(_external_is_known("dst"))


def _foreign_is_known(side: Side) -> Check[Barrier]:
    """FOREIGN belongs to an extension that no version of Vulkan has taken in."""

    def check(call: Barrier) -> Finding | None:
        extensions = call.device.extensions
        if call.side(side) != FOREIGN or extensions is None or "VK_EXT_queue_family_foreign" in extensions:
            return None
        return (
            call.field(side),
            "it is QUEUE_FAMILY_FOREIGN_EXT, on a device without VK_EXT_queue_family_foreign",
            "Enable VK_EXT_queue_family_foreign; among Vulkan devices of one driver QUEUE_FAMILY_EXTERNAL will do.",
        )

    return check


rule(*_every("srcQueueFamilyIndex-09099"), on=_EVERY)(_foreign_is_known("src"))
rule(*_every("dstQueueFamilyIndex-09100"), on=_EVERY)(_foreign_is_known("dst"))


@rule(
    "VkBufferMemoryBarrier-None-09049",
    "VkImageMemoryBarrier-None-09052",
    on=_FIRST,
    needs=Traits.OLD_CONCURRENT,
)
def one_side_is_ignored(call: Barrier) -> Finding | None:
    """All queue families own a concurrent resource; IGNORED stands for them."""
    if IGNORED in (call.src, call.dst):
        return None
    return (
        call.where,
        f"a concurrent {call.kind} goes {call.way}, and synchronization2 is not enabled",
        "Put QUEUE_FAMILY_IGNORED on this device's side, or on both where nothing moves; or enable synchronization2.",
    )


def _ignored_or_external(side: Side) -> Check[Barrier]:
    """No queue family of the device, and not FOREIGN either."""

    def check(call: Barrier) -> Finding | None:
        family = call.side(side)
        if family in (IGNORED, EXTERNAL):
            return None
        return (
            call.field(side),
            f"{family_text(family)} is the {_TOLD[side]} of a concurrent {call.kind}, and synchronization2 is not "
            "enabled",
            "Pass QUEUE_FAMILY_IGNORED or QUEUE_FAMILY_EXTERNAL, or enable synchronization2.",
        )

    return check


rule(
    "VkBufferMemoryBarrier-None-09050",
    "VkImageMemoryBarrier-None-09053",
    on=_FIRST,
    needs=Traits.OLD_CONCURRENT,
)(_ignored_or_external("src"))
rule(
    "VkBufferMemoryBarrier-None-09051",
    "VkImageMemoryBarrier-None-09054",
    on=_FIRST,
    needs=Traits.OLD_CONCURRENT,
)(_ignored_or_external("dst"))

_TEXTURE = Traits.MOVES | Traits.D3D11


@rule(*["VkImageMemoryBarrier-dstQueueFamilyIndex-12331"] * 2, on=(IMAGE, IMAGE2), needs=_TEXTURE)
def released_in_general(call: Barrier) -> Finding | None:
    """Direct3D 11 knows one layout only."""
    layout = type_mask(call.info.new_layout)
    if call.dst != EXTERNAL or layout == _GENERAL:
        return None
    return (
        f"{call.where}.new_layout",
        f"a Direct3D 11 texture is released to QUEUE_FAMILY_EXTERNAL in {enum_text(layout, vk.ImageLayout)}",
        "Pass new_layout=ImageLayout.GENERAL.",
    )


@rule(*["VkImageMemoryBarrier-srcQueueFamilyIndex-12332"] * 2, on=(IMAGE, IMAGE2), needs=_TEXTURE)
def acquired_from_general(call: Barrier) -> Finding | None:
    """UNDEFINED throws the contents away, which is allowed."""
    layout = type_mask(call.info.old_layout)
    if call.src != EXTERNAL or layout in (_GENERAL, _UNDEFINED):
        return None
    return (
        f"{call.where}.old_layout",
        f"a Direct3D 11 texture is acquired from QUEUE_FAMILY_EXTERNAL in {enum_text(layout, vk.ImageLayout)}",
        "Pass old_layout=ImageLayout.GENERAL, or UNDEFINED to discard what it holds.",
    )


def judge(
    barrier: Any, struct: type, resource: ResourceFacts | None, device: DeviceFacts, where: str
) -> tuple[Barrier | None, list[Violation]]:
    """The barrier as the rules see it, and what it breaks; no barrier where it cannot be read as this struct."""
    found = wrong_struct(barrier, struct, where) or malformed([(where, barrier)])
    if found:
        return None, found
    kind, suite = _STRUCTS[struct]
    src, dst = int(barrier.src_queue_family_index), int(barrier.dst_queue_family_index)
    traits = _traits(src, dst, resource, device)
    call = Barrier(barrier, kind, src, dst, device, where, traits, resource)
    return call, suite.run(call, traits)


def check_buffer_memory_barrier(
    barrier: vk.BufferMemoryBarrier | vk.BufferMemoryBarrier2,
    buffer: ResourceFacts | None,
    device: DeviceFacts,
    *,
    where: str = "",
) -> list[Violation]:
    """The rules on queue families that this barrier would break (VkBufferMemoryBarrier{,2}-buffer-09095 to -09100).

    With the first version of the structure also those on concurrent buffers (None-09049, -09050, -09051). What ties
    the barrier to its command buffer is judged by `check_pipeline_barrier`.

    `buffer`: what is known of `barrier.buffer`, None for nothing. `where`: the barrier's path in messages, by default
    the name of its structure.
    """
    struct = vk.BufferMemoryBarrier2 if type(barrier) is vk.BufferMemoryBarrier2 else vk.BufferMemoryBarrier
    return judge(barrier, struct, buffer, device, where or struct.__name__)[1]


def check_image_memory_barrier(
    barrier: vk.ImageMemoryBarrier | vk.ImageMemoryBarrier2,
    image: ResourceFacts | None,
    device: DeviceFacts,
    *,
    where: str = "",
) -> list[Violation]:
    """The rules on queue families that this barrier would break, and on layouts of Direct3D 11 textures.

    They are VkImageMemoryBarrier{,2}-image-09117, -09118, -09097 to -09100, and VkImageMemoryBarrier-12331, -12332;
    with the first version of the structure also those on concurrent images (None-09052, -09053, -09054). What ties
    the barrier to its command buffer is judged by `check_pipeline_barrier`.

    `image`: what is known of `barrier.image`, None for nothing. `where`: the barrier's path in messages, by default
    the name of its structure.
    """
    struct = vk.ImageMemoryBarrier2 if type(barrier) is vk.ImageMemoryBarrier2 else vk.ImageMemoryBarrier
    return judge(barrier, struct, image, device, where or struct.__name__)[1]
