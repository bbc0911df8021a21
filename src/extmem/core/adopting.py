"""What other code of this process made, as memory, buffers and images here; see `extmem.raw`.

It stays the other's, which frees it. What the caller states of it is compared with what the driver says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from extmem import vk
from extmem.core import allocating, arguments, creating, describing, exporting
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.core.resources import BufferObject, ImageObject
from extmem.devices.optional_protocols import AdoptsMemory, WrapsPointers
from extmem.errors import DescriptorError, DriverError, HandleStateError, UnsupportedError
from extmem.owning import Uses
from extmem.vk.handle_types import DEFINED_TYPES, NO_TYPES, OPAQUE_FD, OPAQUE_WIN32, MemoryHandleType, union
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.devices.resources import NativeResource

__all__ = ["adopt_memory", "adopt_pointer", "adopt_resource"]

_IMPORTS = (vk.ImportMemoryFdInfoKHR, vk.ImportMemoryWin32HandleInfoKHR, vk.ImportMemoryHostPointerInfoEXT)
_BAD_HANDLE = int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)


def adopt_memory(device: DeviceState, memory: int, info: vk.MemoryAllocateInfo, *, imported: int) -> HeldMemory:
    """A VkDeviceMemory that somebody else allocated as `info` says, shared as its chain says."""
    backend, info = _adopts(device, "VkDeviceMemory"), copy_struct(info)
    memory = _number(memory, "VkDeviceMemory")
    import_type = arguments.single_type(imported, "imported") if imported else NO_TYPES
    if import_type and import_type not in DEFINED_TYPES:
        raise ValueError(f"imported is {import_type:#x}, which is not an external memory handle type; give one, or 0")
    allocating.check_fields(device, info)
    foreign = [link for link in vk.chain(info) if isinstance(link, _IMPORTS)]
    if foreign:
        raise ValueError(
            f"info has {type(foreign[0]).__name__} in its chain, and nothing is imported here: the other binding did "
            "that; omit it, and give the handle type as imported="
        )
    alone = vk.find(info, vk.MemoryDedicatedAllocateInfo)
    dedicated = allocating.dedicated_resource(alone) if alone is not None else None
    export = vk.find(info, vk.ExportMemoryAllocateInfo)
    types = MemoryHandleType(int(export.handle_types)) if export is not None else NO_TYPES
    allocating.check_allocation(device, info, dedicated, None, types)
    size, kind = int(info.allocation_size), int(info.memory_type_index)
    with Uses(device) as uses:
        native = uses.add(dedicated).native if dedicated is not None else None
        try:
            allocation = backend.adopt_memory(memory, size, kind, types, native, imported=import_type)
        except DriverError as error:
            if error.result != _BAD_HANDLE:
                raise
            raise DescriptorError(
                f"the VkDeviceMemory is stated to have {size} bytes of memory type {kind}, and what it exports differs "
                f"({error}); state its VkMemoryAllocateInfo as it was allocated"
            ) from error
        record = MemoryRecord(
            device, allocation, describing.describe_allocation(device, size, kind, types, dedicated), size, kind
        )
        record.export_handle_types, record.import_handle_type = types, import_type
        record.dedicated = dedicated.facts if dedicated is not None else None
        try:
            terms = exporting.terms_of(types, vk.find(info, vk.ExportMemoryWin32HandleInfoKHR))
            if terms is not None:
                exporting.publish(record, terms)
        except BaseException:
            record.end()
            raise
        return HeldMemory(record, record.hold())


def adopt_pointer(device: DeviceState, pointer: int, size: int) -> HeldMemory:
    """Memory that other code made with CUDA, to be shared. The allocation is as long as CUDA says."""
    backend = device.backend
    if not isinstance(backend, WrapsPointers):
        raise UnsupportedError(f"{device.name} is not a CUDA device", requires_one_of=["a CUDA device"])
    types = union(*(bit for bit in (OPAQUE_WIN32, OPAQUE_FD) if not exporting.unable(device, bit)))
    with device.use():
        allocation = backend.wrap_pointer(pointer, size)
        whole = allocation.size
        try:
            descriptor = msgspec.structs.replace(
                describing.describe_allocation(device, whole, 0, types, None), payload_size=size
            )
            record = MemoryRecord(device, allocation, descriptor, whole, 0)
        except BaseException:
            allocation.close()
            raise
        record.export_handle_types = types
        record.lazy_share = True
        return HeldMemory(record, record.hold())


def adopt_resource(
    device: DeviceState,
    kind: Literal["buffer", "image"],
    number: int,
    info: vk.BufferCreateInfo | vk.ImageCreateInfo,
    *,
    bound: bool,
) -> Any:
    """A VkBuffer or VkImage that other code created as `info` states."""
    what = f"Vk{kind.capitalize()}"
    backend, number, info = _adopts(device, what), _number(number, what), copy_struct(info)
    create: Any = creating.create_buffer if kind == "buffer" else creating.create_image
    make: Any = device.make_buffer if kind == "buffer" else device.make_image
    with device.use(), device.making, create(device, info) as twin:
        _not_here(device, kind, number)
        adopted = make(info, native=_like(backend.adopt_resource(number, info), twin, bound))
        device.numbered[kind, number] = adopted
        return adopted


def _adopts(device: DeviceState, what: str) -> AdoptsMemory:
    backend = device.backend
    if not isinstance(backend, AdoptsMemory):
        raise UnsupportedError(
            f"{device.name} has no {what} that could be adopted; use a Vulkan device",
            requires_one_of=["a Vulkan device"],
        )
    return backend


def _number(handle: object, what: str) -> int:
    """A handle of 64 bits. Errors: TypeError, ValueError; HandleStateError for null."""
    number = arguments.whole_number(handle, f"the {what}")
    if not number:
        raise HandleStateError(f"the {what} is null; pass its value as a number")
    if not 0 < number < 1 << 64:
        raise ValueError(f"the {what} is {number:#x}, outside of 64 bits; pass its value as a number")
    return number


def _not_here(device: DeviceState, kind: str, number: int) -> None:
    """Two objects for one thing would each follow what the other does not see: what is bound, and the layouts."""
    known = device.numbered.get((kind, number))
    if known is not None and not known.closed:
        raise HandleStateError(f"this Vk{kind.capitalize()} is {known!r} already; use that, or close it first")


def _like(native: NativeResource, twin: BufferObject | ImageObject, bound: bool) -> NativeResource:
    """The adopted resource, if the driver requires of it what it requires of one made from the stated create info."""
    native.bound = bound
    if native.requirements == twin.requirements:
        return native
    raise DescriptorError(
        f"the {native.kind} has {native.requirements}, and one that is created as stated has {twin.requirements}; "
        "state its create info as it was created"
    )
