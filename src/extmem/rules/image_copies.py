"""vkCmdCopyBufferToImage and vkCmdCopyImageToBuffer of one mip level of one layer, in one aspect.

How this works: both commands take the same region (VkBufferImageCopy), so one check decides both their ids. Rows and
slices are tightly packed in the buffer, so the number of bytes of a region follows from the image's format, its extent
at the mip level and the aspect. A region whose level, layer or aspect the image lacks has no size, and only that is
reported.
"""

from __future__ import annotations

import msgspec

from extmem import vk
from extmem.rules._conditions import not_index, not_one_of
from extmem.rules._engine import Condition, Demand, Finding, Suite, demand
from extmem.rules._text import bits_of
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.transfer_commands import CLEARING, Place, guard, layout_demand, overlap, queue_text, usage_demand
from extmem.rules.violation import Violation
from extmem.vk.formats import DEPTH, STENCIL, FormatFacts, copied_size, format_facts, format_name

__all__ = ["check_copy_buffer_to_image", "check_copy_image_to_buffer", "copied_extent", "default_aspect"]

_Aspect, _BufferUsage, _ImageUsage = vk.ImageAspectFlagBits, vk.BufferUsageFlagBits, vk.ImageUsageFlagBits
_GRAPHICS = int(vk.QueueFlagBits.GRAPHICS)


class ImageCopy(msgspec.Struct):
    """One copy between a buffer and an image, in either direction."""

    command: str
    image: ResourceFacts
    info: vk.ImageCreateInfo
    buffer: ResourceFacts
    layout: int
    buffer_offset: int
    mip_level: int
    array_layer: int
    aspect: int
    device: DeviceFacts
    places: tuple[Place | None, Place | None]
    """Where image and buffer are in memory."""
    format: FormatFacts | None
    taken: tuple[int, int] | None
    """Bytes of a texel block and of the whole region in the buffer; None if the image lacks the region."""

    @property
    def format_name(self) -> str:
        """Name of the image's format."""
        return format_name(int(self.info.format))


TO_IMAGE: Suite[ImageCopy] = Suite("vkCmdCopyBufferToImage")
TO_BUFFER: Suite[ImageCopy] = Suite("vkCmdCopyImageToBuffer")
_BOTH = (TO_IMAGE, TO_BUFFER)


def _both(tail: str, other: str = "") -> tuple[str, str]:
    return f"vkCmdCopyBufferToImage-{tail}", f"vkCmdCopyImageToBuffer-{other or tail}"


def _names(aspects: int) -> str:
    return ", ".join(_Aspect(bit).name or hex(bit) for bit in bits_of(aspects)) or "none"


def default_aspect(image: vk.ImageCreateInfo) -> int:
    """Return the aspect of a copy of this image if none is given; 0 if the image has several, or it is unknown."""
    facts = format_facts(int(image.format))
    return facts.copied[0] if facts is not None and len(facts.copied) == 1 else 0


def _copied(info: vk.ImageCreateInfo, mip_level: int, aspect: int) -> tuple[int, tuple[int, int, int], int] | None:
    """Return bytes of a texel block, extent in texels, and bytes in the buffer; None if the image lacks the region."""
    facts, whole = format_facts(int(info.format)), info.extent
    if facts is None or aspect not in facts.copied or not 0 <= mip_level < info.mip_levels:
        return None
    wide, high, deep = (max(1, int(length) >> mip_level) for length in (whole.width, whole.height, whole.depth))
    return copied_size(facts, aspect, (wide, high, deep))


def copied_extent(info: vk.ImageCreateInfo, mip_level: int, aspect: int) -> tuple[int, int, int]:
    """Return the extent in texels of one mip level in one aspect; zeros if the image lacks them.

    A plane has fewer texels than the image.
    """
    copied = _copied(info, mip_level, aspect)
    return (0, 0, 0) if copied is None else copied[1]


def _no_aspect(call: ImageCopy) -> str:
    """Return the aspects to choose from if none is given, which is valid for a format with one aspect only."""
    return "" if call.aspect or call.format is None else _names(sum(call.format.copied))


def _several_aspects(call: ImageCopy) -> str:
    return _names(call.aspect) if call.aspect & (call.aspect - 1) else ""


def _foreign_aspect(*, plane: bool) -> Condition:
    """Make the condition that the format (with or without planes) lacks the aspect: the aspect, and the format's."""

    def broken(call: ImageCopy) -> tuple[str, str] | None:
        facts = call.format
        if facts is None or bool(facts.planes) != plane:
            return None
        if not call.aspect or call.aspect & (call.aspect - 1) or call.aspect in facts.copied:
            return None
        return _names(call.aspect), _names(sum(facts.copied))

    return broken


