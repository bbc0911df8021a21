"""vkCreateBuffer and vkCreateImage for external memory, and queries of what a device can share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extmem import vk
from extmem.rules import (  # noqa: F401  # they register
    _import_payload,
    create_buffer,
    create_image,
    image_parameters,
    queue_sharing,
    sparse_and_protected,
)
from extmem.rules._creation import BOTH, CREATE_BUFFER, CREATE_IMAGE, FORMAT_QUERY, Answers, Create, chain_of
from extmem.rules._enabled import BUFFER_FLAGS, BUFFER_USAGES, CHAINED, lacking_bits, lacks
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
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


@dataclass(slots=True)
class BufferQuery:
    """One vkGetPhysicalDeviceExternalBufferProperties."""

    info: vk.PhysicalDeviceExternalBufferInfo
    chain: list[Any]
    usage_is_chained: bool
    device: DeviceFacts | None


BUFFER_QUERY: Suite[BufferQuery] = Suite("vkGetPhysicalDeviceExternalBufferProperties")
_QUERY = "VkPhysicalDeviceExternalBufferInfo"
_QUERY_PATH = "PhysicalDeviceExternalBufferInfo"


@rule(f"{_QUERY}-pNext-pNext", on=BUFFER_QUERY)
def only_usage_is_chained(call: BufferQuery) -> Finding | None:
    """Only VkBufferUsageFlags2CreateInfo extends the query, if the device supports it."""
    needs = CHAINED[vk.BufferUsageFlags2CreateInfo]
    lacking = lacks(needs, call.device)
    foreign = [type(n).__name__ for n in call.chain if lacking or not isinstance(n, vk.BufferUsageFlags2CreateInfo)]
    if not foreign:
        return None
    names = ", ".join(dict.fromkeys(foreign))
    if lacking:
        return (
            f"{_QUERY_PATH}.pNext",
            f"{names} needs {needs.text}, which is not enabled",
            f"Take {names} out of the chain.",
        )
    return f"{_QUERY_PATH}.pNext", f"{names} does not extend a buffer query", f"Take {names} out of the chain."


@rule(f"{_QUERY}-sType-unique", on=BUFFER_QUERY)
def each_struct_once(call: BufferQuery) -> Finding | None:
    """The chain contains each struct type once."""
    if sum(isinstance(n, vk.BufferUsageFlags2CreateInfo) for n in call.chain) < 2:
        return None
    return (
        f"{_QUERY_PATH}.pNext",
        "BufferUsageFlags2CreateInfo is in the chain more than once",
        "Keep one struct of each type.",
    )


@rule(f"{_QUERY}-flags-parameter", on=BUFFER_QUERY)
def flags_are_defined(call: BufferQuery) -> Finding | None:
    """The flags are defined bits, and enabled on the device."""
    problem = lacking_bits(int(call.info.flags), vk.BufferCreateFlagBits, BUFFER_FLAGS, call.device)
    if not problem:
        return None
    return f"{_QUERY_PATH}.flags", problem, "Give bits of BufferCreateFlagBits that the device has."


@rule(f"{_QUERY}-handleType-parameter", on=BUFFER_QUERY)
def query_type_is_defined(call: BufferQuery) -> Finding | None:
    """The handle type is exactly one bit that the registry defines."""
    return _import_payload.single_type(
        MemoryHandleType(int(call.info.handle_type)), f"{_QUERY_PATH}.handle_type", zero=False
    )


@rule(f"{_QUERY}-None-09499", on=BUFFER_QUERY)
def usage_is_defined(call: BufferQuery) -> Finding | None:
    """The usage has defined and enabled bits only, unless the chain has the usage."""
    problem = lacking_bits(int(call.info.usage), vk.BufferUsageFlagBits, BUFFER_USAGES, call.device)
    if call.usage_is_chained or not problem:
        return None
    return f"{_QUERY_PATH}.usage", problem, "Give bits of BufferUsageFlagBits that the device has."


@rule(f"{_QUERY}-None-09500", on=BUFFER_QUERY)
def usage_is_given(call: BufferQuery) -> Finding | None:
    """The usage is not 0, unless the chain has the usage."""
    if call.usage_is_chained or int(call.info.usage):
        return None
    return f"{_QUERY_PATH}.usage", "it is 0", "State what the buffer is for, such as BufferUsageFlagBits.TRANSFER_SRC."


IMAGE_QUERY: Suite[Create] = Suite("vkGetPhysicalDeviceImageFormatProperties2")


@rule(
    "VkExternalMemoryBufferCreateInfo-handleTypes-parameter",
    "VkExternalMemoryImageCreateInfo-handleTypes-parameter",
    on=BOTH,
)
def types_are_defined(call: Create) -> Finding | None:
    """The handle types are defined bits."""
    return _import_payload.defined_types(call.handle_types, f"{call.where}.handle_types")


@rule("VkBufferCreateInfo-pNext-00920", "VkImageCreateInfo-pNext-00990", on=BOTH)
def types_are_compatible(call: Create) -> Finding | None:
    """The device reports each type as compatible with all the others."""
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
    if not wrong:
        return None
    name = call.device.name if call.device is not None else ""
    return (
        f"{call.where}.handle_types",
        f"on {name!r}: {'; '.join(wrong)}",
        "Pass handle types that the device reports as compatible; a supported type alone always is.",
    )


@rule("VkImageCreateInfo-pNext-00988", on=CREATE_IMAGE)
def khr_or_nv(call: Create) -> Finding | None:
    """The chain does not contain both structs."""
    if call.external is None or call.nv is None:
        return None
    return (
        "ImageCreateInfo.pNext",
        "ExternalMemoryImageCreateInfo and ExternalMemoryImageCreateInfoNV are both in the chain",
        "Keep ExternalMemoryImageCreateInfo; the NV struct is its predecessor.",
    )


@rule("VkImageCreateInfo-pNext-00991", on=CREATE_IMAGE)
def nv_types_are_compatible(call: Create) -> Finding | None:
    """Without VK_NV_external_memory the device supports none of NV's handle types. With it, they are not checked."""
    types = type_mask(call.nv.handle_types) if call.nv is not None else 0
    if not types or not lacks(CHAINED[vk.ExternalMemoryImageCreateInfoNV], call.device):
        return None
    return (
        "ImageCreateInfo.pNext<ExternalMemoryImageCreateInfoNV>.handle_types",
        f"it is {types:#x}, and a device without VK_NV_external_memory has none of NV's handle types",
        "Chain ExternalMemoryImageCreateInfo instead.",
    )


