"""Facts for the rules: what the device answers, and what has been made of it so far."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from extmem import rules, vk
from extmem.rules import DeviceFacts, MemoryTypeFacts

if TYPE_CHECKING:
    from extmem.devices.backend import Backend
    from extmem.devices.resources import Requirements
    from extmem.memory.device import Device
    from extmem.memory.holding import Holding

__all__ = [
    "Sharing",
    "buffer_capabilities",
    "buffer_facts",
    "device_facts",
    "external_facts",
    "external_types",
    "image_facts",
    "memory_facts",
    "sharing",
    "single_bits",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits
_SETS = 64
"""Sets of handle types whose capabilities a device keeps."""
_LONGEST_CHAIN = 64
_STOOD_IN_FOR = frozenset(
    {
        "VK_KHR_external_memory",
        "VK_KHR_external_memory_fd",
        "VK_KHR_external_memory_win32",
        "VK_EXT_external_memory_host",
        "VK_EXT_queue_family_foreign",
    }
)
"""Extensions whose structs and commands the host and CUDA devices take, which have none of Vulkan's own."""
_identities = itertools.count(1)
"""What tells the logical devices of this process apart."""


def single_bits(mask: int) -> Iterable[int]:
    """The bits of a mask, one at a time, lowest first."""
    while mask > 0:
        bit = mask & -mask
        yield bit
        mask ^= bit


class Sharing(NamedTuple):
    """What a device can do with a set of external handle types, for transfer buffers."""

    capabilities: Mapping[int, rules.ExternalMemoryFacts]
    """The device's answer for each type."""
    exportable: int
    """The types that it exports."""
    dedicated_only: int
    """The types that it shares only as dedicated allocations."""


def sharing(device: Device, handle_types: int) -> Sharing:
    """Return what the device can do with these types. It is asked once for each set: the answer does not change."""
    known = device.sharing.get(handle_types)
    if known is None:
        answers = {bit: device.transfer_capability(bit) for bit in single_bits(handle_types)}
        masks = (
            sum(bit for bit, answer in answers.items() if answer.features & feature)
            for feature in (_Feature.EXPORTABLE, _Feature.DEDICATED_ONLY)
        )
        if len(device.sharing) >= _SETS:
            device.sharing.clear()
        known = device.sharing[handle_types] = Sharing(answers, *masks)
    return known


def device_facts(backend: Backend) -> DeviceFacts:
    """What the rules need of a device that is opened now; it does not change while the device lives."""
    properties = backend.memory_properties()
    queues, features = backend.queue_facts, backend.enabled_features
    return DeviceFacts(
        name=backend.identity.device_name,
        device_uuid=backend.identity.device_uuid,
        driver_uuid=backend.identity.driver_uuid,
        memory_types=tuple(
            MemoryTypeFacts(int(kind.property_flags), properties.memory_heaps[kind.heap_index].size)
            for kind in properties.memory_types
        ),
        min_imported_host_pointer_alignment=backend.min_imported_host_pointer_alignment,
        identity=next(_identities),
        queue_family_count=queues.queue_family_count if queues is not None else None,
        queue_families=queues.created if queues is not None else None,
        api_version=queues.api_version if queues is not None else None,
        extensions=queues.extensions if queues is not None else _STOOD_IN_FOR,
        synchronization2="synchronization2" in features if queues is not None and features is not None else None,
        queue_flags=queues.queue_flags if queues is not None else None,
        features=features,
        max_framebuffer=backend.max_framebuffer,
    )


def external_facts(properties: vk.ExternalMemoryProperties) -> rules.ExternalMemoryFacts:
    """The device's answer for one handle type, as the rules take it."""
    return rules.ExternalMemoryFacts(
        int(properties.external_memory_features),
        int(properties.export_from_imported_handle_types),
        int(properties.compatible_handle_types),
    )


