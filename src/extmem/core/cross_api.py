"""Imports between devices of different APIs: the description that one API needs of the memory of another.

A CUDA device has no memory types and no dedicated resources: everything that it needs for an import is in the payload's
descriptor, so the rules that compare the call with the exporter's do not apply. A Vulkan device imports memory that
CUDA made with a device-local memory type of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from weakref import ref

import msgspec

from extmem import vk
from extmem.core.device_state import DeviceState
from extmem.core.import_source import Source
from extmem.devices.backend import Allocation
from extmem.devices.cuda.handle_types import WIN32_IS_NATIVE
from extmem.devices.optional_protocols import ImportsByDescriptor
from extmem.devices.types import Origin
from extmem.errors import DescriptorError, HandleStateError, UnsupportedError
from extmem.manager import Imported, Manager
from extmem.owning import LateModule
from extmem.rules import PayloadFacts
from extmem.sharing.descriptor import Descriptor
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

if TYPE_CHECKING:
    from extmem.core import describing, rule_facts
    from extmem.devices.optional_protocols import AllocationOfParts
    from extmem.owning import OwnedFd
    from extmem.vk import value_text
else:
    describing = LateModule(globals(), "extmem.core.describing")
    rule_facts = LateModule(globals(), "extmem.core.rule_facts")
    value_text = LateModule(globals(), "extmem.vk.value_text")

__all__ = [
    "check_device",
    "describe_foreign",
    "facts_for",
    "handle_of",
    "import_caller_fd",
    "import_object",
    "memory_type",
    "import_parts",
    "origin",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_SHARED = OPAQUE_WIN32 if WIN32_IS_NATIVE else OPAQUE_FD
"""The handle type of memory of another API, of which no handle type is known."""
_LOCAL = int(vk.MemoryPropertyFlagBits.DEVICE_LOCAL)
_VISIBLE = int(vk.MemoryPropertyFlagBits.HOST_VISIBLE)


def origin(descriptor: Descriptor, handle_type: MemoryHandleType = OPAQUE_FD) -> Origin:
    """Return the origin of a payload with a handle of that type, for a device that imports by descriptor."""
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
        descriptor.part_sizes if descriptor.parts else (),
    )


def import_object(backend: ImportsByDescriptor, imported: Imported, descriptor: Descriptor) -> Allocation:
    """Import a payload that the object manager returned; the allocation owns it from then on.

    The import is by the handle that the object manager holds, even if the program passed a name: the name may refer to
    another object by now.
    """
    payload = imported.payload
    handle, handle_type = payload.fd, OPAQUE_FD
    if isinstance(payload, Win32Payload):
        handle, handle_type = payload.number or handle, payload.handle_type
    source = origin(descriptor, handle_type)
    return backend.import_by_descriptor(
        handle, source, payload=payload, identity=imported.identity, writable=payload.writable
    )


def import_parts(
    backend: ImportsByDescriptor, owner: Manager, imported: Imported, descriptor: Descriptor
) -> Allocation:
    """Import a payload of several allocations, as `import_object`.

    The object manager closes its handles, of which there may be thousands, if the driver exports them again.
    """
    count = len(descriptor.part_sizes)
    try:
        allocation = import_object(backend, imported, descriptor)
    except BaseException:
        owner.set_files_aside(imported.number, count, None)
        raise
    if cast("AllocationOfParts", allocation).exports_parts:
        owner.set_files_aside(imported.number, count, _ExportsAgain(allocation))
    return allocation


class _ExportsAgain:
    """See `FilesAgain`. It does not keep the allocation."""

    __slots__ = ("_known",)

    def __init__(self, allocation: Allocation) -> None:
        self._known = ref(allocation)

    @property
    def alive(self) -> bool:
        allocation = self._known()
        return allocation is not None and not allocation.closed

    def fds(self) -> list[OwnedFd]:
        allocation = self._known()
        if allocation is None:
            return []
        try:
            found = cast("AllocationOfParts", allocation).part_fds()
        except HandleStateError:  # it has been closed
            return []
        return [one for one in found if not isinstance(one, int)]


def handle_of(allocation: Allocation) -> tuple[int, MemoryHandleType] | None:
    """Return a handle of a Vulkan device's memory, borrowed, and its handle type; None if there is none."""
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


