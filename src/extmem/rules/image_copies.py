"""vkCmdCopyBufferToImage and vkCmdCopyImageToBuffer of one mip level of one layer, in one aspect.

How this works: both commands take the same region (VkBufferImageCopy), so one check decides both their ids. Rows and
slices are tightly packed in the buffer, so the number of bytes of a region follows from the image's format, its extent
at the mip level and the aspect. A region whose level, layer or aspect the image lacks has no size, and only that is
reported.
"""

from __future__ import annotations

from dataclasses import dataclass

from extmem import vk
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._text import bits_of
from extmem.rules.facts import DeviceFacts, ResourceFacts
from extmem.rules.transfer_commands import CLEARING, Place, guard, lacks_usage, overlap, queue_text, unfit_layout
from extmem.rules.violation import Violation
from extmem.vk.formats import DEPTH, STENCIL, FormatFacts, copied_size, format_facts, format_name

__all__ = ["check_copy_buffer_to_image", "check_copy_image_to_buffer", "copied_extent", "default_aspect"]

_Aspect, _BufferUsage, _ImageUsage = vk.ImageAspectFlagBits, vk.BufferUsageFlagBits, vk.ImageUsageFlagBits
_GRAPHICS = int(vk.QueueFlagBits.GRAPHICS)


@dataclass(slots=True)
class ImageCopy:
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


@rule(*guard(*_both("imageSubresource-07967")), on=_BOTH)
def level_is_there(call: ImageCopy) -> Finding | None:
    """The image has the mip level."""
    if 0 <= call.mip_level < call.info.mip_levels:
        return None
    problem = f"it is {call.mip_level}, and the image has {call.info.mip_levels} mip levels"
    return f"{call.command}.mip_level", problem, "Give one of the image's levels; the first is 0."


@rule(*guard(*_both("imageSubresource-07968")), on=_BOTH)
def layer_is_there(call: ImageCopy) -> Finding | None:
    """The image has the layer."""
    if 0 <= call.array_layer < call.info.array_layers:
        return None
    problem = f"it is {call.array_layer}, and the image has {call.info.array_layers} layers"
    return f"{call.command}.array_layer", problem, "Give one of the image's layers; the first is 0."


@rule(
    *guard(
        "VkImageSubresourceLayers-aspectMask-requiredbitmask", "VkImageSubresourceLayers-aspectMask-requiredbitmask"
    ),
    on=_BOTH,
)
def aspect_is_given(call: ImageCopy) -> Finding | None:
    """An aspect is given, if the format has several."""
    if call.aspect or call.format is None:
        return None
    choice = _names(sum(call.format.copied))
    return (
        f"{call.command}.aspect",
        f"no aspect is given, and {call.format_name} has several",
        f"Pass aspect=ImageAspectFlagBits, one of {choice}; a copy takes one at a time.",
    )


@rule(*guard("VkBufferImageCopy-aspectMask-09103", "VkBufferImageCopy-aspectMask-09103"), on=_BOTH)
def one_aspect(call: ImageCopy) -> Finding | None:
    """One aspect is given: each has a place of its own in the buffer."""
    if call.aspect & (call.aspect - 1) == 0:
        return None
    return (
        f"{call.command}.aspect",
        f"it is {_names(call.aspect)}",
        "Copy one aspect at a time, with a command for each.",
    )


def _foreign_aspect(call: ImageCopy) -> Finding | None:
    facts = call.format
    if facts is None or not call.aspect or call.aspect & (call.aspect - 1) or call.aspect in facts.copied:
        return None
    return (
        f"{call.command}.aspect",
        f"it is {_names(call.aspect)}, and a copy of {call.format_name} takes {_names(sum(facts.copied))}",
        "Pass an aspect that the image's format has.",
    )


@rule(*guard(*_both("imageSubresource-09105")), on=_BOTH)
def aspect_is_the_images(call: ImageCopy) -> Finding | None:
    """The format has the aspect."""
    return None if call.format is None or call.format.planes else _foreign_aspect(call)


@rule(*guard(*_both("dstImage-07981", "srcImage-07981")), on=_BOTH)
def plane_is_the_images(call: ImageCopy) -> Finding | None:
    """The format has the plane."""
    return _foreign_aspect(call) if call.format is not None and call.format.planes else None


@rule(*guard(*_both("dstImage-07973", "srcImage-07973")), on=_BOTH)
def one_sample(call: ImageCopy) -> Finding | None:
    """The image has one sample per texel."""
    if int(call.info.samples) == 1:
        return None
    problem = f"it has {int(call.info.samples)} samples for each texel"
    return f"{call.command}.image", problem, "Resolve it to an image with one sample, and copy that."


@rule(*guard(*_both("pRegions-00171", "pRegions-00183")), on=_BOTH)
def region_lies_in_the_buffer(call: ImageCopy) -> Finding | None:
    """The buffer contains the whole region."""
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


