"""Facts for the rules: what the device answers, and what has been made of it so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from extmem import rules, vk
from extmem.core import arguments, image_queries
from extmem.core.device_facts import chained, external_facts, external_types
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType, union
from extmem.vk.value_text import bits_of

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.devices.resources import Requirements

__all__ = ["Sharing", "buffer_capabilities", "buffer_facts", "image_facts", "sharing", "transfer_capability"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits
_TRANSFER = int(vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST)


class Sharing(NamedTuple):
    """What a device can do with a set of external handle types, for transfer buffers."""

    capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts]
    """The device's answer for each type."""
    exportable: MemoryHandleType
    """The types that it exports."""
    dedicated_only: MemoryHandleType
    """The types that it shares only as dedicated allocations."""


def sharing(device: DeviceState, handle_types: MemoryHandleType) -> Sharing:
    """Return what the device can do with these types. It is asked once for each set: the answer does not change."""
    known: Sharing | None = device.sharing.get(handle_types)
    if known is None:
        answers = {bit: transfer_capability(device, bit) for bit in bits_of(handle_types)}
        masks = (
            union(*(bit for bit, answer in answers.items() if answer.features & feature))
            for feature in (_Feature.EXPORTABLE, _Feature.DEDICATED_ONLY)
        )
        known = device.sharing.keep(handle_types, Sharing(answers, *masks))
    return known


def buffer_capabilities(
    device: DeviceState, info: vk.BufferCreateInfo, handle_types: MemoryHandleType
) -> dict[MemoryHandleType, rules.ExternalMemoryFacts]:
    """vkGetPhysicalDeviceExternalBufferProperties for each of the types, for buffers like this one.

    The device is asked once for each: what it can do does not change. It is not asked about flags and usages that mean
    nothing to it.
    """
    answers: dict[MemoryHandleType, rules.ExternalMemoryFacts] = {}
    if not handle_types:
        return answers
    asked = vk.PhysicalDeviceExternalBufferInfo(info.flags, info.usage, HandleType.OPAQUE_FD, _usage2(info))
    if rules.check_external_buffer_info(asked, device.facts):
        return answers
    flags, usage = int(info.flags), int(info.usage)
    for bit in bits_of(handle_types):
        answer = device.buffer_answers.get((flags, usage, bit)) if asked.p_next is None else None
        if answer is None:
            asked.handle_type = HandleType(bit)
            answer = external_facts(device.backend.external_buffer_properties(asked).external_memory_properties)
            if asked.p_next is None:
                device.buffer_answers.keep((flags, usage, bit), answer)
        answers[bit] = answer
    return answers


def transfer_capability(device: DeviceState, handle_type: MemoryHandleType) -> rules.ExternalMemoryFacts:
    """`Device.transfer_capability`."""
    device.check_open()
    known = device.buffer_answers.get((0, _TRANSFER, handle_type))
    if known is None:
        with device.use():
            bit = arguments.single_type(handle_type)
            known = buffer_capabilities(device, vk.BufferCreateInfo(usage=_TRANSFER), bit)[bit]
    return known


def _usage2(info: vk.BufferCreateInfo) -> vk.BufferUsageFlags2CreateInfo | None:
    """The usage that is chained, for a question about such buffers."""
    for node in chained(info):
        if type(node) is vk.BufferUsageFlags2CreateInfo:
            return vk.BufferUsageFlags2CreateInfo(node.usage)
    return None


def _resource(
    kind: str,
    device: DeviceState,
    info: vk.BufferCreateInfo | vk.ImageCreateInfo,
    requirements: Requirements,
    identity: int,
    handle_types: MemoryHandleType,
    capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts],
) -> rules.ResourceFacts:
    return rules.ResourceFacts(
        kind="buffer" if kind == "buffer" else "image",
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
    """A new buffer's tracked state. handle_types: those that it was made with; None: as `info` still has them."""
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
    """A new image's tracked state. capabilities: of each handle type, where the device was asked already."""
    types = external_types(info)
    known = capabilities
    if known is None:
        known = image_queries.image_capabilities(device, info, tuple(bits_of(types)))
    return _resource("image", device, info, requirements, identity, types, known)