def describe_foreign(device: DeviceState, source: Source, size: int, memory_type: int) -> Descriptor:
    """Return a descriptor of memory that another program shares without one, for a device that needs a descriptor.

    Errors: DescriptorError, except for memory of Direct3D, whose handle type is sufficient.
    """
    payload = source.imported.payload if source.imported is not None else None
    if not isinstance(payload, Win32Payload) or payload.handle_type & OPAQUE_WIN32_TYPES:
        raise DescriptorError(
            f"{value_text.types_text(source.handle_type)} {source.name or hex(source.value)} carries no description, "
            "and CUDA needs its producer, its size and whether it is dedicated; state a Descriptor with "
            "extmem.raw.import_payload"
        )
    descriptor = describing.describe_allocation(device, size, memory_type, source.handle_type, None)
    return msgspec.structs.replace(descriptor, producer="")


def import_caller_fd(backend: ImportsByDescriptor, source: Source) -> Allocation:
    """Import a caller's fd, which is not consumed yet. The allocation keeps it, so that the payload can be passed on.

    Errors: DescriptorError if it has no descriptor.
    """
    if source.descriptor is None or source.caller_fd is None:
        fd = source.examined.fd if source.examined is not None else -1
        raise DescriptorError(
            f"fd {fd} carries no description, and CUDA needs its producer, its size and whether it is dedicated; pass "
            "the FdHandle that extmem exported, or state a Descriptor with extmem.raw.import_payload"
        )
    payload = PayloadFd(source.caller_fd.owned, source.writable)
    try:
        return backend.import_by_descriptor(
            payload.fd, origin(source.descriptor), payload=payload, writable=source.writable
        )
    except BaseException:
        payload.close()
        raise


def check_device(device: DeviceState, descriptor: Descriptor) -> None:
    """Refuse a payload of another device, before the driver is called. Errors: UnsupportedError that names both."""
    if not device.identity.may_be(descriptor.device_uuid, descriptor.luid):
        other = (descriptor.device_uuid or descriptor.luid or b"").hex()
        raise UnsupportedError(
            f"the payload is on {descriptor.device_name!r}, {other}, and this device is {device.name!r}, "
            f"{device.uuid.hex()}; open it on the device on which it was made, or omit `device`",
            requires_one_of=[f"the device {other}"],
        )


def facts_for(device: DeviceState, facts: PayloadFacts | None) -> PayloadFacts | None:
    """Return the facts of a payload for the rules: for a device without memory types, only those of its location."""
    if facts is None or device.descriptor_importer is None:
        return facts
    return msgspec.structs.replace(facts, memory_type_index=None, driver_uuid=None, dedicated=None, dedicated_info=None)


def memory_type(device: DeviceState, descriptor: Descriptor) -> int:
    """Return the memory type to import a payload with: the exporter's, or for CUDA memory a device-local one."""
    if device.descriptor_importer is not None:
        return 0
    if not descriptor.producer:
        return descriptor.memory_type_index
    if descriptor.parts:
        raise UnsupportedError(
            f"the memory consists of {len(descriptor.part_sizes)} allocations of CUDA (a tensor of PyTorch's "
            f"expandable segments, as a rule), and {device.name} by Vulkan imports one allocation as one memory; open "
            'it on the CUDA device (device=extmem.open_device(kind="cuda")), or share a tensor that is made in a block '
            "of extmem.torch.pool(), which is one allocation",
            requires_one_of=["a CUDA device", "extmem.torch.pool()"],
        )
    if device.foreign_memory_type is None:
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(_SHARED))
        info = vk.BufferCreateInfo(size=descriptor.allocation_size, usage=rule_facts.TRANSFER, p_next=external)
        bits = device.backend.buffer_requirements(info).memory_type_bits
        types = device.facts.memory_types
        allowed = [index for index in range(len(types)) if bits >> index & 1]
        local = [index for index in allowed if types[index].property_flags & _LOCAL]
        invisible = [index for index in local if not types[index].property_flags & _VISIBLE]
        device.foreign_memory_type = (invisible or local or allowed or [0])[0]
    return device.foreign_memory_type
