"""Records that backends and the layers above exchange, in the specification's terms. See `backend`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from extmem.vk.handle_types import NO_TYPES, OPAQUE_FD, MemoryHandleType

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.resources import NativeResource
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms

__all__ = [
    "HostRange",
    "DeviceIdentity",
    "ExaminedFd",
    "ImageRegion",
    "ImportRequest",
    "Origin",
    "QueueFacts",
]


class DeviceIdentity(msgspec.Struct, frozen=True):
    """The identity of a device (VkPhysicalDeviceIDProperties, …DriverProperties). UUIDs have 16 bytes, a LUID 8."""

    device_uuid: bytes
    driver_uuid: bytes
    luid: bytes | None
    """None where deviceLUIDValid is false."""
    node_mask: int
    device_name: str
    driver_name: str
    driver_version: str

    def may_be(self, device_uuid: bytes | None, luid: bytes | None = None) -> bool:
        """Whether a payload of that device may be on this one. A UUID decides alone: linked GPUs have one LUID.

        Direct3D identifies its device by LUID. None, None stands for a payload whose device is not known.
        """
        if device_uuid is None:
            return luid is None or luid == self.luid
        return device_uuid == self.device_uuid


class QueueFacts(msgspec.Struct, frozen=True):
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
    """The families that the VkDevice has queues of; None if another binding created it."""


class ImageRegion(msgspec.Struct, frozen=True):
    """A part of an image, and where its texels are in a buffer (VkBufferImageCopy)."""

    buffer_offset: int = 0
    mip_level: int = 0
    array_layer: int = 0
    aspect_mask: int = 1
    """VK_IMAGE_ASPECT_COLOR_BIT."""
    offset: tuple[int, int, int] = (0, 0, 0)
    extent: tuple[int, int, int] = (0, 0, 0)
    """Texels."""


class HostRange(msgspec.Struct, frozen=True):
    """Memory that the caller mapped and keeps: the mapping of an imported host pointer."""

    address: int
    size: int
    writable: bool = True


class Origin(msgspec.Struct, frozen=True):
    """A payload as its descriptor describes it, for a device of another API than the one that made it."""

    size: int
    """VkMemoryAllocateInfo::allocationSize in bytes, or the size of the whole allocation in that API."""
    handle_type: MemoryHandleType = OPAQUE_FD
    """What the handle is to the driver, one VkExternalMemoryHandleTypeFlagBits."""
    producer: str = ""
    """`Descriptor.producer`: empty for memory of Vulkan."""
    dedicated: bool = False
    """Whether it belongs to one buffer or image alone."""
    image: vk.ImageCreateInfo | None = None
    """The image that it is dedicated to."""
    device_uuid: bytes | None = None
    """deviceUUID of the device that it is on."""
    device_name: str = ""
    """For error messages."""
    luid: bytes | None = None
    """deviceLUID of that device, where the exporter's driver reports it; 8 bytes."""
    parts: tuple[int, ...] = ()
    """The bytes of each allocation that it consists of, which have a handle each; empty for one allocation."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The device's name, for errors."""
        return (self.device_name,) if self.device_name else ()


class ExaminedFd(msgspec.Struct, frozen=True):
    """A file descriptor as one device's fd check found it: what `Backend.examine_fd` returns and an import takes.

    It is valid as long as the descriptor is held. Nothing in it outlives the call that examined the descriptor: the
    number may be another file's afterwards.
    """

    fd: int
    """The descriptor, borrowed."""
    handle_type: MemoryHandleType
    """What it was examined as: one VkExternalMemoryHandleTypeFlagBits."""
    file_type: str
    """`memfd`, `file`, `directory`, `socket`, `pipe`, `device`, `other`, or `closed` for no open descriptor."""
    problem: str = ""
    """Why it cannot be imported, with the actual values; empty where it can."""
    size: int = 0
    """Bytes of the file."""
    capacity: int | None = 0
    """The largest allocationSize that it can back, in bytes; None where the kernel does not report a size."""
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
    trusted: bool = False
    """Whether this library exported it, so that an import needs no proof of what it is."""

    @property
    def valid(self) -> bool:
        """Whether it can be imported."""
        return not self.problem


S = TypeVar("S", bound="ExaminedFd | PayloadFd")
T = TypeVar("T", bound="ExaminedFd | PayloadFd")


class ImportRequest(msgspec.Struct, Generic[S], frozen=True):
    """What one import is to do: the argument of `Backend.import_fd` and `Backend.import_payload`."""

    source: S
    """An examined descriptor, which stays the caller's; or a payload of the object manager, which the allocation owns
    from its success on."""
    size: int
    """VkMemoryAllocateInfo::allocationSize in bytes."""
    memory_type: int
    """VkMemoryAllocateInfo::memoryTypeIndex."""
    dedicated: NativeResource | None = None
    """The buffer or image that the memory is dedicated to."""
    capacity: int = 0
    """Bytes of a host payload's sealed file; 0 for what is not a host payload."""
    identity: int = 0
    """The `stated_identity` of the allocation that was shared; 0 where the kernel tells payloads apart."""
    export_types: MemoryHandleType = NO_TYPES
    """VkExportMemoryAllocateInfo::handleTypes: what the import is exported as again, where the driver does that."""
    terms: ShareTerms | None = None
    """The terms of that export."""

    def of(self, source: T) -> ImportRequest[T]:
        """The same request for another source."""
        request: Any = self
        return msgspec.structs.replace(request, source=source)