def _outside_the_buffer(call: ImageCopy) -> Finding | None:
    if call.format is None:
        return f"{call.command}.image", f"the size of a texel of {call.format_name} is unknown", "Update extmem."
    if call.taken is None:
        return None
    size = int(call.buffer.create_info.size) if isinstance(call.buffer.create_info, vk.BufferCreateInfo) else 0
    total = call.taken[1]
    if 0 <= call.buffer_offset and call.buffer_offset + total <= size:
        return None
    return (
        f"{call.command}.buffer",
        f"{total} bytes of {call.format_name} from offset {call.buffer_offset} reach outside the buffer of {size} "
        "bytes",
        f"Use a buffer of {max(0, call.buffer_offset) + total} bytes or more.",
    )


def _overlaps(call: ImageCopy) -> bool:
    """Not checked for an image of several levels or layers, because their places in memory are unknown."""
    if call.taken is None or (call.info.mip_levels, call.info.array_layers) != (1, 1):
        return False
    image, buffer = call.places
    return overlap(image, 0, buffer, call.buffer_offset, call.image.size, call.taken[1])


_Unaligned = tuple[str, int] | None
"""What must begin at a multiple of how many bytes; None if it does, or need not."""


def _unaligned_texels(call: ImageCopy) -> _Unaligned:
    if call.taken is None or call.format is None or not call.buffer_offset % call.taken[0]:
        return None
    return None if call.format.deep or call.format.planes else (call.format_name, call.taken[0])


def _unaligned_plane(call: ImageCopy) -> _Unaligned:
    if call.taken is None or call.format is None or not call.format.planes or not call.buffer_offset % call.taken[0]:
        return None
    return f"{_names(call.aspect)} of {call.format_name}", call.taken[0]


def _unaligned_depth(call: ImageCopy) -> _Unaligned:
    """Depth and stencil begin at a multiple of 4, whatever the size of a texel."""
    if call.format is None or not call.format.deep or not call.buffer_offset % 4:
        return None
    return call.format_name, 4


def _unaligned_words(call: ImageCopy) -> _Unaligned:
    """Queues that support transfers only copy words."""
    flags = call.device.queue_flags
    if flags is None or flags & CLEARING or not call.buffer_offset % 4:
        return None
    return f"a copy on a queue with {queue_text(flags)}", 4


def _depth_without_graphics(call: ImageCopy) -> tuple[str, str] | None:
    flags = call.device.queue_flags
    if flags is None or flags & _GRAPHICS or not call.aspect & (DEPTH | STENCIL):
        return None
    return _names(call.aspect), queue_text(flags)


def _aligned(tail: str, other: str, unaligned: Condition) -> Demand:
    """Return the row that the offset in the buffer is a multiple of a number of bytes."""
    return Demand(
        _both(tail, other),
        unaligned,
        "{call.command}.buffer_offset",
        "it is {call.buffer_offset}, and {found[0]} must begin at a multiple of {found[1]} bytes",
        "Use an offset that is a multiple of {found[1]}.",
    )


def _of_the_format(tail: str, other: str, *, plane: bool) -> Demand:
    """Return the row that the format has the aspect."""
    return Demand(
        guard(*_both(tail, other)),
        _foreign_aspect(plane=plane),
        "{call.command}.aspect",
        "it is {found[0]}, and a copy of {call.format_name} takes {found[1]}",
        "Pass an aspect that the image's format has.",
    )


