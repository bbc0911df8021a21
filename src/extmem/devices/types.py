"""What devices and the layers above tell each other: plain records, in the specification's words. See `base`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.backend import Answers, Backend

__all__ = [
    "DeviceIdentity",
    "FdFacts",
    "ImageRegion",
    "Offer",
    "Origin",
    "QueueFacts",
]


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Who a device is (VkPhysicalDeviceIDProperties, …DriverProperties). UUIDs are 16 bytes, a LUID 8."""

    device_uuid: bytes
    driver_uuid: bytes
    luid: bytes | None
    """None where deviceLUIDValid is false."""
    node_mask: int
    device_name: str
    driver_name: str
    driver_version: str

    def may_be(self, device_uuid: bytes | None, luid: bytes | None = None) -> bool:
        """Whether a payload of that device may lie on this one. A UUID decides alone: linked GPUs have one LUID.

        Direct3D knows its device by LUID. None, None is a payload of which nobody knows where it lies.
        """
        if device_uuid is None:
            return luid is None or luid == self.luid
        return device_uuid == self.device_uuid


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What the barrier rules need of a device with queues."""

    queue_family: int
    """The family that commands are recorded for."""
    queue_family_count: int
    api_version: int
    """VkApplicationInfo::apiVersion of its instance, packed."""
    extensions: frozenset[str]
    """Names of the enabled device extensions."""
    queue_flags: int = 7
    """VkQueueFlags of that family."""
    created: frozenset[int] | None = None
    """The families that the VkDevice has queues of; None where another binding created it."""


@dataclass(frozen=True, slots=True)
class ImageRegion:
    """A part of an image and where its texels are in a buffer (VkBufferImageCopy)."""

    buffer_offset: int = 0
    mip_level: int = 0
    array_layer: int = 0
    aspect_mask: int = 1
    """VK_IMAGE_ASPECT_COLOR_BIT."""
    offset: tuple[int, int, int] = (0, 0, 0)
    extent: tuple[int, int, int] = (0, 0, 0)
    """Texels."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A device that could be opened. Opening takes what the device takes; looking does not."""

    kind: str
    """`"host"`, `"vulkan"`, …"""
    identity: DeviceIdentity
    rank: int
    """Better devices have lower ranks: GPUs before the host device, that before processors that pose as GPUs."""
    open: Callable[[], Backend]
    answers: Callable[[], Answers] | None = None
    """Who answers for it while it is not open; None where it has to be opened for that."""


class Origin(NamedTuple):
    """A payload as its descriptor tells of it, for a device of another API than the one that made it."""

    size: int
    """VkMemoryAllocateInfo::allocationSize in bytes, or what that API calls the size of the whole allocation."""
    handle_type: int = 1
    """What the handle is to the driver, one VkExternalMemoryHandleTypeFlagBits."""
    producer: str = ""
    """`Descriptor.producer`: empty for what Vulkan made."""
    dedicated: bool = False
    """Whether it belongs to one buffer or image alone."""
    image: vk.ImageCreateInfo | None = None
    """The image that it is dedicated to."""
    device_uuid: bytes | None = None
    """deviceUUID of the device that it lies on."""
    device_name: str = ""
    """For people."""
    luid: bytes | None = None
    """Windows's name of that device, where the exporter's driver tells it; 8 bytes."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The device's name, for errors."""
        return (self.device_name,) if self.device_name else ()


@dataclass(frozen=True, slots=True)
class FdFacts:
    """What a stranger's fd turned out to be, as far as one device could import it."""

    kind: str
    """`memfd`, `file`, `directory`, `socket`, `pipe`, `device`, `other`, or `closed` for no open descriptor."""
    problem: str = ""
    """Why it cannot be imported, with the actual values; empty where it can."""
    size: int = 0
    """Bytes of the file."""
    capacity: int = 0
    """The largest allocationSize that it can back, in bytes."""
    seals: int = 0
    """F_SEAL_* bits of a memfd."""
    writable: bool = False
    """Whether the descriptor was opened for writing."""
    identity: tuple[int, int] = (0, 0)
    """(st_dev, st_ino): equal for one payload, however many descriptors."""
    descriptor: bytes = b""
    """The self-description that the payload carries; hostile until parsed. Empty where it carries none."""
    descriptor_problem: str = ""
    """Why there is no self-description; empty where there is one."""
    self_describing: bool = True
    """Whether payloads of this kind carry a self-description at all. A GPU driver's do not."""

    @property
    def valid(self) -> bool:
        """Whether it can be imported."""
        return not self.problem
