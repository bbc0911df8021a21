"""Facts for the rules: what the device supports, and the resources that were created on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from extmem import rules, vk
from extmem.core import arguments, image_queries
from extmem.core.device_facts import chained_structs, external_facts, external_types
from extmem.core.device_state import DeviceState
from extmem.devices.resources import Requirements
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType, union
from extmem.vk.value_text import bits_of

__all__ = [
    "TRANSFER",
    "Sharing",
    "buffer_capabilities",
    "buffer_facts",
    "image_facts",
    "sharing",
    "transfer_capability",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits
TRANSFER = int(vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST)
"""The usage of a buffer for copies."""


class Sharing(msgspec.Struct, frozen=True):
    """What a device supports for a set of external handle types and transfer buffers."""

    capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts]
    """The device's answer for each type."""
    exportable: MemoryHandleType
    """The types that it can export."""
    dedicated_only: MemoryHandleType
    """The types that it can share only as dedicated allocations."""


def sharing(device: DeviceState, handle_types: MemoryHandleType) -> Sharing:
    """Return what the device supports for these types. The answers are cached, because they do not change."""
    cached: Sharing | None = device.sharing.get(handle_types)
    if cached is None:
        answers = {bit: transfer_capability(device, bit) for bit in bits_of(handle_types)}
        masks = (
            union(*(bit for bit, answer in answers.items() if answer.features & feature))
            for feature in (_Feature.EXPORTABLE, _Feature.DEDICATED_ONLY)
        )
        cached = device.sharing.keep(handle_types, Sharing(answers, *masks))
    return cached


def buffer_capabilities(
    device: DeviceState, info: vk.BufferCreateInfo, handle_types: MemoryHandleType
) -> dict[MemoryHandleType, rules.ExternalMemoryFacts]:
    """Return vkGetPhysicalDeviceExternalBufferProperties for each of the types, for buffers like this one.

    The answers are cached, because they do not change. The device is not queried for flags and usages that are not
    valid.
    """
    answers: dict[MemoryHandleType, rules.ExternalMemoryFacts] = {}
    if not handle_types:
        return answers
    query = vk.PhysicalDeviceExternalBufferInfo(info.flags, info.usage, HandleType.OPAQUE_FD, _usage2(info))
    if rules.check_external_buffer_info(query, device.facts):
        return answers
    flags, usage = int(info.flags), int(info.usage)
    for bit in bits_of(handle_types):
        answer = device.buffer_capabilities.get((flags, usage, bit)) if query.p_next is None else None
        if answer is None:
            query.handle_type = HandleType(bit)
            answer = external_facts(device.backend.external_buffer_properties(query).external_memory_properties)
            if query.p_next is None:
                device.buffer_capabilities.keep((flags, usage, bit), answer)
        answers[bit] = answer
    return answers


def transfer_capability(device: DeviceState, handle_type: MemoryHandleType) -> rules.ExternalMemoryFacts:
    """See `Device.transfer_capability`."""
    device.check_open()
    cached = device.buffer_capabilities.get((0, TRANSFER, handle_type))
    if cached is None:
        with device.use():
            bit = arguments.single_type(handle_type)
            cached = buffer_capabilities(device, vk.BufferCreateInfo(usage=TRANSFER), bit)[bit]
    return cached


def _usage2(info: vk.BufferCreateInfo) -> vk.BufferUsageFlags2CreateInfo | None:
    """Return a copy of the usage in the chain, for a query about such buffers; None if there is none."""
    for node in chained_structs(info):
        if type(node) is vk.BufferUsageFlags2CreateInfo:
            return vk.BufferUsageFlags2CreateInfo(node.usage)
    return None


def _resource(
    kind: Literal["buffer", "image"],
    device: DeviceState,
    info: vk.BufferCreateInfo | vk.ImageCreateInfo,
    requirements: Requirements,
    identity: int,
    handle_types: MemoryHandleType,
    capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts],
) -> rules.ResourceFacts:
    return rules.ResourceFacts(
        kind=kind,
        create_info=info,
        size=requirements.size,
        alignment=requirements.alignment,
        memory_type_bits=requirements.memory_type_bits,
        requires_dedicated=requirements.requires_dedicated,
        handle_types=handle_types,
        capabilities=capabilities,
        device_uuid=device.uuid,
        identity=identity,
        device_identity=device.facts.identity,
    )


def buffer_facts(
    device: DeviceState,
    info: vk.BufferCreateInfo,
    requirements: Requirements,
    identity: int,
    handle_types: MemoryHandleType | None = None,
) -> rules.ResourceFacts:
    """Return a new buffer's tracked state. handle_types: those that it was created with; None: those in `info`."""
    external = vk.find(info, vk.ExternalMemoryBufferCreateInfo) if handle_types is None else None
    types = handle_types or (MemoryHandleType(int(external.handle_types)) if external is not None else NO_TYPES)
    return _resource("buffer", device, info, requirements, identity, types, buffer_capabilities(device, info, types))


def image_facts(
    device: DeviceState,
    info: vk.ImageCreateInfo,
    requirements: Requirements,
    identity: int,
    capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts] | None = None,
) -> rules.ResourceFacts:
    """Return a new image's tracked state. capabilities: those of each handle type, if they were queried already."""
    types = external_types(info)
    if capabilities is None:
        capabilities = image_queries.image_capabilities(device, info, tuple(bits_of(types)))
    return _resource("image", device, info, requirements, identity, types, capabilities)
