"""Memory, buffers and images that other code of this process created, as objects of extmem; see `extmem.raw`.

The other code still owns and frees them. The values that the caller states are compared with the driver's.
"""

from __future__ import annotations

from typing import Any, Literal

from extmem import vk
from extmem.core import allocating, arguments, creating, describing, exporting
from extmem.core.device_state import DeviceState
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.devices.optional_protocols import AdoptsMemory, WrapsPointers
from extmem.errors import DescriptorError, DriverError, HandleStateError, UnsupportedError
from extmem.owning import Uses
from extmem.vk.handle_types import DEFINED_TYPES, NO_TYPES, OPAQUE_FD, OPAQUE_WIN32, MemoryHandleType, union
from extmem.vk.struct_copies import copy_struct

__all__ = ["adopt_memory", "adopt_pointer", "adopt_resource"]

_IMPORTS = (vk.ImportMemoryFdInfoKHR, vk.ImportMemoryWin32HandleInfoKHR, vk.ImportMemoryHostPointerInfoEXT)
_BAD_HANDLE = int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)


def adopt_memory(device: DeviceState, memory: int, info: vk.MemoryAllocateInfo, *, imported: int) -> HeldMemory:
    """Adopt a VkDeviceMemory that other code allocated as `info` states, and share it as the chain states."""
    backend, info = _adopting_backend(device, "VkDeviceMemory"), copy_struct(info)
    memory = _number(memory, "VkDeviceMemory")
    import_type = arguments.single_type(imported, "imported") if imported else NO_TYPES
    if import_type and import_type not in DEFINED_TYPES:
        raise ValueError(f"imported is {import_type:#x}, which is not an external memory handle type; give one, or 0")
    allocating.check_fields(device, info)
    imports = [link for link in vk.chain(info) if isinstance(link, _IMPORTS)]
    if imports:
        raise ValueError(
            f"info has {type(imports[0]).__name__} in its chain, but the import was made by the other binding; omit "
            "the struct, and give the handle type as imported="
        )
    link = vk.find(info, vk.MemoryDedicatedAllocateInfo)
    dedicated = allocating.dedicated_resource(link) if link is not None else None
    export = vk.find(info, vk.ExportMemoryAllocateInfo)
    types = MemoryHandleType(int(export.handle_types)) if export is not None else NO_TYPES
    allocating.check_allocation(device, info, dedicated, None, types)
    size, memory_type = int(info.allocation_size), int(info.memory_type_index)
    with Uses(device) as uses:
        native = uses.add(dedicated).native if dedicated is not None else None
        try:
            allocation = backend.adopt_memory(memory, size, memory_type, types, native, imported=import_type)
        except DriverError as error:
            if error.result != _BAD_HANDLE:
                raise
            raise DescriptorError(
                f"the VkDeviceMemory is stated to have {size} bytes of memory type {memory_type}, and its export "
                f"differs ({error}); state its VkMemoryAllocateInfo as it was allocated"
            ) from error
        record = MemoryRecord(
            device,
            allocation,
            describing.describe_allocation(device, size, memory_type, types, dedicated),
            size,
            memory_type,
            dedicated=dedicated.facts if dedicated is not None else None,
            export_handle_types=types,
            import_handle_type=import_type,
        )
        try:
            terms = exporting.terms_of(types, vk.find(info, vk.ExportMemoryWin32HandleInfoKHR))
            if terms is not None:
                exporting.publish(record, terms)
        except BaseException:
            record.end()
            raise
        return HeldMemory(record, record.hold())


def adopt_pointer(device: DeviceState, pointer: int, size: int) -> HeldMemory:
    """Adopt memory that other code allocated with CUDA, to share it. Its allocation has the size that CUDA reports."""
    backend = device.backend
    if not isinstance(backend, WrapsPointers):
        raise UnsupportedError(f"{device.name} is not a CUDA device", requires_one_of=["a CUDA device"])
    types = union(*(bit for bit in (OPAQUE_WIN32, OPAQUE_FD) if not exporting.export_obstacle(device, bit)))
    with device.use():
        allocation = backend.wrap_pointer(pointer, size)
        whole = allocation.size
        try:
            descriptor = describing.describe(device, whole, 0, types, None, payload_size=size)
            record = MemoryRecord(device, allocation, descriptor, whole, 0, export_handle_types=types)
        except BaseException:
            allocation.close()
            raise
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
    """Adopt a VkBuffer or VkImage that other code created as `info` states."""
    what = f"Vk{kind.capitalize()}"
    backend, number, info = _adopting_backend(device, what), _number(number, what), copy_struct(info)
    create: Any = creating.create_buffer if kind == "buffer" else creating.create_image
    make: Any = device.make_buffer if kind == "buffer" else device.make_image
    with device.use(), device.creation_lock, create(device, info) as twin:
        existing = device.resources_by_handle.get((kind, number))
        if existing is not None and not existing.closed:
            # Two objects of one resource would have two states: what is bound to it, and the layouts of an image.
            raise HandleStateError(f"this {what} is {existing!r} already; use that, or close it first")
        native = backend.adopt_resource(number, info)
        native.bound = bound
        if native.requirements != twin.requirements:
            raise DescriptorError(
                f"the {kind} has {native.requirements}, and one that is created as stated has {twin.requirements}; "
                "state its create info as it was created"
            )
        adopted = make(info, native=native)
        device.resources_by_handle[kind, number] = adopted
        return adopted


def _adopting_backend(device: DeviceState, what: str) -> AdoptsMemory:
    backend = device.backend
    if not isinstance(backend, AdoptsMemory):
        raise UnsupportedError(
            f"{device.name} has no {what} that could be adopted; use a Vulkan device",
            requires_one_of=["a Vulkan device"],
        )
    return backend


def _number(handle: object, what: str) -> int:
    """Return a handle of 64 bits as an int. Errors: TypeError, ValueError; HandleStateError for null."""
    number = arguments.whole_number(handle, f"the {what}")
    if not number:
        raise HandleStateError(f"the {what} is null; pass its value as a number")
    if not 0 < number < 1 << 64:
        raise ValueError(f"the {what} is {number:#x}, outside of 64 bits; pass its value as a number")
    return number
