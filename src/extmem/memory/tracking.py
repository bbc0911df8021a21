"""Facts for the rules: what the device answers, and what has been made of it so far."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.errors import UnsupportedError
from extmem.rules import DeviceFacts, MemoryTypeFacts

if TYPE_CHECKING:
    from extmem.devices.base import Driver
    from extmem.devices.resources import Requirements
    from extmem.memory.device import Device
    from extmem.memory.holding import Holding

__all__ = [
    "ImageAnswer",
    "ask_of_image",
    "buffer_capabilities",
    "buffer_facts",
    "device_facts",
    "external_types",
    "image_capabilities",
    "image_facts",
    "memory_facts",
    "single_bits",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_LONGEST_CHAIN = 64
_identities = itertools.count(1)
"""What tells the logical devices of this process apart."""


def single_bits(mask: int) -> Iterable[int]:
    """The bits of a mask, one at a time, lowest first."""
    while mask > 0:
        bit = mask & -mask
        yield bit
        mask ^= bit


def device_facts(driver: Driver) -> DeviceFacts:
    """What the rules need of a device that is opened now; it does not change while the device lives."""
    properties = driver.memory_properties()
    queues = driver.queue_facts
    return DeviceFacts(
        name=driver.identity.device_name,
        device_uuid=driver.identity.device_uuid,
        driver_uuid=driver.identity.driver_uuid,
        memory_types=tuple(
            MemoryTypeFacts(int(kind.property_flags), properties.memory_heaps[kind.heap_index].size)
            for kind in properties.memory_types
        ),
        min_imported_host_pointer_alignment=driver.min_imported_host_pointer_alignment,
        identity=next(_identities),
        queue_family_count=queues.queue_family_count if queues is not None else None,
        api_version=queues.api_version if queues is not None else None,
        extensions=queues.extensions if queues is not None else None,
        # Never switched on: vkCmdPipelineBarrier is all that is recorded here.
        synchronization2=False if queues is not None else None,
        queue_flags=queues.queue_flags if queues is not None else None,
        features=driver.enabled_features,
        max_framebuffer=driver.max_framebuffer,
    )


def _external_facts(properties: vk.ExternalMemoryProperties) -> rules.ExternalMemoryFacts:
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
            answer = _external_facts(device.driver.external_buffer_properties(asked).external_memory_properties)
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
        node, left = getattr(node, "p_next", None), left - 1


def external_types(info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> int:
    """handleTypes that are chained; 0 for none, and for what is not a number."""
    structs = (vk.ExternalMemoryBufferCreateInfo, vk.ExternalMemoryImageCreateInfo)
    for node in _nodes(info):
        if isinstance(node, structs):
            return int(node.handle_types) if isinstance(node.handle_types, int) else 0
    return 0


@dataclass(slots=True)
class ImageAnswer:
    """What a device answered about images like one that is to be made."""

    external: dict[int, rules.ExternalMemoryFacts] = field(default_factory=dict)
    """For each handle type."""
    format: rules.ImageFormatFacts | None = None
    """None where it was not asked, because format, type, tiling, usage or flags are not valid."""
    refusal: UnsupportedError | None = None
    """VK_ERROR_FORMAT_NOT_SUPPORTED, where that was the answer."""


def ask_of_image(device: Device, info: vk.ImageCreateInfo) -> ImageAnswer:
    """vkGetPhysicalDeviceImageFormatProperties2 for images like this one, shared as each of its types and as none."""
    query = vk.PhysicalDeviceImageFormatInfo2(info.format, info.image_type, info.tiling, info.usage, info.flags)
    answer = ImageAnswer()
    if rules.check_external_image_format_info(query, device.facts):
        return answer
    try:
        found = [device.driver.image_format_properties(query).image_format_properties]
    except UnsupportedError as refusal:
        answer.refusal, answer.format = refusal, rules.ImageFormatFacts(unsupported=str(refusal))
        return answer
    for bit in single_bits(external_types(info)):
        query.p_next = vk.PhysicalDeviceExternalImageFormatInfo(HandleType(bit))
        answer.external[bit] = rules.ExternalMemoryFacts(0, 0, 0)
        try:
            shared = device.driver.image_format_properties(query)
        except UnsupportedError:
            continue  # VK_ERROR_FORMAT_NOT_SUPPORTED: the type does not suit such an image at all
        found.append(shared.image_format_properties)
        external = vk.find(shared, vk.ExternalImageFormatProperties)
        if external is not None:
            answer.external[bit] = _external_facts(external.external_memory_properties)
    samples = int(found[0].sample_counts)
    for one in found[1:]:
        samples &= int(one.sample_counts)
    answer.format = rules.ImageFormatFacts(
        max_extent=(
            min(int(one.max_extent.width) for one in found),
            min(int(one.max_extent.height) for one in found),
            min(int(one.max_extent.depth) for one in found),
        ),
        max_mip_levels=min(int(one.max_mip_levels) for one in found),
        max_array_layers=min(int(one.max_array_layers) for one in found),
        sample_counts=samples,
    )
    return answer


def image_capabilities(
    device: Device, info: vk.ImageCreateInfo, handle_types: int
) -> dict[int, rules.ExternalMemoryFacts]:
    """vkGetPhysicalDeviceImageFormatProperties2 for each of the types, for images like this one."""
    answers = {}
    for bit in single_bits(handle_types):
        query = vk.PhysicalDeviceImageFormatInfo2(
            info.format,
            info.image_type,
            info.tiling,
            info.usage,
            info.flags,
            vk.PhysicalDeviceExternalImageFormatInfo(HandleType(bit)),
        )
        try:
            found = vk.find(device.driver.image_format_properties(query), vk.ExternalImageFormatProperties)
        except UnsupportedError:
            found = None  # VK_ERROR_FORMAT_NOT_SUPPORTED: the type does not suit such an image at all
        answers[bit] = (
            rules.ExternalMemoryFacts(0, 0, 0) if found is None else _external_facts(found.external_memory_properties)
        )
    return answers


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
    known = image_capabilities(device, info, types) if capabilities is None else capabilities
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