def buffer_capabilities(
    device: Device, info: vk.BufferCreateInfo, handle_types: int
) -> dict[int, rules.ExternalMemoryFacts]:
    """vkGetPhysicalDeviceExternalBufferProperties for each of the types, for buffers like this one.

    The device is asked once for each: what it can do does not change. It is not asked about flags and usages that mean
    nothing to it.
    """
    answers: dict[int, rules.ExternalMemoryFacts] = {}
    if not handle_types:
        return answers
    asked = vk.PhysicalDeviceExternalBufferInfo(info.flags, info.usage, HandleType.OPAQUE_FD, _usage2(info))
    if rules.check_external_buffer_info(asked, device.facts):
        return answers
    flags, usage = int(info.flags), int(info.usage)
    for bit in single_bits(handle_types):
        answer = device.buffer_answers.get((flags, usage, bit)) if asked.p_next is None else None
        if answer is None:
            asked.handle_type = HandleType(bit)
            answer = external_facts(device.backend.external_buffer_properties(asked).external_memory_properties)
            if asked.p_next is None:
                device.buffer_answers[flags, usage, bit] = answer
        answers[bit] = answer
    return answers


def _usage2(info: vk.BufferCreateInfo) -> vk.BufferUsageFlags2CreateInfo | None:
    """The usage that is chained, for a question about such buffers."""
    for node in _nodes(info):
        if type(node) is vk.BufferUsageFlags2CreateInfo:
            return vk.BufferUsageFlags2CreateInfo(node.usage)
    return None


def _nodes(info: object) -> Iterable[object]:
    """What is chained, of chains that were not judged yet: they may end in themselves, or in anything."""
    node, left = getattr(info, "p_next", None), _LONGEST_CHAIN
    while node is not None and left:
        yield node
        node, left = node.p_next if isinstance(node, vk.ChainStruct) else None, left - 1


def external_types(info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> int:
    """handleTypes that are chained; 0 for none, and for what is not a number."""
    structs = (vk.ExternalMemoryBufferCreateInfo, vk.ExternalMemoryImageCreateInfo)
    for node in _nodes(info):
        if isinstance(node, structs):
            return int(node.handle_types) if isinstance(node.handle_types, int) else 0
    return 0


def _resource(
    kind: str,
    device: Device,
    info: vk.BufferCreateInfo | vk.ImageCreateInfo,
    requirements: Requirements,
    identity: int,
    handle_types: int,
    capabilities: Mapping[int, rules.ExternalMemoryFacts],
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
    device: Device,
    info: vk.BufferCreateInfo,
    requirements: Requirements,
    identity: int,
    handle_types: int | None = None,
) -> rules.ResourceFacts:
    """A new buffer's tracked state. handle_types: those that it was made with; None: as `info` still has them."""
    external = vk.find(info, vk.ExternalMemoryBufferCreateInfo) if handle_types is None else None
    types = handle_types or (int(external.handle_types) if external is not None else 0)
    return _resource("buffer", device, info, requirements, identity, types, buffer_capabilities(device, info, types))


def image_facts(
    device: Device,
    info: vk.ImageCreateInfo,
    requirements: Requirements,
    identity: int,
    capabilities: Mapping[int, rules.ExternalMemoryFacts] | None = None,
) -> rules.ResourceFacts:
    """A new image's tracked state. capabilities: of each handle type, where the device was asked already."""
    types = external_types(info)
    known = capabilities
    if known is None:
        from extmem.memory import image_answers

        known = image_answers.image_capabilities(device, info, tuple(single_bits(types)))
    return _resource("image", device, info, requirements, identity, types, known)


def memory_facts(holding: Holding, *, alive: bool = True) -> rules.MemoryFacts:
    """A memory object's tracked state."""
    return rules.MemoryFacts(
        size=holding.size,
        memory_type_index=holding.memory_type_index,
        export_handle_types=holding.export_handle_types,
        import_handle_type=holding.import_handle_type,
        dedicated=holding.dedicated,
        device_uuid=holding.device.uuid,
        exported_nt_types=holding.exported_nt_types,
        alive=alive,
        device_identity=holding.device.facts.identity,
    )
