"""A host payload's memory file on another device: its pages, imported as host memory, where they are.

Such a file says itself what it is (its trailer), so it needs neither name nor object manager. By name, the same comes
through `opening`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem.core import import_source
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.devices import host
from extmem.devices.fd_copies import copy_of
from extmem.devices.types import ImportRequest
from extmem.owning import Uses
from extmem.sharing.kinds import Backing
from extmem.sharing.payload import PayloadFd
from extmem.vk.handle_types import HOST_ALLOCATION

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.devices.backend import Allocation
    from extmem.handles import FdHandle
    from extmem.sharing.descriptor import Descriptor

__all__ = ["as_host_memory", "open_file"]


def as_host_memory(device: DeviceState, payload: PayloadFd, descriptor: Descriptor, capacity: int) -> Allocation:
    """The device's import of a host payload's pages; it owns `payload` from then on. Errors: as `import_payload`."""
    alignment = device.backend.min_imported_host_pointer_alignment
    size = -(-descriptor.allocation_size // alignment) * alignment
    return device.backend.import_payload(ImportRequest(payload, size, 0, capacity=capacity))


def open_file(device: DeviceState, handle: FdHandle, uses: Uses) -> HeldMemory | None:
    """`Device.open` of a host payload's fd on a device that is none of the host's; None where it is no such fd.

    The caller consumes the handle. uses: hold its descriptor.
    Errors: DescriptorError for a file that lies about itself; as `import_payload`.
    """
    if device.kind == "host" or (handle.payload is not None and handle.payload.backing != Backing.HOST_FILE):
        return None
    owned = handle.use_in(uses)
    found = host.examine_fd(owned.fd)
    if not found.valid or not found.descriptor:
        return None
    descriptor, _ = import_source.described(found.descriptor)
    payload = PayloadFd(copy_of(owned.fd), found.writable)
    try:
        allocation = as_host_memory(device, payload, descriptor, found.capacity or 0)
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
        writable=found.writable,
    )
    return HeldMemory(record, record.hold())
