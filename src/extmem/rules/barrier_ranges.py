"""The range of a barrier: bytes of a buffer; levels, layers and aspects of an image; and the layouts of the image.

How this works: these checks run in the suites of `barriers`, for the first version of the structures. They need facts
of the resource that the barrier names, and report nothing if there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from extmem import vk
from extmem.rules._conditions import all_of, is_zero, not_index, not_one_of, reaches_past
from extmem.rules._engine import Demand, demand
from extmem.rules._text import bits_of, enum_text, flags_text
from extmem.rules.barriers import BUFFER, IMAGE, Barrier, Traits
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


_UNMODIFIED = "VK_EXT_external_memory_acquire_unmodified"


def _foreign_struct(call: Barrier) -> tuple[str, str] | None:
    """Only VkExternalMemoryAcquireUnmodifiedEXT may be chained, if its extension is enabled."""
    link, enabled = call.info.p_next, call.device.extensions
    if link is None:
        return None
    name = type(link).__name__
    if type(link) is not vk.ExternalMemoryAcquireUnmodifiedEXT:
        return f"{name} does not extend a barrier", f"Take {name} out of the chain."
    if link.p_next is not None:
        return f"something is chained to {name}", f"End the chain with {name}."
    if enabled is None or _UNMODIFIED in enabled:
        return None
    return f"{name} needs {_UNMODIFIED}, which is not enabled", "Take it out of the chain."


# Levels and layers: the fields of the range, the field of the create info, and the word for messages.
_Part = tuple[str, str, str, str]
_LEVELS: _Part = ("base_mip_level", "level_count", "mip_levels", "mip levels")
_LAYERS: _Part = ("base_array_layer", "layer_count", "array_layers", "layers")
_SUBRESOURCE = "info.subresource_range"


def _begins_inside(vuid: str, part: _Part) -> Demand:
    first, _, count, word = part
    return Demand(
        guard(vuid),
        not_index(f"{_SUBRESOURCE}.{first}", f"resource.create_info.{count}"),
        f"{{call.where}}.subresource_range.{first}",
        f"it is {{call.{_SUBRESOURCE}.{first}:d}}, and the image has {{call.resource.create_info.{count}:d}} {word}",
        f"Begin with one of the image's {word}.",
        needs=Traits.KNOWN,
    )


def _covers_something(vuid: str, part: _Part) -> Demand:
    _, number, _, word = part
    return Demand(
        guard(vuid),
        is_zero(f"{_SUBRESOURCE}.{number}"),
        f"{{call.where}}.subresource_range.{number}",
        "it is 0",
        f"Give a number of {word}, or 0xFFFFFFFF for all that remain.",
        needs=Traits.KNOWN,
    )


def _ends_inside(vuid: str, part: _Part) -> Demand:
    first, number, count, word = part
    base, length, end = f"{_SUBRESOURCE}.{first}", f"{_SUBRESOURCE}.{number}", f"resource.create_info.{count}"
    return Demand(
        guard(vuid),
        all_of(not_one_of(length, (_REMAINING,)), reaches_past(base, length, end)),
        f"{{call.where}}.subresource_range.{number}",
        f"{{call.{length}:d}} {word} from {{call.{base}:d}} on reach outside the image's {{call.{end}:d}}",
        "Give 0xFFFFFFFF for all that remain.",
        needs=Traits.KNOWN,
    )


demand(
    BUFFER,
    Demand(
        guard("VkBufferMemoryBarrier-offset-01187"),
        not_index("info.offset", "resource.create_info.size"),
        "{call.where}.offset",
        "it is {call.info.offset:d}, outside the buffer of {call.resource.create_info.size:d} bytes",
        "Begin inside the buffer.",
        needs=Traits.KNOWN,
    ),
    Demand(
        guard("VkBufferMemoryBarrier-size-01188"),
        is_zero("info.size"),
        "{call.where}.size",
        "it is 0",
        "Give a number of bytes, or WHOLE_SIZE for all up to the end.",
        needs=Traits.KNOWN,
    ),
    Demand(
        guard("VkBufferMemoryBarrier-size-01189"),
        all_of(
            not_one_of("info.size", (_WHOLE,)), reaches_past("info.offset", "info.size", "resource.create_info.size")
        ),
        "{call.where}.size",
        "{call.info.size:d} bytes from offset {call.info.offset:d} reach outside the buffer of "
        "{call.resource.create_info.size:d} bytes",
        "Give WHOLE_SIZE for all up to the end.",
        needs=Traits.KNOWN,
    ),
)
demand(
    (BUFFER, IMAGE),
    Demand(
        guard("VkBufferMemoryBarrier-pNext-pNext", "VkImageMemoryBarrier-pNext-pNext"),
        _foreign_struct,
        "{call.where}.pNext",
        "{found[0]}",
        "{found[1]}",
    ),
)
_RANGE = "VkImageMemoryBarrier-subresourceRange"
demand(
    IMAGE,
    _begins_inside(f"{_RANGE}-01486", _LEVELS),
    _begins_inside(f"{_RANGE}-01488", _LAYERS),
    _ends_inside(f"{_RANGE}-01724", _LEVELS),
    _ends_inside(f"{_RANGE}-01725", _LAYERS),
    _covers_something("VkImageSubresourceRange-levelCount-01720", _LEVELS),
    _covers_something("VkImageSubresourceRange-layerCount-01721", _LAYERS),
)


# Images: aspects. Each function returns the right aspects if those of the range are wrong, else 0.


def _no_aspect(aspects: int, facts: FormatFacts, _call: Barrier) -> int:
    return 0 if aspects else facts.whole


def _not_of_the_format(aspects: int, facts: FormatFacts, _call: Barrier) -> int:
    return facts.whole if aspects & ~(facts.whole | sum(PLANES[: len(facts.planes)])) else 0


def _not_color_alone(aspects: int, facts: FormatFacts, _call: Barrier) -> int:
    """The range of a color image in one plane has the aspect COLOR and no other."""
    return 0 if facts.deep or facts.planes or aspects in (0, COLOR) else COLOR


def _not_all_planes(aspects: int, facts: FormatFacts, call: Barrier) -> int:
    """The range of an image whose planes are bound together covers all planes."""
    disjoint = call.resource is not None and int(call.resource.create_info.flags) & _DISJOINT
    return 0 if not facts.planes or disjoint or aspects in (0, COLOR) else COLOR


def _not_both(aspects: int, facts: FormatFacts, call: Barrier) -> int:
    """The range has depth and stencil, unless the feature separateDepthStencilLayouts is enabled."""
    features, both = call.device.features, DEPTH | STENCIL
    if features is None or "separateDepthStencilLayouts" in features or facts.whole != both:
        return 0
    return both if aspects and aspects & both != both else 0


def _not_depth(aspects: int, facts: FormatFacts, _call: Barrier) -> int:
    return DEPTH if facts.whole == DEPTH and aspects not in (0, DEPTH) else 0


def _not_stencil(aspects: int, facts: FormatFacts, _call: Barrier) -> int:
    return STENCIL if facts.whole == STENCIL and aspects not in (0, STENCIL) else 0


def _aspects(vuids: str | tuple[str, ...], right: Callable[[int, FormatFacts, Barrier], int]) -> Demand:
    """Return the row that the range has aspects for which `right` returns 0."""

    def broken(call: Barrier) -> tuple[str, str, str] | None:
        info = call.resource.create_info if call.resource is not None else None
        number = int(info.format) if isinstance(info, vk.ImageCreateInfo) else 0
        facts, given = format_facts(number), int(call.info.subresource_range.aspect_mask)
        aspects = right(given, facts, call) if facts is not None else 0
        return (flags_text(given, _Aspect), format_name(number), flags_text(aspects, _Aspect)) if aspects else None

    return Demand(
        vuids,
        broken,
        "{call.where}.subresource_range.aspect_mask",
        "it is {found[0]} for an image of {found[1]}",
        "Pass {found[2]}.",
        needs=Traits.FORMAT,
    )


demand(
    IMAGE,
    _aspects("VkImageSubresourceRange-aspectMask-requiredbitmask", _no_aspect),
    _aspects(guard(f"{_RANGE}-09601"), _not_of_the_format),
    _aspects("VkImageMemoryBarrier-image-09241", _not_color_alone),
    _aspects("VkImageMemoryBarrier-image-09242", _not_all_planes),
    _aspects("VkImageMemoryBarrier-image-03320", _not_both),
    _aspects("VkImageMemoryBarrier-image-10749", _not_depth),
    _aspects("VkImageMemoryBarrier-image-10750", _not_stencil),
)


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
_NO_ENDS = (int(_Layout.UNDEFINED), int(_Layout.PREINITIALIZED), int(_Layout.ZERO_INITIALIZED_EXT))


def _ignored(call: Barrier) -> bool:
    """Return whether the layouts are ignored: with synchronization2, if neither layout nor owner changes."""
    same = call.src == call.dst and int(call.info.old_layout) == int(call.info.new_layout)
    return same and call.device.synchronization2 is not False


def _field_in(call: Barrier, layouts: Container[int]) -> tuple[str, str] | None:
    """Return the first of the two fields that has one of these layouts, and the layout's name."""
    for field in ("old_layout", "new_layout"):
        layout = int(getattr(call.info, field))
        if layout in layouts:
            return field, enum_text(layout, _Layout)
    return None