@rule("VkImageCreateInfo-pNext-01443", on=CREATE_IMAGE)
def starts_undefined(call: Create) -> Finding | None:
    """An image for external memory is created in the layout UNDEFINED."""
    types = call.handle_types | (type_mask(call.nv.handle_types) if call.nv is not None else 0)
    layout = type_mask(call.info.initial_layout)
    if not types or layout == int(vk.ImageLayout.UNDEFINED):
        return None
    return (
        "ImageCreateInfo.initial_layout",
        f"it is {enum_text(layout, vk.ImageLayout)} for an image shared as {types_text(types)}",
        "Pass ImageLayout.UNDEFINED.",
    )


@rule("VkPhysicalDeviceExternalImageFormatInfo-handleType-parameter", on=IMAGE_QUERY)
def image_query_type_is_defined(call: Create) -> Finding | None:
    """The handle type is one defined type, or zero, with which the struct is ignored."""
    return _import_payload.single_type(call.handle_types, f"{call.where}.handle_type")


def check_external_buffer_info(
    info: vk.PhysicalDeviceExternalBufferInfo, device: DeviceFacts | None = None
) -> list[Violation]:
    """Return all rules that a query about such external buffers would break.

    `device`: which versions and extensions are enabled; None if unknown.
    """
    where = "vkGetPhysicalDeviceExternalBufferProperties.info"
    violations = wrong_struct(info, vk.PhysicalDeviceExternalBufferInfo, where) or malformed([(_QUERY_PATH, info)])
    if violations:
        return violations
    chain = chain_of(info)
    chained = any(isinstance(n, vk.BufferUsageFlags2CreateInfo) for n in chain)
    return BUFFER_QUERY.run(BufferQuery(info, chain, chained, device), 0)


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
    return broken + (violations or FORMAT_QUERY.run(Create(info, external, NO_TYPES, "", {}, device, chain=chain), 0))


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
    if call.external is not None:
        call.handle_types = MemoryHandleType(int(call.external.handle_types))
    return suite.run(call, 0)


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
