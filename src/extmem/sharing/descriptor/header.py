"""`Header`: the part that the descriptors of all kinds of objects share: the exporter, its device, and the share."""

from __future__ import annotations

import msgspec

from extmem.errors import DescriptorError

__all__ = ["Header"]

_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_NAME_LENGTH = 256  # VK_MAX_PHYSICAL_DEVICE_NAME_SIZE
_GROUP_SIZE = 32  # VK_MAX_DEVICE_GROUP_SIZE
_PRODUCERS = ("", "cuda-vmm")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The exporter of an object, its device, and how the object is shared. Descriptors derive from it."""

    device_uuid: bytes | None = None
    """VkPhysicalDeviceIDProperties::deviceUUID, 16 bytes; None if the producer is not such a device."""
    driver_uuid: bytes | None = None
    """VkPhysicalDeviceIDProperties::driverUUID, 16 bytes."""
    luid: bytes | None = None
    """VkPhysicalDeviceIDProperties::deviceLUID, 8 bytes, if valid."""
    device_name: str = ""
    """Name of the device, for display."""
    driver_name: str = ""
    """Name of the driver, for display."""
    device_mask: int = 0
    """VkMemoryAllocateFlagsInfo::deviceMask."""
    device_group: tuple[bytes, ...] = ()
    """UUIDs of the device group that the logical device was created from; empty for a single device."""
    made_by_vulkan: bool = True
    """False for objects of Direct3D, dma-bufs and other foreign producers: other rules apply to them."""
    producer: str = ""
    """The API other than Vulkan that made an opaque object, which is then imported by other calls: "cuda-vmm" for
    CUDA's virtual-memory API. Empty for Vulkan, and for handle types that imply the producer."""
    share: int = 0
    """How the object manager shares it: 1 by NT handles, 2 by KMT number."""
    read_only: bool = False
    """Whether it was published for reading only."""
    owner_pid: int = 0
    """Process id of the exporter, 0 if unknown. Process ids are reused: the start time distinguishes processes."""
    owner_start_time: int = 0
    """Start time of that process, in ticks of the operating system; 0 if unknown."""

    def check_header(self) -> None:
        """Check these fields, each and together. Errors: DescriptorError."""
        if not (
            0 <= self.share <= 3
            and 0 <= self.owner_pid <= _U32
            and 0 <= self.owner_start_time <= _U64
            and 0 <= self.device_mask <= _U32
            and (self.device_name + self.driver_name + self.producer).isprintable()
        ):
            self._refuse_header()
        for name, value in (("device_uuid", self.device_uuid), ("driver_uuid", self.driver_uuid)):
            if value is not None and len(value) != 16:
                raise DescriptorError(f"{name} has {len(value)} bytes; a UUID has 16")
        if self.luid is not None and len(self.luid) != 8:
            raise DescriptorError(f"luid has {len(self.luid)} bytes; a LUID has 8")
        if self.device_group and (len(self.device_group) > _GROUP_SIZE or any(len(u) != 16 for u in self.device_group)):
            raise DescriptorError(
                f"device_group must be at most {_GROUP_SIZE} UUIDs of 16 bytes: {self.device_group!r}"
            )
        if len(self.device_name) > _NAME_LENGTH or len(self.driver_name) > _NAME_LENGTH:
            raise DescriptorError(f"device_name and driver_name must have at most {_NAME_LENGTH} characters")
        if self.producer not in _PRODUCERS or (self.producer and self.made_by_vulkan):
            raise DescriptorError(
                f"producer is {self.producer!r} and made_by_vulkan {self.made_by_vulkan}; known are {_PRODUCERS[1:]}, "
                "of payloads that Vulkan did not make"
            )

    def _refuse_header(self) -> None:
        """Raise DescriptorError that names the field outside its range."""
        for name, most in (("share", 3), ("owner_pid", _U32), ("owner_start_time", _U64), ("device_mask", _U32)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise DescriptorError(f"{name} is {value}, outside 0 to {most}")
        raise DescriptorError(
            f"device_name {self.device_name!r}, driver_name {self.driver_name!r} and producer {self.producer!r} must "
            "be printable text"
        )
