"""Payloads between devices of different APIs: what one is told of another's memory, and what it sees it as.

A CUDA device knows no memory types and no dedicated resources: what it has to be told is in the payload's descriptor,
and the rules that compare the call with the exporter's do not speak of it. A Vulkan device takes memory that CUDA made
for its own kind of device memory.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.base import Origin
from extmem.errors import DescriptorError, UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.base import Allocation, ImportsDescribed
    from extmem.memory.descriptor import Descriptor
    from extmem.memory.device import Device
    from extmem.memory.importing import Source
    from extmem.rules import PayloadFacts

__all__ = ["by_fd", "check_device", "facts_for", "memory_type", "origin"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FD = int(HandleType.OPAQUE_FD)
_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_LOCAL = int(vk.MemoryPropertyFlagBits.DEVICE_LOCAL)
_VISIBLE = int(vk.MemoryPropertyFlagBits.HOST_VISIBLE)


def origin(descriptor: Descriptor) -> Origin:
    """The payload behind an fd, for a device that imports by its descriptor."""
    dedicated = descriptor.dedicated
    return Origin(
        descriptor.allocation_size,
        _FD,
        descriptor.producer,
        dedicated is not None,
        dedicated if isinstance(dedicated, vk.ImageCreateInfo) else None,
        descriptor.device_uuid,
        descriptor.device_name,
    )


def by_fd(driver: ImportsDescribed, source: Source) -> Allocation:
    """The import of a caller's fd, which is not consumed yet: the allocation takes it at the end.

    Errors: DescriptorError where nobody describes it.
    """
    if source.descriptor is None:
        raise DescriptorError(
            f"fd {source.fd} carries no description, and CUDA has to be told who made it, how large it is and whether "
            "it is dedicated; pass the FdHandle that extmem exported, or state a Descriptor with "
            "extmem.raw.import_payload"
        )
    made = driver.import_described(source.fd, origin(source.descriptor), writable=source.writable)
    source.keeper = driver.keeper_of(made)
    return made


def check_device(device: Device, descriptor: Descriptor) -> None:
    """Refuse a payload of another device, before the driver is asked. Errors: UnsupportedError that names both."""
    if descriptor.device_uuid is not None and descriptor.device_uuid != device.uuid:
        raise UnsupportedError(
            f"the payload lies on {descriptor.device_name!r}, {descriptor.device_uuid.hex()}, and this device is "
            f"{device.name!r}, {device.uuid.hex()}; open it on the device that it was made on, or leave `device` away",
            requires_one_of=[f"the device {descriptor.device_uuid.hex()}"],
        )


def facts_for(device: Device, facts: PayloadFacts | None) -> PayloadFacts | None:
    """What the rules are told of a payload: for a device without memory types, no more than where it lies."""
    if facts is None or device.described is None:
        return facts
    return dataclasses.replace(facts, memory_type_index=None, driver_uuid=None, dedicated=None, dedicated_info=None)


def memory_type(device: Device, descriptor: Descriptor) -> int:
    """The memory type that the device sees a payload as: the exporter's, or its own kind of device memory."""
    if device.described is not None:
        return 0
    if not descriptor.producer:
        return descriptor.memory_type_index
    known = device.foreign_type
    if known is None:
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(descriptor.handle_types & _FD or _FD))
        needs = device.driver.buffer_requirements(
            vk.BufferCreateInfo(size=descriptor.allocation_size, usage=_USAGE, p_next=external)
        )
        types = device.facts.memory_types
        allowed = [index for index in range(len(types)) if needs.memory_type_bits >> index & 1]
        local = [index for index in allowed if types[index].property_flags & _LOCAL]
        unseen = [index for index in local if not types[index].property_flags & _VISIBLE]
        known = device.foreign_type = (unseen or local or allowed or [0])[0]
    return known
