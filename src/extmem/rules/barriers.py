"""Barriers: between which queue families ownership may be transferred, and the layouts of Direct3D 11 textures.

How this works: a barrier is read once into a `Barrier`, with traits that determine which rules can apply: whether its
two queue families differ, how the resource is shared, whether it is a Direct3D 11 texture. A barrier that does not
transfer ownership runs few checks. Each of the four structures has its own suite; one check decides all ids of a rule.

The device's queue families, enabled extensions and features, and the instance's version come from `DeviceFacts`; how
the resource was created comes from `ResourceFacts`. A rule that needs an unknown fact is not checked.

The layout rules are written for VkImageMemoryBarrier alone. The layout table that they come from makes no difference
between the versions, so VkImageMemoryBarrier2 is checked too, under the same ids.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from extmem import vk
from extmem.rules._conditions import lacks_extension
from extmem.rules._engine import Condition, Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import D3D11_TYPES, enum_text, type_mask
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.violation import Violation
from extmem.vk.formats import format_facts

__all__ = [
    "EXTERNAL",
    "FOREIGN",
    "IGNORED",
    "Barrier",
    "Traits",
    "check_buffer_memory_barrier",
    "check_image_memory_barrier",
    "check_barrier",
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

ResourceKind = Literal["buffer", "image"]
Side = Literal["src", "dst"]
_SIDE_TEXTS: dict[Side, str] = {"src": "source", "dst": "destination"}


class Traits:
    """Properties of a barrier that checks depend on, as single bits."""

    MOVES = 1 << 0
    """The barrier's two queue families differ."""
    EXCLUSIVE = 1 << 1
    """The resource belongs to one queue family at a time."""
    OLD_CONCURRENT = 1 << 2
    """The resource is shared by queue families, and the synchronization2 feature is known to be off."""
    D3D11 = 1 << 3
    """The resource is a Direct3D 11 texture."""
    SRC_EXTERNAL = 1 << 4
    DST_EXTERNAL = 1 << 5
    SRC_FOREIGN = 1 << 6
    DST_FOREIGN = 1 << 7
    KNOWN = 1 << 8
    """There are facts of the resource."""
    FORMAT = 1 << 9
    """The resource is an image whose format the registry contains."""


_SIDES = {EXTERNAL: (Traits.SRC_EXTERNAL, Traits.DST_EXTERNAL), FOREIGN: (Traits.SRC_FOREIGN, Traits.DST_FOREIGN)}


class Barrier(msgspec.Struct):
    """One barrier on a buffer or an image, of either version."""

    info: Any
    resource_kind: ResourceKind
    src: int
    dst: int
    device: DeviceFacts
    where: str
    traits: int
    """Bits of `Traits`."""
    resource: ResourceFacts | None = None
    """Facts of the buffer or image; None if there are none."""

    @property
    def transfer_text(self) -> str:
        """The two queue families as text."""
        return f"from {family_text(self.src)} to {family_text(self.dst)}"


def _traits(src: int, dst: int, resource: ResourceFacts | None, device: DeviceFacts) -> int:
    """Return the traits of a barrier."""
    traits = Traits.MOVES if src != dst else 0
    traits |= _SIDES.get(src, (0, 0))[0] | _SIDES.get(dst, (0, 0))[1]
    if resource is None:
        return traits
    traits |= Traits.KNOWN
    info = resource.create_info
    if isinstance(info, vk.ImageCreateInfo) and format_facts(int(info.format)) is not None:
        traits |= Traits.FORMAT
    mode = resource.create_info.sharing_mode
    if mode == _EXCLUSIVE:
        traits |= Traits.EXCLUSIVE
    elif mode == _CONCURRENT and device.synchronization2 is False:
        traits |= Traits.OLD_CONCURRENT
    if int(resource.handle_types) & D3D11_TYPES:
        traits |= Traits.D3D11
    return traits


def family_text(family: int) -> str:
    """Return a queue family's number, or the name of its constant, as text."""
    return _NAMES.get(family) or f"queue family {int(family)}"