demand(
    _BOTH,
    Demand(
        guard(*_both("imageSubresource-07967")),
        not_index("mip_level", "info.mip_levels"),
        "{call.command}.mip_level",
        "it is {call.mip_level}, and the image has {call.info.mip_levels} mip levels",
        "Give one of the image's levels; the first is 0.",
    ),
    Demand(
        guard(*_both("imageSubresource-07968")),
        not_index("array_layer", "info.array_layers"),
        "{call.command}.array_layer",
        "it is {call.array_layer}, and the image has {call.info.array_layers} layers",
        "Give one of the image's layers; the first is 0.",
    ),
    Demand(
        guard(*["VkImageSubresourceLayers-aspectMask-requiredbitmask"] * 2),
        _no_aspect,
        "{call.command}.aspect",
        "no aspect is given, and {call.format_name} has several",
        "Pass aspect=ImageAspectFlagBits, one of {found}; a copy takes one at a time.",
    ),
    Demand(  # each aspect has a place of its own in the buffer
        guard(*["VkBufferImageCopy-aspectMask-09103"] * 2),
        _several_aspects,
        "{call.command}.aspect",
        "it is {found}",
        "Copy one aspect at a time, with a command for each.",
    ),
    _of_the_format("imageSubresource-09105", "", plane=False),
    _of_the_format("dstImage-07981", "srcImage-07981", plane=True),
    Demand(
        guard(*_both("dstImage-07973", "srcImage-07973")),
        not_one_of("info.samples", (1,)),
        "{call.command}.image",
        "it has {call.info.samples:d} samples for each texel",
        "Resolve it to an image with one sample, and copy that.",
    ),
    Demand(guard(*_both("pRegions-00171", "pRegions-00183")), _outside_the_buffer),
    Demand(
        _both("pRegions-00173", "pRegions-00184"),
        _overlaps,
        "{call.command}.buffer",
        "the image and these bytes of the buffer overlap in memory",
        "Copy through a buffer in other memory.",
    ),
)
_COPY_IN, _COPY_OUT = TO_IMAGE.command, TO_BUFFER.command
demand(
    TO_IMAGE,
    usage_demand(f"{_COPY_IN}-srcBuffer-00174", "buffer", _BufferUsage.TRANSFER_SRC, f"{_COPY_IN}.buffer"),
    usage_demand(f"{_COPY_IN}-dstImage-00177", "image", _ImageUsage.TRANSFER_DST, f"{_COPY_IN}.image"),
    layout_demand(f"{_COPY_IN}-dstImageLayout-01396", vk.ImageLayout.TRANSFER_DST_OPTIMAL, f"{_COPY_IN}.layout"),
)
demand(
    TO_BUFFER,
    usage_demand(f"{_COPY_OUT}-dstBuffer-00191", "buffer", _BufferUsage.TRANSFER_DST, f"{_COPY_OUT}.buffer"),
    usage_demand(f"{_COPY_OUT}-srcImage-00186", "image", _ImageUsage.TRANSFER_SRC, f"{_COPY_OUT}.image"),
    layout_demand(f"{_COPY_OUT}-srcImageLayout-01397", vk.ImageLayout.TRANSFER_SRC_OPTIMAL, f"{_COPY_OUT}.layout"),
)
demand(
    _BOTH,
    _aligned("dstImage-07975", "srcImage-07975", _unaligned_texels),
    _aligned("dstImage-07976", "srcImage-07976", _unaligned_plane),
    _aligned("dstImage-07978", "srcImage-07978", _unaligned_depth),
    _aligned("commandBuffer-07737", "commandBuffer-07746", _unaligned_words),
    Demand(
        _both("commandBuffer-07739", "commandBuffer-10216"),
        _depth_without_graphics,
        "{call.command}.aspect",
        "{found[0]} is copied on a queue with {found[1]}",
        "Use a device whose queue family has GRAPHICS.",
    ),
)


def _check(
    suite: Suite[ImageCopy],
    image: ResourceFacts,
    buffer: ResourceFacts,
    layout: int,
    buffer_offset: int,
    mip_level: int,
    array_layer: int,
    aspect: int,
    device: DeviceFacts,
    places: tuple[Place | None, Place | None],
) -> list[Violation]:
    info = image.create_info
    if not isinstance(info, vk.ImageCreateInfo):
        return []
    copied = _copied(info, mip_level, aspect)
    call = ImageCopy(
        suite.command,
        image,
        info,
        buffer,
        layout,
        buffer_offset,
        mip_level,
        array_layer,
        aspect,
        device,
        places,
        format_facts(int(info.format)),
        (copied[0], copied[2]) if copied is not None else None,
    )
    return suite.run(call, 0)


def check_copy_buffer_to_image(
    buffer: ResourceFacts,
    image: ResourceFacts,
    layout: int,
    device: DeviceFacts,
    *,
    buffer_offset: int = 0,
    mip_level: int = 0,
    array_layer: int = 0,
    aspect: int = 1,
    places: tuple[Place | None, Place | None] = (None, None),
) -> list[Violation]:
    """Return all rules that vkCmdCopyBufferToImage of one whole mip level of one layer would break.

    layout: the image's layout. aspect: one VkImageAspectFlagBits. places: where image and buffer are in memory, if
        known.
    """
    return _check(TO_IMAGE, image, buffer, layout, buffer_offset, mip_level, array_layer, aspect, device, places)


def check_copy_image_to_buffer(
    image: ResourceFacts,
    buffer: ResourceFacts,
    layout: int,
    device: DeviceFacts,
    *,
    buffer_offset: int = 0,
    mip_level: int = 0,
    array_layer: int = 0,
    aspect: int = 1,
    places: tuple[Place | None, Place | None] = (None, None),
) -> list[Violation]:
    """Return the broken rules as `check_copy_buffer_to_image`, for vkCmdCopyImageToBuffer."""
    return _check(TO_BUFFER, image, buffer, layout, buffer_offset, mip_level, array_layer, aspect, device, places)
