"""Payloads between devices of different APIs: what one is told of another's memory, and what it sees it as.

A CUDA device knows no memory types and no dedicated resources: what it has to be told is in the payload's descriptor,
and the rules that compare the call with the exporter's do not speak of it. A Vulkan device takes memory that CUDA made
for its own kind of device memory.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from extmem import vk
from extmem.core import describing
from extmem.devices.cuda.handle_types import WIN32_IS_NATIVE
from extmem.devices.types import Origin
from extmem.errors import DescriptorError, UnsupportedError
from extmem.owning import OwnedFd
from extmem.sharing.payload import PayloadFd, Win32Payload
from extmem.vk.handle_types import (
    NO_TYPES,
    OPAQUE_FD,
    OPAQUE_WIN32,
    OPAQUE_WIN32_TYPES,
    MemoryHandleType,
    common,
    lowest,
)
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.import_source import Source
    from extmem.devices.backend import Allocation
    from extmem.devices.optional_protocols import ImportsByDescriptor
    from extmem.manager import Imported
    from extmem.rules import PayloadFacts
    from extmem.sharing.descriptor import Descriptor

__all__ = [
    "by_fd",
    "by_object",
    "check_device",
    "facts_for",
    "handle_of",
    "import_kept",
    "memory_type",
    "origin",
    "stranger",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_SHARED = OPAQUE_WIN32 if WIN32_IS_NATIVE else OPAQUE_FD
"""What memory is imported as that no handle type is known of."""
_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_LOCAL = int(vk.MemoryPropertyFlagBits.DEVICE_LOCAL)
_VISIBLE = int(vk.MemoryPropertyFlagBits.HOST_VISIBLE)


def origin(descriptor: Descriptor, handle_type: MemoryHandleType = OPAQUE_FD) -> Origin:
    """The payload behind a handle of that type, for a device that imports by its descriptor."""
    dedicated = descriptor.dedicated
    return Origin(
        descriptor.allocation_size,
        handle_type,
        descriptor.producer,
        dedicated is not None,
        dedicated if isinstance(dedicated, vk.ImageCreateInfo) else None,
        descriptor.device_uuid,
        descriptor.device_name,
        descriptor.luid,
    )


def by_object(backend: ImportsByDescriptor, imported: Imported, descriptor: Descriptor) -> Allocation:
    """The import of what the object manager gave, whose payload the allocation owns from then on.

    By the handle that the object manager holds, also where the program said a name: a name may be another's by now.
    """
    payload = imported.payload
    handle, kind = payload.fd, OPAQUE_FD
    if isinstance(payload, Win32Payload):
        handle, kind = payload.number or handle, payload.handle_type
    return backend.import_by_descriptor(
        handle,
        origin(descriptor, kind),
        payload=payload,
        identity=imported.identity,
        writable=payload.writable,
    )


def handle_of(allocation: Allocation) -> tuple[int, MemoryHandleType] | None:
    """What leads to a Vulkan device's memory, borrowed, and its handle type; None where nothing does."""
    payload = getattr(allocation, "payload", None)
    if isinstance(payload, Win32Payload) and payload.number:
        return payload.number, payload.handle_type
    handle = allocation.fd
    if handle is None:
        return None
    if isinstance(payload, Win32Payload) and not getattr(allocation, "exporting", False):
        return handle, payload.handle_type
    types: MemoryHandleType = getattr(allocation, "handle_types", NO_TYPES)
    return handle, lowest(common(types, OPAQUE_WIN32_TYPES)) if WIN32_IS_NATIVE else OPAQUE_FD


def stranger(device: DeviceState, source: Source, size: int, kind: int) -> Descriptor:
    """What is known of memory that another program shares and nobody describes, for a device that must be told.

    Errors: DescriptorError for all but Direct3D's, whose handle type says what it is.
    """
    payload = source.imported.payload if source.imported is not None else None
    if not isinstance(payload, Win32Payload) or payload.handle_type & OPAQUE_WIN32_TYPES:
        raise DescriptorError(
            f"{types_text(source.handle_type)} {source.name or hex(source.value)} carries no description, and "
            "CUDA has to be told who made it, how large it is and whether it is dedicated; state a Descriptor with "
            "extmem.raw.import_payload"
        )
    return msgspec.structs.replace(
        describing.describe_allocation(device, size, kind, source.handle_type, None), producer=""
    )


def by_fd(backend: ImportsByDescriptor, source: Source) -> Allocation:
    """The import of a caller's fd, which is not consumed yet. The allocation keeps it.

    Errors: DescriptorError where nobody describes it.
    """
    if source.descriptor is None or source.callers is None:
        fd = source.examined.fd if source.examined is not None else -1
        raise DescriptorError(
            f"fd {fd} carries no description, and CUDA has to be told who made it, how large it is and whether "
            "it is dedicated; pass the FdHandle that extmem exported, or state a Descriptor with "
            "extmem.raw.import_payload"
        )
    return import_kept(backend, source.callers.owned, source.descriptor, source.writable)


def import_kept(backend: ImportsByDescriptor, owned: OwnedFd, descriptor: Descriptor, writable: bool) -> Allocation:
    """The import of an fd, which the allocation keeps, so that the payload can be passed on."""
    payload = PayloadFd(owned, writable)
    try:
        return backend.import_by_descriptor(owned.fd, origin(descriptor), payload=payload, writable=writable)
    except BaseException:
        payload.close()
        raise


def check_device(device: DeviceState, descriptor: Descriptor) -> None:
    """Refuse a payload of another device, before the driver is asked. Errors: UnsupportedError that names both."""
    if not device.identity.may_be(descriptor.device_uuid, descriptor.luid):
        there = (descriptor.device_uuid or descriptor.luid or b"").hex()
        raise UnsupportedError(
            f"the payload lies on {descriptor.device_name!r}, {there}, and this device is {device.name!r}, "
            f"{device.uuid.hex()}; open it on the device that it was made on, or leave `device` away",
            requires_one_of=[f"the device {there}"],
        )


def facts_for(device: DeviceState, facts: PayloadFacts | None) -> PayloadFacts | None:
    """What the rules are told of a payload: for a device without memory types, no more than where it lies."""
    if facts is None or device.described is None:
        return facts
    return dataclasses.replace(facts, memory_type_index=None, driver_uuid=None, dedicated=None, dedicated_info=None)


def memory_type(device: DeviceState, descriptor: Descriptor) -> int:
    """The memory type that the device sees a payload as: the exporter's, or its own kind of device memory."""
    if device.described is not None:
        return 0
    if not descriptor.producer:
        return descriptor.memory_type_index
    known = device.foreign_type
    if known is None:
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(_SHARED))
        needs = device.backend.buffer_requirements(
            vk.BufferCreateInfo(size=descriptor.allocation_size, usage=_USAGE, p_next=external)
        )
        types = device.facts.memory_types
        allowed = [index for index in range(len(types)) if needs.memory_type_bits >> index & 1]
        local = [index for index in allowed if types[index].property_flags & _LOCAL]
        unseen = [index for index in local if not types[index].property_flags & _VISIBLE]
        known = device.foreign_type = (unseen or local or allowed or [0])[0]
    return known
