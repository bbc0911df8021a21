"""Facts of a device that is opened: what `facts` has besides is needed when calls are checked."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeviceFacts", "MemoryTypeFacts"]


@dataclass(frozen=True, slots=True)
class MemoryTypeFacts:
    """One memory type of a device: VkMemoryPropertyFlags and the size in bytes of the heap behind it."""

    property_flags: int
    heap_size: int


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the rules need of a logical device. UUIDs are 16 bytes each."""

    name: str
    device_uuid: bytes
    driver_uuid: bytes
    memory_types: tuple[MemoryTypeFacts, ...]
    min_imported_host_pointer_alignment: int = 4096
    device_group: tuple[bytes, ...] = ()
    """UUIDs of the physical devices that the logical device was made from; empty means the one in `device_uuid`."""
    queue_count: int = 1
    alive: bool = True
    identity: int = 0
    """Tells logical devices of one process apart; 0 where unknown."""
    queue_family_count: int | None = None
    """How many queue families the physical device has; None where unknown."""
    queue_families: frozenset[int] | None = None
    """The families that the logical device has queues of; None where unknown."""
    api_version: int | None = None
    """VkApplicationInfo::apiVersion that the instance was created with (packed, 0 without one); None where unknown."""
    extensions: frozenset[str] | None = None
    """Names of the device extensions that were enabled, `VK_…`; None where unknown."""
    synchronization2: bool | None = None
    """Whether the feature of that name was enabled; None where unknown."""
    features: frozenset[str] | None = None
    """Names of the enabled features (VkPhysicalDeviceFeatures, protectedMemory, bufferDeviceAddressCaptureReplay), as
    the specification spells them; None where unknown."""
    queue_flags: int | None = None
    """VkQueueFlags of the queue family that commands are recorded for; None where unknown, or without queues."""
    max_framebuffer: tuple[int, int] | None = None
    """VkPhysicalDeviceLimits::maxFramebufferWidth and maxFramebufferHeight; None where unknown."""