def _defined(side: str) -> Demand:
    """Return the row that the registry defines the layout, and that its extension is enabled."""
    field = f"{side}_layout"

    def broken(call: Barrier) -> str:
        layout, enabled = int(getattr(call.info, field)), call.device.extensions
        needed = _WITH.get(_Layout(layout)) if layout in _KNOWN else None
        if layout in _KNOWN and (needed is None or enabled is None or needed in enabled):
            return ""
        return f"{enum_text(layout, _Layout)} needs {needed}, which is not enabled" if needed else f"it is {layout}"

    return Demand(
        f"VkImageMemoryBarrier-{side}Layout-parameter",
        broken,
        f"{{call.where}}.{field}",
        "{found}",
        "Pass a value of ImageLayout that the device supports, such as GENERAL.",
    )


def _combined(tail: str, field: str) -> Demand:
    """Return the row that the layouts without an aspect are used with synchronization2 alone."""

    def broken(call: Barrier) -> str:
        layout = int(getattr(call.info, field))
        return enum_text(layout, _Layout) if call.device.synchronization2 is False and layout in _ONE_NAME else ""

    return Demand(
        f"VkImageMemoryBarrier-synchronization2-{tail}",
        broken,
        f"{{call.where}}.{field}",
        "it is {found}, and synchronization2 is not enabled",
        "Pass the layout for the image's aspect, or GENERAL.",
    )


