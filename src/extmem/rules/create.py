"""Creating buffers and images for external memory, and asking the device what it can share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extmem import vk
from extmem.rules import _payload
from extmem.rules._engine import Finding, Suite, rule
from extmem.rules._shapes import malformed, wrong_struct
from extmem.rules._text import bits_of, enum_text, type_mask, types_text
from extmem.rules.facts import DeviceFacts, ExternalMemoryFacts
from extmem.rules.violation import Violation

__all__ = [
    "check_create_buffer",
    "check_create_image",
    "check_external_buffer_info",
    "check_external_image_format_info",
]

Answers = Mapping[int, ExternalMemoryFacts]
_LONGEST_CHAIN = 64


def _mask_of(enum: Any) -> int:
    mask = 0
    for member in enum:
        mask |= int(member)
    return mask


_BUFFER_USAGES = _mask_of(vk.BufferUsageFlagBits)
_BUFFER_FLAGS = _mask_of(vk.BufferCreateFlagBits)


def _chain(info: Any) -> list[Any]:
    found: list[Any] = []
    node = info.p_next
    while node is not None and len(found) < _LONGEST_CHAIN:
        found.append(node)
        node = getattr(node, "p_next", None)
    return found


@dataclass(slots=True)
class BufferQuery:
    """One vkGetPhysicalDeviceExternalBufferProperties."""

    info: vk.PhysicalDeviceExternalBufferInfo
    chain: list[Any]
    usage_is_chained: bool


BUFFER_QUERY: Suite[BufferQuery] = Suite("vkGetPhysicalDeviceExternalBufferProperties")
_QUERY = "VkPhysicalDeviceExternalBufferInfo"
_QUERY_PATH = "PhysicalDeviceExternalBufferInfo"


@rule(f"{_QUERY}-pNext-pNext", on=BUFFER_QUERY)
def only_usage_is_chained(call: BufferQuery) -> Finding | None:
    """One struct extends the query."""
    foreign = [type(n).__name__ for n in call.chain if not isinstance(n, vk.BufferUsageFlags2CreateInfo)]
    if not foreign:
        return None
    names = ", ".join(dict.fromkeys(foreign))
    return f"{_QUERY_PATH}.pNext", f"{names} does not extend a buffer query", f"Take {names} out of the chain."


@rule(f"{_QUERY}-sType-unique", on=BUFFER_QUERY)
def each_struct_once(call: BufferQuery) -> Finding | None:
    """A struct type may be in the chain once."""
    if sum(isinstance(n, vk.BufferUsageFlags2CreateInfo) for n in call.chain) < 2:
        return None
    return (
        f"{_QUERY_PATH}.pNext",
        "BufferUsageFlags2CreateInfo is in the chain more than once",
        "Keep one struct of each type.",
    )


@rule(f"{_QUERY}-flags-parameter", on=BUFFER_QUERY)
def flags_are_defined(call: BufferQuery) -> Finding | None:
    """Known bits only."""
    unknown = int(call.info.flags) & ~_BUFFER_FLAGS
    if not unknown:
        return None
    return f"{_QUERY_PATH}.flags", f"the bits {unknown:#x} are no buffer flags", "Give bits of BufferCreateFlagBits."


@rule(f"{_QUERY}-handleType-parameter", on=BUFFER_QUERY)
def query_type_is_defined(call: BufferQuery) -> Finding | None:
    """Exactly one bit that the registry knows."""
    return _payload.single_type(int(call.info.handle_type), f"{_QUERY_PATH}.handle_type", zero=False)


@rule(f"{_QUERY}-None-09499", on=BUFFER_QUERY)
def usage_is_defined(call: BufferQuery) -> Finding | None:
    """Known bits only, unless the usage is told in the chain."""
    unknown = int(call.info.usage) & ~_BUFFER_USAGES
    if call.usage_is_chained or not unknown:
        return None
    return f"{_QUERY_PATH}.usage", f"the bits {unknown:#x} are no buffer usages", "Give bits of BufferUsageFlagBits."


@rule(f"{_QUERY}-None-09500", on=BUFFER_QUERY)
def usage_is_given(call: BufferQuery) -> Finding | None:
    """A buffer without usage cannot exist, unless the usage is told in the chain."""
    if call.usage_is_chained or int(call.info.usage):
        return None
    return f"{_QUERY_PATH}.usage", "it is 0", "Say what the buffer is for: BufferUsageFlagBits.TRANSFER_SRC, say."


@dataclass(slots=True)
class Create:
    """One vkCreateBuffer or vkCreateImage, or an image format query."""

    info: Any
    external: Any
    handle_types: int
    where: str
    answers: Answers
    device: DeviceFacts | None = None
    nv: Any = None


CREATE_BUFFER: Suite[Create] = Suite("vkCreateBuffer")
CREATE_IMAGE: Suite[Create] = Suite("vkCreateImage")
IMAGE_QUERY: Suite[Create] = Suite("vkGetPhysicalDeviceImageFormatProperties2")
_BOTH = (CREATE_BUFFER, CREATE_IMAGE)


@rule(
    "VkExternalMemoryBufferCreateInfo-handleTypes-parameter",
    "VkExternalMemoryImageCreateInfo-handleTypes-parameter",
    on=_BOTH,
)
def types_are_defined(call: Create) -> Finding | None:
    """Unknown bits mean nothing to any device."""
    return _payload.defined_types(call.handle_types, f"{call.where}.handle_types")


@rule("VkBufferCreateInfo-pNext-00920", "VkImageCreateInfo-pNext-00990", on=_BOTH)
def types_are_compatible(call: Create) -> Finding | None:
    """Each type's own answer names all the others."""
    types = call.handle_types
    wrong = []
    for bit in bits_of(types):
        answer = call.answers.get(bit)
        if answer is None or not types & ~int(answer.compatible):
            continue
        if not int(answer.features):
            wrong.append(f"{types_text(bit)} is not supported for it")
        else:
            wrong.append(f"{types_text(bit)} does not go with {types_text(types & ~int(answer.compatible))}")
    if not wrong:
        return None
    name = call.device.name if call.device is not None else ""
    return (
        f"{call.where}.handle_types",
        f"on {name!r}: {'; '.join(wrong)}",
        "Ask for handle types that the device reports as compatible; one at a time always is, where supported.",
    )


