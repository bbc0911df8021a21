"""vkCmdFillBuffer, vkCmdCopyBuffer and vkCmdClearColorImage: ranges, usages and layouts of their resources.

The rules that keep a command inside its resources are in `GUARDS`. The library refuses a call that breaks one of them
whatever the device's `check` is, because a driver may end the process or access other memory of it. Copies between
buffers and images are in `image_copies`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from extmem import vk
from extmem.rules._engine import Check, Finding, Suite, rule
from extmem.rules._text import bits_of, enum_text
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
    "lacks_usage",
    "overlap",
    "queue_text",
    "unfit_layout",
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


class Place(NamedTuple):
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


def lacks_usage(resource: ResourceFacts, usage: int, where: str) -> Finding | None:
    """Return a finding if the resource was created without a usage flag."""
    have = int(resource.create_info.usage)
    if have & usage:
        return None
    flags = _BufferUsage if resource.kind == "buffer" else _ImageUsage
    name = flags(usage).name or hex(usage)
    shown = " | ".join(flags(bit).name or hex(bit) for bit in bits_of(have)) or "0"
    return where, f"the {resource.kind} was created with usage {shown}", f"Create it with usage {name} among its flags."


def queue_text(flags: int) -> str:
    """Return the names of queue flags."""
    return " | ".join(_Queue(bit).name or hex(bit) for bit in bits_of(flags)) or "no flags"


def unfit_layout(layout: int, fit: vk.ImageLayout, device: DeviceFacts, where: str) -> Finding | None:
    """Return a finding if the command does not allow the layout. SHARED_PRESENT needs an extension."""
    presentable = device.extensions is None or "VK_KHR_shared_presentable_image" in device.extensions
    if layout in (int(_Layout.GENERAL), int(fit)) or (presentable and layout == int(_Layout.SHARED_PRESENT_KHR)):
        return None
    return (
        where,
        f"it is {enum_text(layout, _Layout)}",
        f"Pass the layout that the image is in, GENERAL or {fit.name}; `change_layout` changes it.",
    )


# Filling.


@dataclass(slots=True)
class Fill:
    """One vkCmdFillBuffer."""

    buffer: ResourceFacts
    offset: int
    size: int
    device: DeviceFacts


FILL: Suite[Fill] = Suite("vkCmdFillBuffer")


def _bytes_of(buffer: ResourceFacts) -> int:
    return int(buffer.create_info.size) if isinstance(buffer.create_info, vk.BufferCreateInfo) else 0


@rule(*guard("vkCmdFillBuffer-dstOffset-00024"), on=FILL)
def fill_begins_inside(call: Fill) -> Finding | None:
    """The first byte is inside the buffer."""
    size = _bytes_of(call.buffer)
    if 0 <= call.offset < size:
        return None
    return (
        "vkCmdFillBuffer.offset",
        f"it is {call.offset}, outside the buffer of {size} bytes",
        "Begin inside the buffer.",
    )


@rule(*guard("vkCmdFillBuffer-dstOffset-00025"), on=FILL)
def fill_begins_at_a_word(call: Fill) -> Finding | None:
    """The offset is a multiple of 4."""
    if call.offset % 4 == 0:
        return None
    return (
        "vkCmdFillBuffer.offset",
        f"it is {call.offset}",
        "Begin at a multiple of 4; write single bytes with `write`.",
    )


@rule(*guard("vkCmdFillBuffer-size-00026"), on=FILL)
def something_is_filled(call: Fill) -> Finding | None:
    """The size is not 0."""
    if call.size > 0:
        return None
    return "vkCmdFillBuffer.size", f"it is {call.size}", "Fill 4 bytes or more, or omit the command."


@rule(*guard("vkCmdFillBuffer-size-00027"), on=FILL)
def fill_ends_inside(call: Fill) -> Finding | None:
    """The last byte is inside the buffer."""
    size = _bytes_of(call.buffer)
    if not 0 <= call.offset < size or call.offset + call.size <= size:
        return None
    return (
        "vkCmdFillBuffer.size",
        f"{call.size} bytes from offset {call.offset} reach outside the buffer of {size} bytes",
        f"Fill at most {size - call.offset} bytes.",
    )


@rule(*guard("vkCmdFillBuffer-size-00028"), on=FILL)
def fill_ends_at_a_word(call: Fill) -> Finding | None:
    """The size is a multiple of 4."""
    if call.size % 4 == 0:
        return None
    return "vkCmdFillBuffer.size", f"it is {call.size}", "Fill a multiple of 4 bytes; write single bytes with `write`."


@rule("vkCmdFillBuffer-dstBuffer-00029", on=FILL)
def fill_is_a_use(call: Fill) -> Finding | None:
    """The buffer was created with the usage TRANSFER_DST."""
    return lacks_usage(call.buffer, int(_BufferUsage.TRANSFER_DST), "vkCmdFillBuffer.buffer")


# Copying.


@dataclass(slots=True)
class Copy:
    """One vkCmdCopyBuffer of one region."""

    source: ResourceFacts
    target: ResourceFacts
    source_offset: int
    target_offset: int
    size: int
    device: DeviceFacts
    places: tuple[Place | None, Place | None]


COPY: Suite[Copy] = Suite("vkCmdCopyBuffer")


@rule(*guard("VkBufferCopy-size-01988"), on=COPY)
def something_is_copied(call: Copy) -> Finding | None:
    """The size is not 0."""
    if call.size > 0:
        return None
    return "vkCmdCopyBuffer.size", f"it is {call.size}", "Copy 1 byte or more, or omit the command."


def _begins(of: Callable[[Copy], tuple[ResourceFacts, int]], field: str) -> Check[Copy]:
    def check(call: Copy) -> Finding | None:
        buffer, offset = of(call)
        size = _bytes_of(buffer)
        if 0 <= offset < size:
            return None
        return (
            f"vkCmdCopyBuffer.{field}",
            f"it is {offset}, outside the buffer of {size} bytes",
            "Begin inside the buffer.",
        )

    return check


def _ends(of: Callable[[Copy], tuple[ResourceFacts, int]], word: str) -> Check[Copy]:
    def check(call: Copy) -> Finding | None:
        buffer, offset = of(call)
        size = _bytes_of(buffer)
        if not 0 <= offset < size or offset + call.size <= size:
            return None
        return (
            "vkCmdCopyBuffer.size",
            f"{call.size} bytes from offset {offset} of the {word} reach outside the buffer of {size} bytes",
            f"Copy at most {size - offset} bytes.",
        )

    return check


def _source(call: Copy) -> tuple[ResourceFacts, int]:
    return call.source, call.source_offset


def _target(call: Copy) -> tuple[ResourceFacts, int]:
    return call.target, call.target_offset


rule(*guard("vkCmdCopyBuffer-srcOffset-00113"), on=COPY)(_begins(_source, "source_offset"))
rule(*guard("vkCmdCopyBuffer-dstOffset-00114"), on=COPY)(_begins(_target, "target_offset"))
rule(*guard("vkCmdCopyBuffer-size-00115"), on=COPY)(_ends(_source, "source"))
rule(*guard("vkCmdCopyBuffer-size-00116"), on=COPY)(_ends(_target, "target"))


@rule("vkCmdCopyBuffer-pRegions-00117", on=COPY)
def copies_do_not_overlap(call: Copy) -> Finding | None:
    """The command does not write bytes that it reads, because the device copies in any order."""
    first, second = call.places
    if not overlap(first, call.source_offset, second, call.target_offset, call.size, call.size):
        return None
    return (
        "vkCmdCopyBuffer.target_offset",
        f"{call.size} bytes from {call.source_offset} of the source and from {call.target_offset} of the target "
        "overlap in memory",
        "Copy through another buffer.",
    )


@rule("vkCmdCopyBuffer-srcBuffer-00118", on=COPY)
def source_is_copied_from(call: Copy) -> Finding | None:
    """The source was created with the usage TRANSFER_SRC."""
    return lacks_usage(call.source, int(_BufferUsage.TRANSFER_SRC), "vkCmdCopyBuffer.source")


@rule("vkCmdCopyBuffer-dstBuffer-00120", on=COPY)
def target_is_copied_to(call: Copy) -> Finding | None:
    """The target was created with the usage TRANSFER_DST."""
    return lacks_usage(call.target, int(_BufferUsage.TRANSFER_DST), "vkCmdCopyBuffer.target")


# Clearing.


@dataclass(slots=True)
class Clear:
    """One vkCmdClearColorImage of all levels and layers."""

    image: ResourceFacts
    layout: int
    device: DeviceFacts


CLEAR: Suite[Clear] = Suite("vkCmdClearColorImage")


def _format_of(image: ResourceFacts) -> int:
    return int(image.create_info.format) if isinstance(image.create_info, vk.ImageCreateInfo) else 0


@rule("vkCmdClearColorImage-image-00002", on=CLEAR)
def clearing_is_a_use(call: Clear) -> Finding | None:
    """The image was created with the usage TRANSFER_DST."""
    return lacks_usage(call.image, int(_ImageUsage.TRANSFER_DST), "vkCmdClearColorImage.image")


@rule(*guard("vkCmdClearColorImage-image-00007"), on=CLEAR)
def clears_a_color(call: Clear) -> Finding | None:
    """The format is a color format and not compressed. Another command clears depth and stencil."""
    number = _format_of(call.image)
    facts = format_facts(number)
    if facts is None or not (facts.deep or facts.compressed):
        return None
    what = "a depth or stencil format" if facts.deep else "a compressed format"
    return (
        "vkCmdClearColorImage.image",
        f"its format {format_name(number)} is {what}",
        "Fill a buffer and copy it to the image.",
    )


@rule(*guard("vkCmdClearColorImage-image-01545"), on=CLEAR)
def clears_no_chroma(call: Clear) -> Finding | None:
    """The format does not require a Y'CbCr conversion."""
    number = _format_of(call.image)
    facts = format_facts(number)
    if facts is None or not facts.chroma:
        return None
    return (
        "vkCmdClearColorImage.image",
        f"its format {format_name(number)} needs a Y'CbCr conversion",
        "Fill a buffer and copy it to each plane of the image.",
    )


