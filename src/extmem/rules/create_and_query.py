"""vkCreateBuffer and vkCreateImage for external memory, and queries of what a device can share."""

from __future__ import annotations

from typing import Any

from extmem import vk
from extmem.rules import (  # noqa: F401  # they register
    create_buffer,
    create_image,
    image_parameters,
    queue_sharing,
    sparse_and_protected,
)
from extmem.rules._conditions import all_of, is_true
from extmem.rules._creation import (
    BOTH,
    BUFFER_QUERY,
    CREATE_BUFFER,
    CREATE_IMAGE,
    FORMAT_QUERY,
    Answers,
    Create,
    chain_of,
)
from extmem.rules._enabled import CHAINED, lacks
from extmem.rules._engine import Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._handle_types import defined_types, single_type
from extmem.rules._text import bits_of, enum_text, type_mask, types_text
from extmem.rules.drm_format_modifiers import modifier_structs
from extmem.rules.facts import DeviceFacts, ImageFormatFacts
from extmem.rules.violation import Violation
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

__all__ = [
    "check_create_buffer",
    "check_create_image",
    "check_external_buffer_info",
    "check_external_image_format_info",
]


IMAGE_QUERY: Suite[Create] = Suite("vkGetPhysicalDeviceImageFormatProperties2")
_NV = "ImageCreateInfo.pNext<ExternalMemoryImageCreateInfoNV>.handle_types"


def _incompatible(call: Create) -> str:
    """Return which types the device does not report as compatible with all the others."""
    types = call.handle_types
    wrong = []
    for bit in bits_of(types):
        answer = call.answers.get(bit)
        if answer is None or not types & ~int(answer.compatible):
            continue
        if not int(answer.features):
            wrong.append(f"{types_text(bit)} is not supported for it")
        else:
            wrong.append(f"{types_text(bit)} is not compatible with {types_text(types & ~int(answer.compatible))}")
    return "; ".join(wrong)


def _nv_types(call: Create) -> int:
    return type_mask(call.nv.handle_types) if call.nv is not None else 0


def _foreign_nv_types(call: Create) -> int:
    """Return NV's handle types where the device lacks VK_NV_external_memory. With it, they are not checked."""
    return _nv_types(call) if lacks(CHAINED[vk.ExternalMemoryImageCreateInfoNV], call.device) else 0


def _shared_from_another_layout(call: Create) -> tuple[str, str] | None:
    types, layout = call.handle_types | _nv_types(call), int(call.info.initial_layout)
    if not types or layout == int(vk.ImageLayout.UNDEFINED):
        return None
    return enum_text(layout, vk.ImageLayout), types_text(types)


demand(
    BOTH,
    defined_types(
        (
            "VkExternalMemoryBufferCreateInfo-handleTypes-parameter",
            "VkExternalMemoryImageCreateInfo-handleTypes-parameter",
        ),
        "handle_types",
        "{call.where}.handle_types",
    ),
    Demand(
        ("VkBufferCreateInfo-pNext-00920", "VkImageCreateInfo-pNext-00990"),
        _incompatible,
        "{call.where}.handle_types",
        "on {call.device.name!r}: {found}",
        "Pass handle types that the device reports as compatible; a supported type alone always is.",
    ),
)
demand(
    CREATE_IMAGE,
    Demand(
        "VkImageCreateInfo-pNext-00988",
        all_of(is_true("external"), is_true("nv")),
        "ImageCreateInfo.pNext",
        "ExternalMemoryImageCreateInfo and ExternalMemoryImageCreateInfoNV are both in the chain",
        "Keep ExternalMemoryImageCreateInfo; the NV struct is its predecessor.",
    ),
    Demand(
        "VkImageCreateInfo-pNext-00991",
        _foreign_nv_types,
        _NV,
        "it is {found:#x}, and a device without VK_NV_external_memory has none of NV's handle types",
        "Chain ExternalMemoryImageCreateInfo instead.",
    ),
    Demand(
        "VkImageCreateInfo-pNext-01443",
        _shared_from_another_layout,
        "ImageCreateInfo.initial_layout",
        "it is {found[0]} for an image shared as {found[1]}",
        "Pass ImageLayout.UNDEFINED.",
    ),
)
# With handle type 0 the struct is ignored.
demand(
    IMAGE_QUERY,
    single_type(
        "VkPhysicalDeviceExternalImageFormatInfo-handleType-parameter", "handle_types", "{call.where}.handle_type"
    ),
)


