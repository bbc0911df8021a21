"""The facts of a device for the rules, as its backend reports them, and the chain of a create info."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.rules import DeviceFacts, MemoryTypeFacts
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

if TYPE_CHECKING:
    from extmem.devices.backend import Backend

__all__ = ["chained_structs", "device_facts", "external_facts", "external_types"]

_LONGEST_CHAIN = 64
_EMULATED_EXTENSIONS = frozenset(
    {
        "VK_KHR_external_memory",
        "VK_KHR_external_memory_fd",
        "VK_KHR_external_memory_win32",
        "VK_EXT_external_memory_host",
        "VK_EXT_queue_family_foreign",
    }
)
"""Extensions whose structs and commands the host and CUDA devices accept. These devices have no Vulkan extensions."""
_identities = itertools.count(1)
"""Numbers that distinguish the logical devices of this process."""


def device_facts(backend: Backend) -> DeviceFacts:
    """Return the facts of a newly opened device; they do not change while the device is open."""
    properties = backend.memory_properties()
    queues, features = backend.queue_facts, backend.enabled_features
    return DeviceFacts(
        name=backend.identity.device_name,
        device_uuid=backend.identity.device_uuid,
        driver_uuid=backend.identity.driver_uuid,
        memory_types=tuple(
            MemoryTypeFacts(int(memory_type.property_flags), properties.memory_heaps[memory_type.heap_index].size)
            for memory_type in properties.memory_types
        ),
        min_imported_host_pointer_alignment=backend.min_imported_host_pointer_alignment,
        identity=next(_identities),
        queue_family_count=queues.queue_family_count if queues is not None else None,
        queue_families=queues.created if queues is not None else None,
        api_version=queues.api_version if queues is not None else None,
        extensions=queues.extensions if queues is not None else _EMULATED_EXTENSIONS,
        synchronization2="synchronization2" in features if queues is not None and features is not None else None,
        queue_flags=queues.queue_flags if queues is not None else None,
        features=features,
        max_framebuffer=backend.max_framebuffer,
    )


def external_facts(properties: vk.ExternalMemoryProperties) -> rules.ExternalMemoryFacts:
    """Return the device's answer for one handle type, as the rules take it."""
    return rules.ExternalMemoryFacts(
        int(properties.external_memory_features),
        MemoryHandleType(int(properties.export_from_imported_handle_types)),
        MemoryHandleType(int(properties.compatible_handle_types)),
    )


def chained_structs(info: object) -> Iterable[object]:
    """Yield the structs of a chain that was not checked yet: it may be circular, and may end in any object."""
    node, left = getattr(info, "p_next", None), _LONGEST_CHAIN
    while node is not None and left:
        yield node
        node, left = node.p_next if isinstance(node, vk.ChainStruct) else None, left - 1


def external_types(info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> MemoryHandleType:
    """Return the handleTypes in the chain; 0 for none, and for a value that is not a number."""
    for node in chained_structs(info):
        if isinstance(node, (vk.ExternalMemoryBufferCreateInfo, vk.ExternalMemoryImageCreateInfo)):
            return MemoryHandleType(int(node.handle_types)) if isinstance(node.handle_types, int) else NO_TYPES
    return NO_TYPES