@rule("vkCmdClearColorImage-imageLayout-01394", on=CLEAR)
def cleared_layout_fits(call: Clear) -> Finding | None:
    """The layout is one that a transfer can write."""
    where = "vkCmdClearColorImage.layout"
    return unfit_layout(call.layout, _Layout.TRANSFER_DST_OPTIMAL, call.device, where)


@rule("vkCmdClearColorImage-commandBuffer-cmdpool", on=CLEAR)
def queue_clears(call: Clear) -> Finding | None:
    """The queue family supports graphics or compute."""
    flags = call.device.queue_flags
    if flags is None or flags & CLEARING:
        return None
    problem = f"the queue family of the commands has {queue_text(flags)}"
    return "vkCmdClearColorImage", problem, "Use a device whose queue family has GRAPHICS or COMPUTE."


def check_fill_buffer(buffer: ResourceFacts, offset: int, size: int, device: DeviceFacts) -> list[Violation]:
    """Return all rules that vkCmdFillBuffer of `size` bytes from `offset` of this buffer would break."""
    return FILL.run(Fill(buffer, offset, size, device), 0)


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
    return COPY.run(Copy(source, target, source_offset, target_offset, size, device, places), 0)


def check_clear_color_image(image: ResourceFacts, layout: int, device: DeviceFacts) -> list[Violation]:
    """Return all rules that vkCmdClearColorImage of this image in this layout would break."""
    return CLEAR.run(Clear(image, layout, device), 0)
