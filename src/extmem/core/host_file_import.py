"""Import of a host payload's memory file on another device: its pages become host memory of that device.

The file contains its own descriptor (the trailer), so neither a name nor the object manager is needed. `opening` does
the same for a host payload that is opened by name.
"""

from __future__ import annotations

from extmem.core import import_source
from extmem.core.device_state import DeviceState
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.devices import host
from extmem.devices.backend import Allocation
from extmem.devices.fd_copies import copy_of
from extmem.devices.types import ImportRequest
from extmem.handles import FdHandle
from extmem.owning import Uses
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.kinds import Backing
from extmem.sharing.payload import PayloadFd
from extmem.vk.handle_types import HOST_ALLOCATION

__all__ = ["as_host_memory", "open_file"]


def as_host_memory(device: DeviceState, payload: PayloadFd, descriptor: Descriptor, capacity: int) -> Allocation:
    """Import a host payload's pages; the allocation owns `payload` from then on. Errors: as `import_payload`."""
    alignment = device.backend.min_imported_host_pointer_alignment
    size = -(-descriptor.allocation_size // alignment) * alignment
    return device.backend.import_payload(ImportRequest(payload, size, 0, capacity=capacity))


def open_file(device: DeviceState, handle: FdHandle, uses: Uses) -> HeldMemory | None:
    """Open the fd of a host payload on a device of another kind (`Device.open`). Return None for any other fd.

    The caller consumes the handle. uses: hold its descriptor.
    Errors: DescriptorError for a file whose descriptor is wrong; as `import_payload`.
    """
    if device.kind == "host" or (handle.payload is not None and handle.payload.backing != Backing.HOST_FILE):
        return None
    owned = handle.use_in(uses)
    examined = host.examine_fd(owned.fd)
    if not examined.valid or not examined.descriptor:
        return None
    descriptor, _ = import_source.parse_descriptor(examined.descriptor)
    payload = PayloadFd(copy_of(owned.fd), examined.writable)
    try:
        allocation = as_host_memory(device, payload, descriptor, examined.capacity or 0)
    except BaseException:
        payload.close()
        raise
    record = MemoryRecord(
        device,
        allocation,
        descriptor,
        allocation.size,
        allocation.memory_type_index,
        import_handle_type=HOST_ALLOCATION,
        writable=examined.writable,
    )
    return HeldMemory(record, record.hold())
