"""The range of a barrier: bytes of a buffer; levels, layers and aspects of an image; and the layouts of the image.

How this works: these checks run in the suites of `barriers`, for the first version of the structures. They need facts
of the resource that the barrier names, and report nothing if there are none.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._engine import Check, Finding, rule
from extmem.rules._text import bits_of, enum_text
from extmem.rules.barriers import BUFFER, IMAGE, Barrier
from extmem.rules.transfer_commands import guard
from extmem.vk.formats import COLOR, DEPTH, PLANES, STENCIL, FormatFacts, format_facts, format_name

__all__ = ["whole_range"]

_Aspect, _Layout, _Usage = vk.ImageAspectFlagBits, vk.ImageLayout, vk.ImageUsageFlagBits
_WHOLE = int(vk.WHOLE_SIZE)
_REMAINING = 0xFFFF_FFFF
_DISJOINT = int(vk.ImageCreateFlagBits.DISJOINT)


def whole_range(info: vk.ImageCreateInfo) -> vk.ImageSubresourceRange:
    """Return the range of a barrier over a whole image: every aspect of its format, every level and layer."""
    facts = format_facts(int(info.format))
    return vk.ImageSubresourceRange(_Aspect(facts.whole if facts else COLOR), 0, _REMAINING, 0, _REMAINING)


# Buffers.


def _buffer_size(call: Barrier) -> int | None:
    info = call.resource.create_info if call.resource is not None else None
    return int(info.size) if isinstance(info, vk.BufferCreateInfo) else None


@rule(*guard("VkBufferMemoryBarrier-offset-01187"), on=BUFFER)
def begins_inside(call: Barrier) -> Finding | None:
    """The first byte is inside the buffer."""
    size, offset = _buffer_size(call), int(call.info.offset)
    if size is None or offset < size:
        return None
    return f"{call.where}.offset", f"it is {offset}, outside the buffer of {size} bytes", "Begin inside the buffer."


@rule(*guard("VkBufferMemoryBarrier-size-01188"), on=BUFFER)
def covers_something(call: Barrier) -> Finding | None:
    """The size is not 0."""
    if call.resource is None or int(call.info.size):
        return None
    return f"{call.where}.size", "it is 0", "Give a number of bytes, or WHOLE_SIZE for all up to the end."


@rule(*guard("VkBufferMemoryBarrier-size-01189"), on=BUFFER)
def ends_inside(call: Barrier) -> Finding | None:
    """The last byte is inside the buffer."""
    size, offset, count = _buffer_size(call), int(call.info.offset), int(call.info.size)
    if size is None or count == _WHOLE or offset >= size or offset + count <= size:
        return None
    return (
        f"{call.where}.size",
        f"{count} bytes from offset {offset} reach outside the buffer of {size} bytes",
        "Give WHOLE_SIZE for all up to the end.",
    )


# The pNext chain.

_UNMODIFIED = "VK_EXT_external_memory_acquire_unmodified"


@rule(*guard("VkBufferMemoryBarrier-pNext-pNext", "VkImageMemoryBarrier-pNext-pNext"), on=(BUFFER, IMAGE))
def chain_extends_it(call: Barrier) -> Finding | None:
    """Only VkExternalMemoryAcquireUnmodifiedEXT may be chained, if its extension is enabled."""
    link, enabled = call.info.p_next, call.device.extensions
    if link is None:
        return None
    name = type(link).__name__
    if type(link) is not vk.ExternalMemoryAcquireUnmodifiedEXT:
        return f"{call.where}.pNext", f"{name} does not extend a barrier", f"Take {name} out of the chain."
    if link.p_next is not None:
        return f"{call.where}.pNext", f"something is chained to {name}", f"End the chain with {name}."
    if enabled is None or _UNMODIFIED in enabled:
        return None
    return f"{call.where}.pNext", f"{name} needs {_UNMODIFIED}, which is not enabled", "Take it out of the chain."


# Images: levels and layers.


def _image(call: Barrier) -> vk.ImageCreateInfo | None:
    info = call.resource.create_info if call.resource is not None else None
    return info if isinstance(info, vk.ImageCreateInfo) else None


def _first(field: str, count_field: str, word: str) -> Check[Barrier]:
    """Make the check that the first level or layer exists in the image."""

    def check(call: Barrier) -> Finding | None:
        info = _image(call)
        if info is None:
            return None
        first, count = int(getattr(call.info.subresource_range, field)), int(getattr(info, count_field))
        if first < count:
            return None
        path = f"{call.where}.subresource_range.{field}"
        return path, f"it is {first}, and the image has {count} {word}", f"Begin with one of the image's {word}."

    return check


def _some(number_field: str, word: str) -> Check[Barrier]:
    """Make the check that the number of levels or layers is not 0."""

    def check(call: Barrier) -> Finding | None:
        if _image(call) is None or int(getattr(call.info.subresource_range, number_field)):
            return None
        path = f"{call.where}.subresource_range.{number_field}"
        return path, "it is 0", f"Give a number of {word}, or 0xFFFFFFFF for all that remain."

    return check


def _last(field: str, number_field: str, count_field: str, word: str) -> Check[Barrier]:
    """Make the check that the last level or layer exists in the image."""

    def check(call: Barrier) -> Finding | None:
        info = _image(call)
        if info is None:
            return None
        part = call.info.subresource_range
        first, number, count = (
            int(getattr(part, field)),
            int(getattr(part, number_field)),
            int(getattr(info, count_field)),
        )
        if number == _REMAINING or first >= count or first + number <= count:
            return None
        return (
            f"{call.where}.subresource_range.{number_field}",
            f"{number} {word} from {first} on reach outside the image's {count}",
            "Give 0xFFFFFFFF for all that remain.",
        )

    return check


_LEVELS, _LAYERS = ("base_mip_level", "level_count", "mip_levels"), ("base_array_layer", "layer_count", "array_layers")
_RANGE = "VkImageMemoryBarrier-subresourceRange"
rule(*guard(f"{_RANGE}-01486"), on=IMAGE)(_first(_LEVELS[0], _LEVELS[2], "mip levels"))
rule(*guard(f"{_RANGE}-01488"), on=IMAGE)(_first(_LAYERS[0], _LAYERS[2], "layers"))
rule(*guard(f"{_RANGE}-01724"), on=IMAGE)(_last(*_LEVELS, "mip levels"))
rule(*guard(f"{_RANGE}-01725"), on=IMAGE)(_last(*_LAYERS, "layers"))
rule(*guard("VkImageSubresourceRange-levelCount-01720"), on=IMAGE)(_some(_LEVELS[1], "mip levels"))
rule(*guard("VkImageSubresourceRange-layerCount-01721"), on=IMAGE)(_some(_LAYERS[1], "layers"))


# Images: aspects.


def _names(aspects: int) -> str:
    return " | ".join(_Aspect(bit).name or hex(bit) for bit in bits_of(aspects)) or "0"


def _format(call: Barrier) -> tuple[vk.ImageCreateInfo, FormatFacts] | None:
    info = _image(call)
    facts = format_facts(int(info.format)) if info is not None else None
    return (info, facts) if info is not None and facts is not None else None


def _aspects(call: Barrier) -> int:
    return int(call.info.subresource_range.aspect_mask)


def _wrong_aspects(call: Barrier, info: vk.ImageCreateInfo, right: int) -> Finding:
    return (
        f"{call.where}.subresource_range.aspect_mask",
        f"it is {_names(_aspects(call))} for an image of {format_name(int(info.format))}",
        f"Pass {_names(right)}.",
    )


@rule("VkImageSubresourceRange-aspectMask-requiredbitmask", on=IMAGE)
def names_an_aspect(call: Barrier) -> Finding | None:
    """The range has an aspect."""
    image_format = _format(call)
    return (
        None if image_format is None or _aspects(call) else _wrong_aspects(call, image_format[0], image_format[1].whole)
    )


@rule(*guard(f"{_RANGE}-09601"), on=IMAGE)
def aspects_are_the_formats(call: Barrier) -> Finding | None:
    """The format has all aspects of the range."""
    image_format = _format(call)
    if image_format is None:
        return None
    info, facts = image_format
    wrong = _aspects(call) & ~(facts.whole | sum(PLANES[: len(facts.planes)]))
    return _wrong_aspects(call, info, facts.whole) if wrong else None


@rule("VkImageMemoryBarrier-image-09241", on=IMAGE)
def color_in_one_plane(call: Barrier) -> Finding | None:
    """The range of a color image in one plane has the aspect COLOR and no other."""
    image_format = _format(call)
    if image_format is None or image_format[1].deep or image_format[1].planes or _aspects(call) in (0, COLOR):
        return None
    return _wrong_aspects(call, image_format[0], COLOR)


@rule("VkImageMemoryBarrier-image-09242", on=IMAGE)
def planes_that_are_joined(call: Barrier) -> Finding | None:
    """The range of an image whose planes are bound together covers all planes."""
    image_format = _format(call)
    if (
        image_format is None
        or not image_format[1].planes
        or int(image_format[0].flags) & _DISJOINT
        or _aspects(call) in (0, COLOR)
    ):
        return None
    return _wrong_aspects(call, image_format[0], COLOR)


@rule("VkImageMemoryBarrier-image-03320", on=IMAGE)
def depth_with_stencil(call: Barrier) -> Finding | None:
    """The range has both aspects, unless the feature separateDepthStencilLayouts is enabled."""
    image_format, features = _format(call), call.device.features
    if image_format is None or features is None or "separateDepthStencilLayouts" in features or not _aspects(call):
        return None
    both = DEPTH | STENCIL
    return (
        _wrong_aspects(call, image_format[0], both)
        if image_format[1].whole == both and _aspects(call) & both != both
        else None
    )


def _alone(aspect: int) -> Check[Barrier]:
    def check(call: Barrier) -> Finding | None:
        image_format = _format(call)
        if image_format is None or image_format[1].whole != aspect or _aspects(call) in (0, aspect):
            return None
        return _wrong_aspects(call, image_format[0], aspect)

    return check


rule("VkImageMemoryBarrier-image-10749", on=IMAGE)(_alone(DEPTH))
rule("VkImageMemoryBarrier-image-10750", on=IMAGE)(_alone(STENCIL))


# Images: layouts.

_DEEP = int(_Usage.DEPTH_STENCIL_ATTACHMENT)
_LOOKED_AT = int(_Usage.SAMPLED | _Usage.INPUT_ATTACHMENT)
_NEEDED: dict[vk.ImageLayout, tuple[str, int]] = {
    _Layout.COLOR_ATTACHMENT_OPTIMAL: ("oldLayout-01208", int(_Usage.COLOR_ATTACHMENT)),
    _Layout.DEPTH_STENCIL_ATTACHMENT_OPTIMAL: ("oldLayout-01209", _DEEP),
    _Layout.DEPTH_STENCIL_READ_ONLY_OPTIMAL: ("oldLayout-01210", _DEEP),
    _Layout.SHADER_READ_ONLY_OPTIMAL: ("oldLayout-01211", _LOOKED_AT),
    _Layout.TRANSFER_SRC_OPTIMAL: ("oldLayout-01212", int(_Usage.TRANSFER_SRC)),
    _Layout.TRANSFER_DST_OPTIMAL: ("oldLayout-01213", int(_Usage.TRANSFER_DST)),
    _Layout.DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL: ("oldLayout-01658", _DEEP),
    _Layout.DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL: ("oldLayout-01659", _DEEP),
    _Layout.DEPTH_READ_ONLY_OPTIMAL: ("srcQueueFamilyIndex-04065", _DEEP | _LOOKED_AT),
    _Layout.DEPTH_ATTACHMENT_OPTIMAL: ("srcQueueFamilyIndex-04066", _DEEP),
    _Layout.STENCIL_READ_ONLY_OPTIMAL: ("srcQueueFamilyIndex-04067", _DEEP | _LOOKED_AT),
    _Layout.STENCIL_ATTACHMENT_OPTIMAL: ("srcQueueFamilyIndex-04068", _DEEP),
}
"""The usage that an image must have been created with to be in a layout, and the rule that requires it."""
_ONE_NAME = (int(_Layout.ATTACHMENT_OPTIMAL), int(_Layout.READ_ONLY_OPTIMAL))
_VIDEO = "VK_KHR_video_queue"
_WITH: dict[vk.ImageLayout, str] = {
    _Layout.PRESENT_SRC_KHR: "VK_KHR_swapchain",
    _Layout.SHARED_PRESENT_KHR: "VK_KHR_shared_presentable_image",
    _Layout.FRAGMENT_SHADING_RATE_ATTACHMENT_OPTIMAL_KHR: "VK_KHR_fragment_shading_rate",
    _Layout.FRAGMENT_DENSITY_MAP_OPTIMAL_EXT: "VK_EXT_fragment_density_map",
    _Layout.RENDERING_LOCAL_READ: "VK_KHR_dynamic_rendering_local_read",
    _Layout.ATTACHMENT_FEEDBACK_LOOP_OPTIMAL_EXT: "VK_EXT_attachment_feedback_loop_layout",
    _Layout.TENSOR_ALIASING_ARM: "VK_ARM_tensors",
    _Layout.ZERO_INITIALIZED_EXT: "VK_EXT_zero_initialize_device_memory",
    **{layout: _VIDEO for layout in _Layout if layout.name.startswith("VIDEO_")},
}
"""Layouts that need an extension. Their further requirements are not checked."""
_KNOWN = frozenset(int(layout) for layout in _Layout)


def _ignored(call: Barrier) -> bool:
    """Return whether the layouts are ignored: with synchronization2, if neither layout nor owner changes."""
    same = call.src == call.dst and int(call.info.old_layout) == int(call.info.new_layout)
    return same and call.device.synchronization2 is not False


def _defined(field: str) -> Check[Barrier]:
    """Make the check that the registry defines the layout, and that its extension is enabled."""

    def check(call: Barrier) -> Finding | None:
        layout, enabled = int(getattr(call.info, field)), call.device.extensions
        needed = _WITH.get(_Layout(layout)) if layout in _KNOWN else None
        if layout in _KNOWN and (needed is None or enabled is None or needed in enabled):
            return None
        why = f"{enum_text(layout, _Layout)} needs {needed}, which is not enabled" if needed else f"it is {layout}"
        return f"{call.where}.{field}", why, "Pass a value of ImageLayout that the device supports, such as GENERAL."

    return check


def _combined(field: str) -> Check[Barrier]:
    """Make the check that the layouts without an aspect are used with synchronization2 alone."""

    def check(call: Barrier) -> Finding | None:
        layout = int(getattr(call.info, field))
        if call.device.synchronization2 is not False or layout not in _ONE_NAME:
            return None
        problem = f"it is {enum_text(layout, _Layout)}, and synchronization2 is not enabled"
        return f"{call.where}.{field}", problem, "Pass the layout for the image's aspect, or GENERAL."

    return check


def _created_for(layout: vk.ImageLayout, usage: int) -> Check[Barrier]:
    """Make the check that the image was created with the usage that the layout requires."""

    def check(call: Barrier) -> Finding | None:
        info = _image(call)
        if info is None or _ignored(call) or int(info.usage) & usage:
            return None
        for field in ("old_layout", "new_layout"):
            if int(getattr(call.info, field)) == layout:
                needed = " or ".join(_Usage(bit).name or hex(bit) for bit in bits_of(usage))
                problem = f"it is {layout.name}, and the image was created without usage {needed}"
                return (
                    f"{call.where}.{field}",
                    problem,
                    f"Create the image with usage {needed}, or pass another layout.",
                )
        return None

    return check


@rule("VkImageMemoryBarrier-newLayout-01198", on=IMAGE)
def ends_in_a_layout(call: Barrier) -> Finding | None:
    """A barrier cannot change an image to UNDEFINED, PREINITIALIZED or ZERO_INITIALIZED."""
    layout = int(call.info.new_layout)
    none = (int(_Layout.UNDEFINED), int(_Layout.PREINITIALIZED), int(_Layout.ZERO_INITIALIZED_EXT))
    if call.resource is None or layout not in none or _ignored(call):
        return None
    return (
        f"{call.where}.new_layout",
        f"it is {enum_text(layout, _Layout)}",
        "Pass a layout in which the image is used, such as GENERAL.",
    )


def _of_one_aspect(aspect: int, wrong: tuple[vk.ImageLayout, vk.ImageLayout]) -> Check[Barrier]:
    """Make the check that a layout for one aspect is not used for a range with the other aspect."""

    def check(call: Barrier) -> Finding | None:
        if call.resource is None or not _aspects(call) & aspect:
            return None
        for field in ("old_layout", "new_layout"):
            layout = int(getattr(call.info, field))
            if layout in wrong:
                problem = f"it is {enum_text(layout, _Layout)}, for a range with {_names(_aspects(call))}"
                return f"{call.where}.{field}", problem, "Pass a layout for all aspects of the range."
        return None

    return check


for _side in ("old", "new"):
    rule(f"VkImageMemoryBarrier-{_side}Layout-parameter", on=IMAGE)(_defined(f"{_side}_layout"))
rule("VkImageMemoryBarrier-synchronization2-07793", on=IMAGE)(_combined("old_layout"))
rule("VkImageMemoryBarrier-synchronization2-07794", on=IMAGE)(_combined("new_layout"))
for _layout, (_tail, _usage) in _NEEDED.items():
    rule(f"VkImageMemoryBarrier-{_tail}", on=IMAGE)(_created_for(_layout, _usage))
_OF_STENCIL = (_Layout.STENCIL_ATTACHMENT_OPTIMAL, _Layout.STENCIL_READ_ONLY_OPTIMAL)
_OF_DEPTH = (_Layout.DEPTH_ATTACHMENT_OPTIMAL, _Layout.DEPTH_READ_ONLY_OPTIMAL)
rule("VkImageMemoryBarrier-aspectMask-08702", on=IMAGE)(_of_one_aspect(DEPTH, _OF_STENCIL))
rule("VkImageMemoryBarrier-aspectMask-08703", on=IMAGE)(_of_one_aspect(STENCIL, _OF_DEPTH))
