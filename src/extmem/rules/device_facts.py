"""Facts of an open device. The other facts, which are needed only when calls are checked, are in `facts`."""

from __future__ import annotations

import msgspec

__all__ = ["DeviceFacts", "MemoryTypeFacts"]


class MemoryTypeFacts(msgspec.Struct, frozen=True):
    """One memory type of a device: VkMemoryPropertyFlags and the size of its heap in bytes."""

    property_flags: int
    heap_size: int


class DeviceFacts(msgspec.Struct, frozen=True):
    """Facts of a logical device that rules need. UUIDs are 16 bytes each."""

    name: str
    device_uuid: bytes
    driver_uuid: bytes
    memory_types: tuple[MemoryTypeFacts, ...]
    min_imported_host_pointer_alignment: int = 4096
    device_group: tuple[bytes, ...] = ()
    """UUIDs of the physical devices that the logical device was created from; empty: only the one in `device_uuid`."""
    queue_count: int = 1
    alive: bool = True
    identity: int = 0
    """Number that is unique among the logical devices of one process; 0 if unknown."""
    queue_family_count: int | None = None
    """Number of queue families of the physical device; None if unknown."""
    queue_families: frozenset[int] | None = None
    """Indices of the families of which the logical device has queues; None if unknown."""
    api_version: int | None = None
    """VkApplicationInfo::apiVersion that the instance was created with (packed, 0 without one); None if unknown."""
    extensions: frozenset[str] | None = None
    """Names of the device extensions that were enabled, `VK_…`; None if unknown."""
    synchronization2: bool | None = None
    """Whether the feature of that name was enabled; None if unknown."""
    features: frozenset[str] | None = None
    """Names of the enabled features (VkPhysicalDeviceFeatures, protectedMemory, bufferDeviceAddressCaptureReplay), as
    the specification spells them; None if unknown."""
    queue_flags: int | None = None
    """VkQueueFlags of the queue family that commands are recorded for; None if unknown, or without queues."""
    max_framebuffer: tuple[int, int] | None = None
    """VkPhysicalDeviceLimits::maxFramebufferWidth and maxFramebufferHeight; None if unknown."""
