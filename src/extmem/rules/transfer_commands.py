"""vkCmdFillBuffer, vkCmdCopyBuffer and vkCmdClearColorImage: ranges, usages and layouts of their resources.

The rules that keep a command inside its resources are in `GUARDS`. The library refuses a call that breaks one of them
whatever the device's `check` is, because a driver may end the process or access other memory of it. Copies between
buffers and images are in `image_copies`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from enum import IntFlag
from operator import attrgetter
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._conditions import not_index, not_multiple, not_positive, reaches_past
from extmem.rules._engine import Demand, Suite, demand
from extmem.rules._text import enum_text, flags_text
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.violation import Violation
from extmem.vk.formats import format_facts, format_name

__all__ = [
    "GUARDS",
    "Place",
    "check_clear_color_image",
    "check_copy_buffer",
    "check_fill_buffer",
    "guard",
    "guards",
    "layout_demand",
    "overlap",
    "queue_text",
    "usage_demand",
]

_BufferUsage, _ImageUsage = vk.BufferUsageFlagBits, vk.ImageUsageFlagBits
_Queue, _Layout = vk.QueueFlagBits, vk.ImageLayout
CLEARING = int(_Queue.GRAPHICS | _Queue.COMPUTE)

GUARDS: set[str] = set()
"""Ids of the rules that keep a command inside its resources."""


def guard(*vuids: str) -> tuple[str, ...]:
    """Add the ids to `GUARDS`, and return them."""
    GUARDS.update(f"VUID-{vuid}" for vuid in vuids)
    return vuids


def guards(violations: Iterable[Violation]) -> list[Violation]:
    """Return those of the violations with which a call is always refused."""
    return [violation for violation in violations if violation.vuid in GUARDS]


class Place(msgspec.Struct, frozen=True):
    """The place of a resource: memory objects, and the offset in them."""

    memory: Mapping[Hashable, int]
    """Identity → first byte, of everything that the memory object is known to be a part of, itself included."""
    offset: int


def overlap(first: Place | None, start: int, second: Place | None, at: int, size: int, other_size: int) -> bool:
    """Return whether two resources share memory: `size` bytes from `start`, and `other_size` bytes from `at`."""
    if first is None or second is None:
        return False
    begin, other = first.offset + start, second.offset + at
    return any(
        begin + first.memory[whole] < other + second.memory[whole] + other_size
        and other + second.memory[whole] < begin + first.memory[whole] + size
        for whole in first.memory.keys() & second.memory.keys()
    )


def usage_demand(vuid: str, resource: str, usage: IntFlag, where: str) -> Demand:
    """Return the row that the buffer or image in this attribute of the call was created with a usage flag."""
    kind = "buffer" if isinstance(usage, _BufferUsage) else "image"
    given, flags, wanted = attrgetter(f"{resource}.create_info.usage"), type(usage), int(usage)

    def broken(call: Any) -> str:
        have = int(given(call))
        return "" if have & wanted else flags_text(have, flags)

    problem = f"the {kind} was created with usage {{found}}"
    return Demand(vuid, broken, where, problem, f"Create it with usage {usage.name} among its flags.")


def queue_text(flags: int) -> str:
    """Return the names of queue flags."""
    return flags_text(flags, _Queue) if flags else "no flags"


def layout_demand(vuid: str, fit: vk.ImageLayout, where: str) -> Demand:
    """Return the row that the command allows the call's layout. SHARED_PRESENT needs an extension."""
    allowed = (int(_Layout.GENERAL), int(fit))

    def broken(call: Any) -> str:
        layout, extensions = call.layout, call.device.extensions
        presentable = extensions is None or "VK_KHR_shared_presentable_image" in extensions
        if layout in allowed or (presentable and layout == int(_Layout.SHARED_PRESENT_KHR)):
            return ""
        return enum_text(layout, _Layout)

    remedy = f"Pass the layout that the image is in, GENERAL or {fit.name}; `change_layout` changes it."
    return Demand(vuid, broken, where, "it is {found}", remedy)