@rule("VkImageCreateInfo-pNext-00988", on=CREATE_IMAGE)
def khr_or_nv(call: Create) -> Finding | None:
    """The two structs exclude one another."""
    if call.external is None or call.nv is None:
        return None
    return (
        "ImageCreateInfo.pNext",
        "ExternalMemoryImageCreateInfo and ExternalMemoryImageCreateInfoNV are both in the chain",
        "Keep ExternalMemoryImageCreateInfo; the NV struct is its predecessor.",
    )


@rule("VkImageCreateInfo-pNext-01443", on=CREATE_IMAGE)
def starts_undefined(call: Create) -> Finding | None:
    """Shared contents come by import and barrier, never by a preinitialized layout."""
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
    """One defined type; zero asks as if the struct were not there."""
    return _payload.single_type(call.handle_types, f"{call.where}.handle_type")


def check_external_buffer_info(info: vk.PhysicalDeviceExternalBufferInfo) -> list[Violation]:
    """All rules that asking about such external buffers would break."""
    where = "vkGetPhysicalDeviceExternalBufferProperties.info"
    found = wrong_struct(info, vk.PhysicalDeviceExternalBufferInfo, where) or malformed([(_QUERY_PATH, info)])
    if found:
        return found
    chain = _chain(info)
    chained = any(isinstance(n, vk.BufferUsageFlags2CreateInfo) for n in chain)
    return BUFFER_QUERY.run(BufferQuery(info, chain, chained), 0)


def check_external_image_format_info(
    info: vk.PhysicalDeviceExternalImageFormatInfo | vk.PhysicalDeviceImageFormatInfo2,
) -> list[Violation]:
    """All rules on external memory that a query would break: the struct, or the query it extends."""
    struct = vk.PhysicalDeviceExternalImageFormatInfo
    where = struct.__name__
    if type(info) is vk.PhysicalDeviceImageFormatInfo2:
        found = [n for n in _chain(info) if type(n) is struct]
        if not found:
            return []
        info, where = found[0], f"PhysicalDeviceImageFormatInfo2.pNext<{where}>"
    if type(info) is not struct:
        return wrong_struct(info, struct, where)
    return malformed([(where, info)]) or IMAGE_QUERY.run(Create(info, info, int(info.handle_type), where, {}), 0)


def _create(
    suite: Suite[Create], info: Any, device: DeviceFacts, answers: Answers, base: str, struct: type[Any]
) -> list[Violation]:
    chain = _chain(info)
    external = next((n for n in chain if type(n) is struct), None)
    nv = next((n for n in chain if type(n) is vk.ExternalMemoryImageCreateInfoNV), None)
    where = f"{base}.pNext<{struct.__name__}>"
    if external is not None:
        found = malformed([(where, external)])
        if found:
            return found
    types = int(external.handle_types) if external is not None else 0
    return suite.run(Create(info, external, types, where, answers, device, nv), 0)


def check_create_buffer(info: vk.BufferCreateInfo, device: DeviceFacts, capabilities: Answers) -> list[Violation]:
    """All rules on external memory that creating this buffer would break.

    `capabilities`: the device's answer for exactly this buffer, for each handle type that it was asked about.
    """
    struct = vk.ExternalMemoryBufferCreateInfo
    return wrong_struct(info, vk.BufferCreateInfo, "vkCreateBuffer.info") or _create(
        CREATE_BUFFER, info, device, capabilities, "BufferCreateInfo", struct
    )


def check_create_image(info: vk.ImageCreateInfo, device: DeviceFacts, capabilities: Answers) -> list[Violation]:
    """All rules on external memory that creating this image would break.

    `capabilities`: the device's answer for exactly this image, for each handle type that it was asked about.
    """
    struct = vk.ExternalMemoryImageCreateInfo
    return wrong_struct(info, vk.ImageCreateInfo, "vkCreateImage.info") or _create(
        CREATE_IMAGE, info, device, capabilities, "ImageCreateInfo", struct
    )