@rule(*_both("pRegions-00173", "pRegions-00184"), on=_BOTH)
def image_and_buffer_do_not_overlap(call: ImageCopy) -> Finding | None:
    """The command does not write memory that it reads.

    Not checked for an image of several levels or layers, because their places in memory are unknown.
    """
    if call.taken is None or (call.info.mip_levels, call.info.array_layers) != (1, 1):
        return None
    image, buffer = call.places
    if not overlap(image, 0, buffer, call.buffer_offset, call.image.size, call.taken[1]):
        return None
    return (
        f"{call.command}.buffer",
        "the image and these bytes of the buffer overlap in memory",
        "Copy through a buffer in other memory.",
    )


@rule(*_both("srcBuffer-00174", "dstBuffer-00191"), on=_BOTH)
def buffer_is_for_copies(call: ImageCopy) -> Finding | None:
    """The buffer was created with the transfer usage."""
    usage = _BufferUsage.TRANSFER_SRC if call.command == TO_IMAGE.command else _BufferUsage.TRANSFER_DST
    return lacks_usage(call.buffer, int(usage), f"{call.command}.buffer")


@rule(*_both("dstImage-00177", "srcImage-00186"), on=_BOTH)
def image_is_for_copies(call: ImageCopy) -> Finding | None:
    """The image was created with the transfer usage."""
    usage = _ImageUsage.TRANSFER_DST if call.command == TO_IMAGE.command else _ImageUsage.TRANSFER_SRC
    return lacks_usage(call.image, int(usage), f"{call.command}.image")


@rule(*_both("dstImageLayout-01396", "srcImageLayout-01397"), on=_BOTH)
def copied_layout_fits(call: ImageCopy) -> Finding | None:
    """The layout is one that a transfer can read or write."""
    to_image = call.command == TO_IMAGE.command
    fit = vk.ImageLayout.TRANSFER_DST_OPTIMAL if to_image else vk.ImageLayout.TRANSFER_SRC_OPTIMAL
    return unfit_layout(call.layout, fit, call.device, f"{call.command}.layout")


def _unaligned(call: ImageCopy, unit: int, what: str) -> Finding | None:
    if call.buffer_offset % unit == 0:
        return None
    return (
        f"{call.command}.buffer_offset",
        f"it is {call.buffer_offset}, and {what} must begin at a multiple of {unit} bytes",
        f"Use an offset that is a multiple of {unit}.",
    )


@rule(*_both("dstImage-07975", "srcImage-07975"), on=_BOTH)
def texels_are_aligned(call: ImageCopy) -> Finding | None:
    """The offset is a multiple of the size of a texel block."""
    if call.taken is None or call.format is None or call.format.deep or call.format.planes:
        return None
    return _unaligned(call, call.taken[0], call.format_name)


@rule(*_both("dstImage-07976", "srcImage-07976"), on=_BOTH)
def planes_are_aligned(call: ImageCopy) -> Finding | None:
    """The offset is a multiple of the size of a texel of the plane's format."""
    if call.taken is None or call.format is None or not call.format.planes:
        return None
    return _unaligned(call, call.taken[0], f"{_names(call.aspect)} of {call.format_name}")


@rule(*_both("dstImage-07978", "srcImage-07978"), on=_BOTH)
def depth_is_aligned(call: ImageCopy) -> Finding | None:
    """The offset is a multiple of 4 for depth and stencil, whatever the size of a texel."""
    if call.format is None or not call.format.deep:
        return None
    return _unaligned(call, 4, call.format_name)


@rule(*_both("commandBuffer-07737", "commandBuffer-07746"), on=_BOTH)
def words_on_transfer_queues(call: ImageCopy) -> Finding | None:
    """The offset is a multiple of 4 on queues that support transfers only."""
    flags = call.device.queue_flags
    if flags is None or flags & CLEARING:
        return None
    return _unaligned(call, 4, f"a copy on a queue with {queue_text(flags)}")


@rule(*_both("commandBuffer-07739", "commandBuffer-10216"), on=_BOTH)
def depth_on_graphics_queues(call: ImageCopy) -> Finding | None:
    """Depth and stencil are copied on queues with GRAPHICS only."""
    flags = call.device.queue_flags
    if flags is None or flags & _GRAPHICS or not call.aspect & (DEPTH | STENCIL):
        return None
    return (
        f"{call.command}.aspect",
        f"{_names(call.aspect)} is copied on a queue with {queue_text(flags)}",
        "Use a device whose queue family has GRAPHICS.",
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
    facts, taken = format_facts(int(info.format)), None
    violations = _copied(info, mip_level, aspect)
    if violations is not None:
        taken = violations[0], violations[2]
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
        facts,
        taken,
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