class Fill(msgspec.Struct):
    """One vkCmdFillBuffer."""

    buffer: ResourceFacts
    capacity: int
    """Size of the buffer in bytes."""
    offset: int
    size: int


def _bytes_of(buffer: ResourceFacts) -> int:
    return int(buffer.create_info.size) if isinstance(buffer.create_info, vk.BufferCreateInfo) else 0


FILL: Suite[Fill] = Suite("vkCmdFillBuffer")
demand(
    FILL,
    Demand(
        guard("vkCmdFillBuffer-dstOffset-00024"),
        not_index("offset", "capacity"),
        "vkCmdFillBuffer.offset",
        "it is {call.offset}, outside the buffer of {call.capacity} bytes",
        "Begin inside the buffer.",
    ),
    Demand(
        guard("vkCmdFillBuffer-dstOffset-00025"),
        not_multiple("offset", 4),
        "vkCmdFillBuffer.offset",
        "it is {call.offset}",
        "Begin at a multiple of 4; write single bytes with `write`.",
    ),
    Demand(
        guard("vkCmdFillBuffer-size-00026"),
        not_positive("size"),
        "vkCmdFillBuffer.size",
        "it is {call.size}",
        "Fill 4 bytes or more, or omit the command.",
    ),
    Demand(
        guard("vkCmdFillBuffer-size-00027"),
        reaches_past("offset", "size", "capacity"),
        "vkCmdFillBuffer.size",
        "{call.size} bytes from offset {call.offset} reach outside the buffer of {call.capacity} bytes",
        "Fill at most {found} bytes.",
    ),
    Demand(
        guard("vkCmdFillBuffer-size-00028"),
        not_multiple("size", 4),
        "vkCmdFillBuffer.size",
        "it is {call.size}",
        "Fill a multiple of 4 bytes; write single bytes with `write`.",
    ),
    usage_demand("vkCmdFillBuffer-dstBuffer-00029", "buffer", _BufferUsage.TRANSFER_DST, "vkCmdFillBuffer.buffer"),
)


class Copy(msgspec.Struct):
    """One vkCmdCopyBuffer of one region."""

    source: ResourceFacts
    target: ResourceFacts
    source_offset: int
    target_offset: int
    size: int
    source_capacity: int
    """Size of the source in bytes."""
    target_capacity: int
    places: tuple[Place | None, Place | None]


def _copies_overlap(call: Copy) -> bool:
    """The command would write bytes that it reads; the device copies in any order."""
    return overlap(call.places[0], call.source_offset, call.places[1], call.target_offset, call.size, call.size)


COPY: Suite[Copy] = Suite("vkCmdCopyBuffer")
demand(
    COPY,
    Demand(
        guard("VkBufferCopy-size-01988"),
        not_positive("size"),
        "vkCmdCopyBuffer.size",
        "it is {call.size}",
        "Copy 1 byte or more, or omit the command.",
    ),
    Demand(
        guard("vkCmdCopyBuffer-srcOffset-00113"),
        not_index("source_offset", "source_capacity"),
        "vkCmdCopyBuffer.source_offset",
        "it is {call.source_offset}, outside the buffer of {call.source_capacity} bytes",
        "Begin inside the buffer.",
    ),
    Demand(
        guard("vkCmdCopyBuffer-dstOffset-00114"),
        not_index("target_offset", "target_capacity"),
        "vkCmdCopyBuffer.target_offset",
        "it is {call.target_offset}, outside the buffer of {call.target_capacity} bytes",
        "Begin inside the buffer.",
    ),
    Demand(
        guard("vkCmdCopyBuffer-size-00115"),
        reaches_past("source_offset", "size", "source_capacity"),
        "vkCmdCopyBuffer.size",
        "{call.size} bytes from offset {call.source_offset} of the source reach outside the buffer of "
        "{call.source_capacity} bytes",
        "Copy at most {found} bytes.",
    ),
    Demand(
        guard("vkCmdCopyBuffer-size-00116"),
        reaches_past("target_offset", "size", "target_capacity"),
        "vkCmdCopyBuffer.size",
        "{call.size} bytes from offset {call.target_offset} of the target reach outside the buffer of "
        "{call.target_capacity} bytes",
        "Copy at most {found} bytes.",
    ),
    Demand(
        "vkCmdCopyBuffer-pRegions-00117",
        _copies_overlap,
        "vkCmdCopyBuffer.target_offset",
        "{call.size} bytes from {call.source_offset} of the source and from {call.target_offset} of the target "
        "overlap in memory",
        "Copy through another buffer.",
    ),
    usage_demand("vkCmdCopyBuffer-srcBuffer-00118", "source", _BufferUsage.TRANSFER_SRC, "vkCmdCopyBuffer.source"),
    usage_demand("vkCmdCopyBuffer-dstBuffer-00120", "target", _BufferUsage.TRANSFER_DST, "vkCmdCopyBuffer.target"),
)


