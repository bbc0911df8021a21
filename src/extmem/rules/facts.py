"""Facts: what a rule needs to know besides the structs of the call, as plain values.

Rules are pure. Whoever calls them (the `memory` layer) asks the device, the descriptor and the object manager first
and puts the answers here; a fact that nobody could learn is None, and the rules that need it stay silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from extmem import vk
from extmem.rules.device_facts import DeviceFacts, MemoryTypeFacts

__all__ = [
    "AllocateFacts",
    "DeviceFacts",
    "ExternalMemoryFacts",
    "ImageFormatFacts",
    "MemoryFacts",
    "MemoryTypeFacts",
    "ModifierFacts",
    "PayloadFacts",
    "Refusal",
    "ResourceFacts",
]


@dataclass(frozen=True, slots=True)
class ExternalMemoryFacts:
    """VkExternalMemoryProperties, as the device answered for one handle type and one use."""

    features: int
    export_from_imported: int
    compatible: int


@dataclass(frozen=True, slots=True)
class ModifierFacts:
    """What the device answered about one DRM format modifier, for exactly such an image."""

    plane_count: int | None = None
    """VkDrmFormatModifierPropertiesEXT::drmFormatModifierPlaneCount; None where the format lacks the modifier."""
    unsupported: str = ""
    """The device's reason where it has no such image with this modifier."""


@dataclass(frozen=True, slots=True)
class ImageFormatFacts:
    """VkImageFormatProperties: what the device answered for exactly such an image.

    Of an image that may have several modifiers: what all of them allow.
    """

    max_extent: tuple[int, int, int] = (0, 0, 0)
    """Texels."""
    max_mip_levels: int = 0
    max_array_layers: int = 0
    sample_counts: int = 0
    max_resource_size: int = 0
    """Bytes of all levels, layers and samples together; 0 where unknown."""
    unsupported: str = ""
    """The device's reason where it has no such images at all; the other fields, except the last, mean nothing then."""
    modifiers: Mapping[int, ModifierFacts] = field(default_factory=dict)
    """For each DRM format modifier that the create info names."""


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """A live buffer or image as it was created, with what the device requires for it (VkMemoryRequirements2)."""

    kind: Literal["buffer", "image"]
    create_info: vk.BufferCreateInfo | vk.ImageCreateInfo
    size: int
    alignment: int
    memory_type_bits: int
    requires_dedicated: bool = False
    handle_types: int = 0
    """handleTypes of its VkExternalMemory{Buffer,Image}CreateInfo, 0 without one."""
    capabilities: Mapping[int, ExternalMemoryFacts] = field(default_factory=dict)
    """The device's answer for exactly this resource, per single handle type bit."""
    device_uuid: bytes = b""
    identity: int = 0
    """Tells resources of one process apart (two created alike are two)."""
    alive: bool = True
    bound: bool = False
    device_identity: int = 0
    """The `identity` of the device it was created on; 0 where unknown."""


@dataclass(frozen=True, slots=True)
class PayloadFacts:
    """What the payload behind a handle, name, number or fd says of itself (its descriptor); None where it is silent."""

    handle_types: int
    """The external types it was exported for."""
    allocation_size: int | None = None
    memory_type_index: int | None = None
    device_uuid: bytes | None = None
    driver_uuid: bytes | None = None
    dedicated: Literal["none", "buffer", "image"] | None = None
    dedicated_info: vk.BufferCreateInfo | vk.ImageCreateInfo | None = None
    """Create info of the buffer or image it is dedicated to (p_next chain included)."""
    device_mask: int = 0
    device_group: tuple[bytes, ...] = ()
    made_by_vulkan: bool = True
    """False for payloads of foreign producers (D3D, dma-buf exporters): other rules apply to them."""
    memory_type_bits: int | None = None
    """vkGetMemory{Win32Handle,Fd}PropertiesKHR's answer for a foreign payload."""
    device_name: str = ""
    """What the exporter calls its device, for messages alone."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a handle, name or number did not lead to a payload: the NTSTATUS name and the object manager's sentence."""

    status: str
    detail: str


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """A tracked VkDeviceMemory."""

    size: int
    memory_type_index: int
    export_handle_types: int = 0
    import_handle_type: int = 0
    """0 for memory that was not imported."""
    dedicated: ResourceFacts | None = None
    device_uuid: bytes = b""
    exported_nt_types: int = 0
    """NT handle types that vkGetMemoryWin32HandleKHR was already asked for."""
    mapped: bool = False
    alive: bool = True
    device_identity: int = 0
    """The `identity` of the device it was allocated on; 0 where unknown."""


@dataclass(slots=True)  # not frozen: that doubles what making one costs, and each checked call makes one
class AllocateFacts:
    """Everything a vkAllocateMemory check needs besides its VkMemoryAllocateInfo."""

    device: DeviceFacts
    dedicated: ResourceFacts | None = None
    """The resource named by VkMemoryDedicatedAllocateInfo, None without one."""
    capabilities: Mapping[int, ExternalMemoryFacts] = field(default_factory=dict)
    """Per handle type bit: the dedicated resource's answer, or the device's answer for a transfer buffer."""
    payload: PayloadFacts | None = None
    """What the import leads to; None for no import, or where nothing was resolved."""
    refusal: Refusal | None = None
    """Why the import leads nowhere, when it was tried."""
    host_memory_type_bits: int | None = None
    """vkGetMemoryHostPointerPropertiesEXT's answer for the pointer."""
    host_range_mapped: bool | None = None
    """Whether [pHostPointer, + allocationSize) is mapped memory of this process."""
    fd_is_valid: bool | None = None
    """Whether the fd is open and of the kind that the handle type asks for."""
    live_allocations: int = 0
    max_allocations: int = 0
    """maxMemoryAllocationCount, 0 where unknown."""