def _created_for(tail: str, layout: vk.ImageLayout, usage: int) -> Demand:
    """Return the row that the image was created with the usage that the layout requires."""
    needed = " or ".join(_Usage(bit).name or hex(bit) for bit in bits_of(usage))

    def broken(call: Barrier) -> tuple[str, str] | None:
        if call.resource is None or _ignored(call) or int(call.resource.create_info.usage) & usage:
            return None
        return _field_in(call, (int(layout),))

    return Demand(
        f"VkImageMemoryBarrier-{tail}",
        broken,
        "{call.where}.{found[0]}",
        f"it is {layout.name}, and the image was created without usage {needed}",
        f"Create the image with usage {needed}, or pass another layout.",
        needs=Traits.KNOWN,
    )


def _ends_in_no_layout(call: Barrier) -> str:
    """A barrier cannot change an image to one of three layouts."""
    layout = int(call.info.new_layout)
    return enum_text(layout, _Layout) if layout in _NO_ENDS and not _ignored(call) else ""


def _of_one_aspect(tail: str, aspect: int, wrong: tuple[vk.ImageLayout, vk.ImageLayout]) -> Demand:
    """Return the row that a layout for one aspect is not used for a range with the other aspect."""

    def broken(call: Barrier) -> tuple[str, str, str] | None:
        given = int(call.info.subresource_range.aspect_mask)
        found = _field_in(call, wrong) if given & aspect else None
        return (*found, flags_text(given, _Aspect)) if found is not None else None

    return Demand(
        f"VkImageMemoryBarrier-aspectMask-{tail}",
        broken,
        "{call.where}.{found[0]}",
        "it is {found[1]}, for a range with {found[2]}",
        "Pass a layout for all aspects of the range.",
        needs=Traits.KNOWN,
    )


demand(
    IMAGE,
    Demand(
        "VkImageMemoryBarrier-newLayout-01198",
        _ends_in_no_layout,
        "{call.where}.new_layout",
        "it is {found}",
        "Pass a layout in which the image is used, such as GENERAL.",
        needs=Traits.KNOWN,
    ),
    _defined("old"),
    _defined("new"),
    _combined("07793", "old_layout"),
    _combined("07794", "new_layout"),
    *(_created_for(tail, layout, usage) for layout, (tail, usage) in _NEEDED.items()),
    _of_one_aspect("08702", DEPTH, (_Layout.STENCIL_ATTACHMENT_OPTIMAL, _Layout.STENCIL_READ_ONLY_OPTIMAL)),
    _of_one_aspect("08703", STENCIL, (_Layout.DEPTH_ATTACHMENT_OPTIMAL, _Layout.DEPTH_READ_ONLY_OPTIMAL)),
)
