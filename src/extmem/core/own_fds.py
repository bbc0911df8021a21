"""Exporting or importing an fd of our own once more: the short way of `allocating`.

How this works. Programs export and import payloads of one kind over and over. An fd that this library exported comes
with its payload's description (`FdHandle.payload`), and what the rules say of its import follows from that, the handle
type, the size and the memory type. A device remembers (`note`) with which of these an import has gone the whole way.
The next such import is a look at the file and the driver's call. Memory that is allocated for export as fds, and
nothing else, goes by what its rules were remembered by (`validation_cache.of_allocation`); no object manager has
part in it.

What the short way cannot do it leaves to the whole way, which says why: that both give and refuse the same is a
property test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from extmem import vk
from extmem.api.memory import DeviceMemory
from extmem.core import cross_api, validation_cache
from extmem.core.memory_record import Holding
from extmem.devices.optional_protocols import RepeatsImports
from extmem.errors import DriverError
from extmem.handles import FdHandle
from extmem.handles.here import HERE
from extmem.owning import Uses

if TYPE_CHECKING:
    from extmem.api.device import Device
    from extmem.core.import_source import Source
    from extmem.devices.backend import Allocation
    from extmem.devices.optional_protocols import ImportsDescribed
    from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["allocate_again", "import_again", "note", "note_export", "open_again"]

_ROOM = 1_024
_OPAQUE = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
_Info = vk.ImportMemoryFdInfoKHR
Noted: TypeAlias = "tuple[Descriptor, int, int, Callable[[int], Allocation]]"
"""Payloads whose fds were imported: descriptor, memory type, handle type, and what imports a borrowed fd."""


def import_again(device: Device, info: vk.MemoryAllocateInfo) -> DeviceMemory | None:
    """vkAllocateMemory of `info`, if its like was imported before; else None, and nothing was done.

    The fd is consumed by success alone.
    """
    link = info.p_next
    if link.__class__ is not _Info or link.p_next is not None:
        return None
    handle, size, kind = link.fd, info.allocation_size, info.memory_type_index
    # 4096.0 is equal to 4096, and malformed.
    if not isinstance(handle, FdHandle) or size.__class__ is not int or kind.__class__ is not int:
        return None
    payload, handle_type = handle.payload, link.handle_type
    if payload is None or not payload.trusted or not isinstance(handle_type, int):
        return None
    noted = device.own_imports.get((device.check, payload.descriptor, handle_type, size, kind))
    if noted is None or not device.has_room:
        return None
    return _taken(device, handle, noted)


def allocate_again(device: Device, info: vk.MemoryAllocateInfo) -> DeviceMemory | None:
    """vkAllocateMemory of `info`, if its like was allocated for export before; else None, and nothing was done."""
    key = validation_cache.of_allocation(info)
    noted = device.own_exports.get((device.check, key)) if key is not None else None
    if noted is None or noted[0].owner_pid != HERE.pid or not device.has_room:
        return None
    descriptor, encoded = noted
    size, kind, types = descriptor.allocation_size, descriptor.memory_type_index, descriptor.handle_types
    with device.use():
        allocation = device.driver.allocate(size, kind, encoded, handle_types=types)
        return DeviceMemory(Holding(device, allocation, descriptor, size, kind, export_handle_types=types))


def note_export(device: Device, info: vk.MemoryAllocateInfo, descriptor: Descriptor) -> None:
    """Memory was allocated the whole way, as `info` says."""
    key = validation_cache.of_allocation(info)
    if key is None or device.check == "warn" or descriptor.handle_types != _OPAQUE:
        return
    if len(device.own_exports) >= _ROOM:
        device.own_exports.clear()
    device.own_exports[device.check, key] = (descriptor, descriptor.encode())


def open_again(device: Device, handle: FdHandle) -> DeviceMemory | None:
    """`Device.open` of an fd of our own whose like was opened before; else None, and nothing was done."""
    payload = handle.payload
    if payload is None or not payload.trusted:
        return None
    noted = device.own_imports.get(payload.descriptor)
    if noted is None:
        descriptor = device.plain.get(payload.descriptor)
        if descriptor is None:
            return None
        if device.described is not None:
            return _told(device, device.described, handle, descriptor)
        if not isinstance(device.driver, RepeatsImports):
            return None
        noted = _noted(device, device.driver, payload.descriptor, descriptor, descriptor.memory_type_index, _OPAQUE)
    return _taken(device, handle, noted)


def _told(device: Device, driver: ImportsDescribed, handle: FdHandle, descriptor: Descriptor) -> DeviceMemory | None:
    """On a device that has to be told what the descriptor says."""
    with Uses() as uses:
        uses.add(device)
        try:
            allocation = cross_api.import_kept(driver, handle.use_in(uses), descriptor, True)
        except DriverError:
            return None  # the whole way finds the reason
        size = descriptor.allocation_size
        holding = Holding(device, allocation, descriptor, size, 0, import_handle_type=_OPAQUE)
        holding.identity = handle.payload.identity if handle.payload is not None else 0
        memory = DeviceMemory(holding)
    handle.consume()
    return memory


def _taken(device: Device, handle: FdHandle, noted: Noted) -> DeviceMemory | None:
    descriptor, kind, handle_type, importer = noted
    with Uses() as uses:
        uses.add(device)
        try:
            allocation = importer(handle.use_in(uses).fd)
        except DriverError as error:
            if error.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE:
                return None  # the whole way names the rule that it breaks
            raise
        size = descriptor.allocation_size
        holding = Holding(device, allocation, descriptor, size, kind, import_handle_type=handle_type)
        holding.identity = handle.payload.identity if handle.payload is not None else 0
        memory = DeviceMemory(holding)
    handle.consume()
    return memory


def _noted(
    device: Device, driver: RepeatsImports, key: object, descriptor: Descriptor, kind: int, handle_type: int
) -> Noted:
    """Remember by this key that fds of such payloads were imported."""
    if len(device.own_imports) >= _ROOM:
        device.own_imports.clear()
    importer = driver.known_imports(descriptor.allocation_size, kind, handle_type)
    made = device.own_imports[key] = (descriptor, kind, handle_type, importer)
    return made


def note(device: Device, info: vk.MemoryAllocateInfo, source: Source) -> None:
    """`source` was imported the whole way, as `info` says, with nothing else in its chain."""
    link, descriptor = info.p_next, source.descriptor
    payload = source.fd_payload
    if device.check == "warn" or payload is None or not payload.trusted or not source.writable:
        return
    if not isinstance(link, _Info) or link.p_next is not None or descriptor is None:
        return
    if descriptor.dedicated is not None or not isinstance(link.handle_type, int):
        return  # a create info in it could be changed
    if not isinstance(device.driver, RepeatsImports):
        return  # such as one that has to be told what the descriptor says
    key = (device.check, payload.descriptor, link.handle_type, info.allocation_size, info.memory_type_index)
    # Unjudged, the index may be any number that stands for one.
    _noted(device, device.driver, key, descriptor, int(info.memory_type_index), int(link.handle_type))
