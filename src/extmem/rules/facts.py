"""Facts: the information that a rule needs besides the structs of the call, as plain values.

Rules are pure. Their caller (the `memory` layer) first queries the device, the descriptor and the object manager, and
passes the results as facts. A fact that could not be determined is None, and the rules that need it report nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from extmem import vk
from extmem.rules.device_facts import DeviceFacts, MemoryTypeFacts
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

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


class ExternalMemoryFacts(msgspec.Struct, frozen=True):
    """VkExternalMemoryProperties, as the device reports them for one handle type and one usage."""

    features: int
    export_from_imported: MemoryHandleType
    compatible: MemoryHandleType


class ModifierFacts(msgspec.Struct, frozen=True):
    """What the device reports about one DRM format modifier, for exactly such an image."""

    plane_count: int | None = None
    """VkDrmFormatModifierPropertiesEXT::drmFormatModifierPlaneCount; None if the format lacks the modifier."""
    unsupported: str = ""
    """The reason, if the device does not support such an image with this modifier; else empty."""


class ImageFormatFacts(msgspec.Struct, frozen=True):
    """VkImageFormatProperties, as the device reports them for exactly such an image.

    For an image that may have one of several modifiers: what all of them allow.
    """

    max_extent: tuple[int, int, int] = (0, 0, 0)
    """Texels."""
    max_mip_levels: int = 0
    max_array_layers: int = 0
    sample_counts: int = 0
    max_resource_size: int = 0
    """Maximum size in bytes of all levels, layers and samples together; 0 if unknown."""
    unsupported: str = ""
    """The reason, if the device does not support such images at all; then the other fields, except the last, are
    unset."""
    modifiers: Mapping[int, ModifierFacts] = msgspec.field(default_factory=dict)
    """Facts of each DRM format modifier that the create info names."""


class ResourceFacts(msgspec.Struct, frozen=True):
    """A buffer or image: its create info, and the device's memory requirements for it (VkMemoryRequirements2)."""

    kind: Literal["buffer", "image"]
    create_info: vk.BufferCreateInfo | vk.ImageCreateInfo
    size: int
    alignment: int
    memory_type_bits: int
    requires_dedicated: bool = False
    handle_types: MemoryHandleType = NO_TYPES
    """handleTypes of its VkExternalMemory{Buffer,Image}CreateInfo; 0 without one."""
    capabilities: Mapping[MemoryHandleType, ExternalMemoryFacts] = msgspec.field(default_factory=dict)
    """What the device reports for exactly this resource, by handle type bit."""
    device_uuid: bytes = b""
    identity: int = 0
    """Number that is unique among the resources of one process."""
    alive: bool = True
    bound: bool = False
    device_identity: int = 0
    """The `identity` of the device that it was created on; 0 if unknown."""


class PayloadFacts(msgspec.Struct, frozen=True):
    """Facts from the descriptor of the payload that a handle, name, number or fd refers to; None if not contained."""

    handle_types: MemoryHandleType
    """Handle types that it was exported for."""
    allocation_size: int | None = None
    memory_type_index: int | None = None
    device_uuid: bytes | None = None
    driver_uuid: bytes | None = None
    dedicated: Literal["none", "buffer", "image"] | None = None
    dedicated_info: vk.BufferCreateInfo | vk.ImageCreateInfo | None = None
    """Create info of the buffer or image that it is dedicated to, with its pNext chain."""
    device_mask: int = 0
    device_group: tuple[bytes, ...] = ()
    made_by_vulkan: bool = True
    """False for payloads of other producers (D3D, dma-buf exporters), to which other rules apply."""
    memory_type_bits: int | None = None
    """For a payload not made by Vulkan: the memoryTypeBits of vkGetMemory{Win32Handle,Fd}PropertiesKHR."""
    device_name: str = ""
    """Name of the exporter's device, for messages only."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a handle, name or number could not be resolved: the NTSTATUS name and the object manager's message."""

    status: str
    detail: str


class MemoryFacts(msgspec.Struct, frozen=True):
    """A tracked VkDeviceMemory."""

    size: int
    memory_type_index: int
    export_handle_types: MemoryHandleType = NO_TYPES
    import_handle_type: MemoryHandleType = NO_TYPES
    """Handle type of the import; 0 for memory that was not imported."""
    dedicated: ResourceFacts | None = None
    device_uuid: bytes = b""
    exported_nt_types: MemoryHandleType = NO_TYPES
    """NT handle types that vkGetMemoryWin32HandleKHR was already called with."""
    mapped: bool = False
    alive: bool = True
    device_identity: int = 0
    """The `identity` of the device that it was allocated on; 0 if unknown."""


class AllocateFacts(msgspec.Struct):
    """All facts that the checks of vkAllocateMemory need besides its VkMemoryAllocateInfo."""

    device: DeviceFacts
    dedicated: ResourceFacts | None = None
    """The resource named by VkMemoryDedicatedAllocateInfo; None without one."""
    capabilities: Mapping[MemoryHandleType, ExternalMemoryFacts] = msgspec.field(default_factory=dict)
    """What the device reports by handle type bit: for the dedicated resource, or else for a transfer buffer."""
    payload: PayloadFacts | None = None
    """The payload that the import refers to; None without an import, or if it was not resolved."""
    refusal: Refusal | None = None
    """Why the import could not be resolved; None if it was resolved or not tried."""
    host_memory_type_bits: int | None = None
    """memoryTypeBits of vkGetMemoryHostPointerPropertiesEXT for the pointer."""
    host_range_mapped: bool | None = None
    """Whether [pHostPointer, + allocationSize) is mapped memory of this process."""
    fd_is_valid: bool | None = None
    """Whether the fd is open and of the handle type."""
    live_allocations: int = 0
    max_allocations: int = 0
    """maxMemoryAllocationCount; 0 if unknown."""