def check_external_buffer_info(
    info: vk.PhysicalDeviceExternalBufferInfo, device: DeviceFacts | None = None
) -> list[Violation]:
    """Return all rules that a query about such external buffers would break.

    `device`: which versions and extensions are enabled; None if unknown.
    """
    where = "vkGetPhysicalDeviceExternalBufferProperties.info"
    violations = wrong_struct(info, vk.PhysicalDeviceExternalBufferInfo, where) or malformed(
        [("PhysicalDeviceExternalBufferInfo", info)]
    )
    if violations:
        return violations
    call = Create(info, None, MemoryHandleType(int(info.handle_type)), "", {}, device, chain=chain_of(info))
    return BUFFER_QUERY.run(call, 0)


def check_external_image_format_info(
    info: vk.PhysicalDeviceExternalImageFormatInfo | vk.PhysicalDeviceImageFormatInfo2,
    device: DeviceFacts | None = None,
) -> list[Violation]:
    """Return all rules that a query about images would break: of the struct about external memory, or the whole query.

    `device`: as for `check_external_buffer_info`.
    """
    struct = vk.PhysicalDeviceExternalImageFormatInfo
    if type(info) is struct:
        return _external_query(info, struct.__name__)
    whole = "PhysicalDeviceImageFormatInfo2"
    if type(info) is not vk.PhysicalDeviceImageFormatInfo2:
        return wrong_struct(info, vk.PhysicalDeviceImageFormatInfo2, "vkGetPhysicalDeviceImageFormatProperties2.info")
    chain = chain_of(info)
    external = next((n for n in chain if type(n) is struct), None)
    broken = _external_query(external, f"{whole}.pNext<{struct.__name__}>") if external is not None else []
    violations = malformed([(whole, info), *_named(whole, chain)])
    call = Create(info, external, NO_TYPES, "", {}, device, chain=chain)
    return broken + (violations or FORMAT_QUERY.run(call, call.traits))


def _named(base: str, chain: list[Any]) -> list[tuple[str, Any]]:
    """Return the structs that name modifiers, each with its path."""
    return [(f"{base}.pNext<{type(node).__name__}>", node) for node in modifier_structs(chain)]


def _external_query(info: vk.PhysicalDeviceExternalImageFormatInfo, where: str) -> list[Violation]:
    violations = malformed([(where, info)])
    return violations or IMAGE_QUERY.run(Create(info, info, MemoryHandleType(int(info.handle_type)), where, {}), 0)


def _create(call: Create, suite: Suite[Create], base: str, struct: type[Any]) -> list[Violation]:
    info = call.info
    call.chain = chain_of(info)
    call.external = next((n for n in call.chain if type(n) is struct), None)
    call.nv = next((n for n in call.chain if type(n) is vk.ExternalMemoryImageCreateInfoNV), None)
    call.where = f"{base}.pNext<{struct.__name__}>"
    nodes = [(base, info), *([(call.where, call.external)] if call.external is not None else [])]
    if isinstance(info, vk.ImageCreateInfo):
        nodes[1:1] = [(f"{base}.extent", info.extent), *_named(base, call.chain)]
    violations = malformed(nodes)
    if violations:
        return violations
    call.handle_types = MemoryHandleType(int(call.external.handle_types) if call.external is not None else 0)
    return suite.run(call, call.traits)


def check_create_buffer(info: vk.BufferCreateInfo, device: DeviceFacts, capabilities: Answers) -> list[Violation]:
    """Return all rules that creating this buffer would break.

    `capabilities`: what the device reports for exactly this buffer, by handle type.
    """
    violations = wrong_struct(info, vk.BufferCreateInfo, "vkCreateBuffer.info")
    call = Create(info, None, NO_TYPES, "", capabilities, device)
    return violations or _create(call, CREATE_BUFFER, "BufferCreateInfo", vk.ExternalMemoryBufferCreateInfo)


def check_create_image(
    info: vk.ImageCreateInfo, device: DeviceFacts, capabilities: Answers, answer: ImageFormatFacts | None = None
) -> list[Violation]:
    """Return all rules that creating this image would break.

    `capabilities`: what the device reports for exactly this image, by handle type. `answer`: what it reports for all of
    these handle types together; None if it was not queried.
    """
    violations = wrong_struct(info, vk.ImageCreateInfo, "vkCreateImage.info")
    call = Create(info, None, NO_TYPES, "", capabilities, device, format=answer)
    return violations or _create(call, CREATE_IMAGE, "ImageCreateInfo", vk.ExternalMemoryImageCreateInfo)