BUFFER: Suite[Barrier] = Suite("vkCmdPipelineBarrier")
BUFFER2: Suite[Barrier] = Suite("vkCmdPipelineBarrier2")
IMAGE: Suite[Barrier] = Suite("vkCmdPipelineBarrier")
IMAGE2: Suite[Barrier] = Suite("vkCmdPipelineBarrier2")
_FIRST, _EVERY = (BUFFER, IMAGE), (BUFFER, BUFFER2, IMAGE, IMAGE2)
_STRUCTS: dict[type, tuple[ResourceKind, Suite[Barrier]]] = {
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


def _cannot_own(side: Side) -> Condition:
    """Make the condition that the side is neither EXTERNAL nor FOREIGN, nor a queue family of the device."""

    def broken(call: Barrier) -> str:
        family, count = call.src if side == "src" else call.dst, call.device.queue_family_count
        if family in (EXTERNAL, FOREIGN):
            return ""
        if family == IGNORED:
            reason = ""
        elif count is not None and family >= count:
            reason = f"; the device has {count} queue famil{'y' if count == 1 else 'ies'}, numbered from 0"
        elif call.device.queue_families is not None and family not in call.device.queue_families:
            has = ", ".join(map(str, sorted(call.device.queue_families)))
            reason = f"; this logical device has no queue of family {family}, but of {has}"
        else:
            return ""
        return f"an exclusive {call.resource_kind} is transferred {call.transfer_text}{reason}"

    return broken


def _no_external(call: Barrier) -> bool:
    """EXTERNAL needs an instance of Vulkan 1.1, or VK_KHR_external_memory."""
    version, extensions = call.device.api_version, call.device.extensions
    if version is None or extensions is None:
        return False
    return version < _VERSION_1_1 and "VK_KHR_external_memory" not in extensions


def _owned_by_all(call: Barrier) -> bool:
    """One side of a concurrent resource's barrier is IGNORED, because all its queue families own it."""
    return IGNORED not in (call.src, call.dst)


def _neither_ignored_nor_external(side: Side) -> Condition:
    def broken(call: Barrier) -> str:
        family = call.src if side == "src" else call.dst
        return "" if family in (IGNORED, EXTERNAL) else family_text(family)

    return broken


def _layout_not_in(field: str, *allowed: int) -> Condition:
    """Make the condition that the layout is not one of these: its name."""

    def broken(call: Barrier) -> str:
        layout = type_mask(getattr(call.info, field))
        return "" if layout in allowed else enum_text(layout, vk.ImageLayout)

    return broken


def _owner(buffer_tail: str, image_tail: str, side: Side) -> Demand:
    """Return the row that ownership of an exclusive resource is transferred from and to a possible owner."""
    return Demand(
        _every(buffer_tail, image_tail),
        _cannot_own(side),
        f"{{call.where}}.{side}_queue_family_index",
        "{found}",
        "Pass a queue family of the device, QUEUE_FAMILY_EXTERNAL or QUEUE_FAMILY_FOREIGN_EXT; or pass the same "
        "value for both sides, to transfer nothing.",
        needs=Traits.MOVES | Traits.EXCLUSIVE,
    )


def _external(tail: str, side: Side, needs: int) -> Demand:
    return Demand(
        _every(tail),
        _no_external,
        f"{{call.where}}.{side}_queue_family_index",
        "it is QUEUE_FAMILY_EXTERNAL, on a device without VK_KHR_external_memory of a Vulkan 1.0 instance",
        "Create the instance with Vulkan 1.1 or later, or enable VK_KHR_external_memory.",
        needs,
    )


def _foreign(tail: str, side: Side, needs: int) -> Demand:
    """Return the row that the extension of FOREIGN is enabled, which is not part of any version of Vulkan."""
    return Demand(
        _every(tail),
        lacks_extension("VK_EXT_queue_family_foreign"),
        f"{{call.where}}.{side}_queue_family_index",
        "it is QUEUE_FAMILY_FOREIGN_EXT, on a device without VK_EXT_queue_family_foreign",
        "Enable VK_EXT_queue_family_foreign; between Vulkan devices of one driver QUEUE_FAMILY_EXTERNAL is enough.",
        needs,
    )


def _concurrent(buffer_tail: str, image_tail: str, side: Side) -> Demand:
    """Return the row that the side of a concurrent resource's barrier is IGNORED or EXTERNAL."""
    return Demand(
        (f"VkBufferMemoryBarrier-{buffer_tail}", f"VkImageMemoryBarrier-{image_tail}"),
        _neither_ignored_nor_external(side),
        f"{{call.where}}.{side}_queue_family_index",
        f"{{found}} is the {_SIDE_TEXTS[side]} of a concurrent {{call.resource_kind}}, and synchronization2 is not "
        "enabled",
        "Pass QUEUE_FAMILY_IGNORED or QUEUE_FAMILY_EXTERNAL, or enable synchronization2.",
        needs=Traits.OLD_CONCURRENT,
    )


demand(
    _EVERY,
    _owner("buffer-09095", "image-09117", "src"),
    _owner("buffer-09096", "image-09118", "dst"),
    _external("None-09097", "src", Traits.SRC_EXTERNAL),
    _external("None-09098", "dst", Traits.DST_EXTERNAL),
    _foreign("srcQueueFamilyIndex-09099", "src", Traits.SRC_FOREIGN),
    _foreign("dstQueueFamilyIndex-09100", "dst", Traits.DST_FOREIGN),
)
demand(
    _FIRST,
    Demand(
        ("VkBufferMemoryBarrier-None-09049", "VkImageMemoryBarrier-None-09052"),
        _owned_by_all,
        "{call.where}",
        "a concurrent {call.resource_kind} is transferred {call.transfer_text}, and synchronization2 is not enabled",
        "Pass QUEUE_FAMILY_IGNORED for this device's side, or for both to transfer nothing; or enable "
        "synchronization2.",
        needs=Traits.OLD_CONCURRENT,
    ),
    _concurrent("None-09050", "None-09053", "src"),
    _concurrent("None-09051", "None-09054", "dst"),
)
demand(
    (IMAGE, IMAGE2),
    Demand(
        ("VkImageMemoryBarrier-dstQueueFamilyIndex-12331",) * 2,
        _layout_not_in("new_layout", _GENERAL),
        "{call.where}.new_layout",
        "a Direct3D 11 texture is released to QUEUE_FAMILY_EXTERNAL in {found}",
        "Pass new_layout=ImageLayout.GENERAL.",
        needs=Traits.MOVES | Traits.D3D11 | Traits.DST_EXTERNAL,
    ),
    Demand(  # UNDEFINED discards the contents
        ("VkImageMemoryBarrier-srcQueueFamilyIndex-12332",) * 2,
        _layout_not_in("old_layout", _GENERAL, _UNDEFINED),
        "{call.where}.old_layout",
        "a Direct3D 11 texture is acquired from QUEUE_FAMILY_EXTERNAL in {found}",
        "Pass old_layout=ImageLayout.GENERAL, or UNDEFINED to discard its contents.",
        needs=Traits.MOVES | Traits.D3D11 | Traits.SRC_EXTERNAL,
    ),
)


def check_barrier(
    barrier: Any, struct: type, resource: ResourceFacts | None, device: DeviceFacts, where: str
) -> tuple[Barrier | None, list[Violation]]:
    """Return the barrier with its traits, and the rules that it breaks.

    The barrier is None if the argument is not of this struct type, or a field is not of the right type.
    """
    violations = wrong_struct(barrier, struct, where) or malformed([(where, barrier)])
    if violations:
        return None, violations
    resource_kind, suite = _STRUCTS[struct]
    if resource is not None and resource.kind != resource_kind:
        resource = None  # the facts of a buffer state nothing about an image, and the reverse
    src, dst = int(barrier.src_queue_family_index), int(barrier.dst_queue_family_index)
    traits = _traits(src, dst, resource, device)
    call = Barrier(barrier, resource_kind, src, dst, device, where, traits, resource)
    return call, suite.run(call, traits)


def check_buffer_memory_barrier(
    barrier: vk.BufferMemoryBarrier | vk.BufferMemoryBarrier2,
    buffer: ResourceFacts | None,
    device: DeviceFacts,
    *,
    where: str = "",
) -> list[Violation]:
    """Return the rules on queue families that this barrier would break.

    They are VkBufferMemoryBarrier{,2}-buffer-09095 to -09100; with the first version of the structure also those on
    concurrent buffers (None-09049, -09050, -09051). The rules on the barrier's command buffer are checked by
    `check_pipeline_barrier`.

    `buffer`: facts of `barrier.buffer`, None if there are none. `where`: the barrier's path in messages, by default the
    name of its structure.
    """
    struct = vk.BufferMemoryBarrier2 if type(barrier) is vk.BufferMemoryBarrier2 else vk.BufferMemoryBarrier
    return check_barrier(barrier, struct, buffer, device, where or struct.__name__)[1]


def check_image_memory_barrier(
    barrier: vk.ImageMemoryBarrier | vk.ImageMemoryBarrier2,
    image: ResourceFacts | None,
    device: DeviceFacts,
    *,
    where: str = "",
) -> list[Violation]:
    """Return the rules on queue families, and on layouts of Direct3D 11 textures, that this barrier would break.

    They are VkImageMemoryBarrier{,2}-image-09117, -09118, -09097 to -09100, and VkImageMemoryBarrier-12331, -12332;
    with the first version of the structure also those on concurrent images (None-09052, -09053, -09054). The rules on
    the barrier's command buffer are checked by `check_pipeline_barrier`.

    `image`: facts of `barrier.image`, None if there are none. `where`: the barrier's path in messages, by default the
    name of its structure.
    """
    struct = vk.ImageMemoryBarrier2 if type(barrier) is vk.ImageMemoryBarrier2 else vk.ImageMemoryBarrier
    return check_barrier(barrier, struct, image, device, where or struct.__name__)[1]