class Clear(msgspec.Struct):
    """One vkCmdClearColorImage of all levels and layers."""

    image: ResourceFacts
    format: int
    layout: int
    device: DeviceFacts

    @property
    def format_name(self) -> str:
        """Name of the image's format."""
        return format_name(self.format)


def _cannot_be_cleared(call: Clear) -> str:
    facts = format_facts(call.format)
    if facts is not None and facts.deep:
        return "a depth or stencil format"
    return "a compressed format" if facts is not None and facts.compressed else ""


def _queue_cannot_clear(call: Clear) -> str:
    """Return what the queue family supports, if neither graphics nor compute."""
    flags = call.device.queue_flags
    return "" if flags is None or flags & CLEARING else queue_text(flags)


def _is_converted(call: Clear) -> bool:
    facts = format_facts(call.format)
    return facts is not None and facts.chroma


CLEAR: Suite[Clear] = Suite("vkCmdClearColorImage")
demand(
    CLEAR,
    usage_demand("vkCmdClearColorImage-image-00002", "image", _ImageUsage.TRANSFER_DST, "vkCmdClearColorImage.image"),
    Demand(  # another command clears depth and stencil
        guard("vkCmdClearColorImage-image-00007"),
        _cannot_be_cleared,
        "vkCmdClearColorImage.image",
        "its format {call.format_name} is {found}",
        "Fill a buffer and copy it to the image.",
    ),
    Demand(
        guard("vkCmdClearColorImage-image-01545"),
        _is_converted,
        "vkCmdClearColorImage.image",
        "its format {call.format_name} needs a Y'CbCr conversion",
        "Fill a buffer and copy it to each plane of the image.",
    ),
    layout_demand(
        "vkCmdClearColorImage-imageLayout-01394", _Layout.TRANSFER_DST_OPTIMAL, "vkCmdClearColorImage.layout"
    ),
    Demand(
        "vkCmdClearColorImage-commandBuffer-cmdpool",
        _queue_cannot_clear,
        "vkCmdClearColorImage",
        "the queue family of the commands has {found}",
        "Use a device whose queue family has GRAPHICS or COMPUTE.",
    ),
)


def check_fill_buffer(buffer: ResourceFacts, offset: int, size: int, device: DeviceFacts) -> list[Violation]:
    """Return all rules that vkCmdFillBuffer of `size` bytes from `offset` of this buffer would break."""
    return FILL.run(Fill(buffer, _bytes_of(buffer), offset, size), 0)


def check_copy_buffer(
    source: ResourceFacts,
    target: ResourceFacts,
    source_offset: int,
    target_offset: int,
    size: int,
    device: DeviceFacts,
    *,
    places: tuple[Place | None, Place | None] = (None, None),
) -> list[Violation]:
    """Return all rules that vkCmdCopyBuffer of `size` bytes would break. places: of source and target, if known."""
    sizes = _bytes_of(source), _bytes_of(target)
    return COPY.run(Copy(source, target, source_offset, target_offset, size, *sizes, places), 0)


def check_clear_color_image(image: ResourceFacts, layout: int, device: DeviceFacts) -> list[Violation]:
    """Return all rules that vkCmdClearColorImage of this image in this layout would break."""
    info = image.create_info
    number = int(info.format) if isinstance(info, vk.ImageCreateInfo) else 0
    return CLEAR.run(Clear(image, number, layout, device), 0)
